//! `spiped setup`, followed to the letter: what it prints is what is run next.

use std::fs;
use std::process::Output;

use crate::support::hosts::{Host, Hosts, hosts_can_be, said};
use crate::support::wait_until;

const RECEIVE: &str = "spiped setup receive redis --source 192.0.2.1:6379 --target 127.0.0.1:6379";
const SEND: &str = "spiped setup send redis --source 127.0.0.1:8000 --target 192.0.2.1:6379";
const PAIR: &str = "spiped setup pair redis --source 192.0.2.1:6380 --target 127.0.0.1:6379 \
                    --local 127.0.0.1:8000 --peer 192.0.2.2:6380";

/// The line that was printed for another host: run by hand of this test in
/// ssh's place, and by root, who needs no sudo.
fn follow(hosts: &Hosts, (from, to): (&str, &str), printed: &str) -> String {
    let line = printed.lines().last().unwrap().trim();
    let (bring, run) = line.split_once(" | sudo ").unwrap();
    let path = bring.split_once(" sudo cat /").unwrap().1;
    let key = fs::read(hosts[from].root.join(path)).unwrap();
    run_with_key(&hosts[to], run, &key)
}

/// Runs a line that must succeed and reads a key from standard input.
fn run_with_key(host: &Host, line: &str, key: &[u8]) -> String {
    let brought = host.root.join("root/brought");
    fs::write(&brought, key).unwrap();
    let printed = host.sh(&format!("{line} < /root/brought"));
    fs::remove_file(brought).unwrap();
    printed
}

/// Every file of /etc, with all that a change would change.
fn listing(host: &Host) -> String {
    let list = host.must("find /etc -printf %p\\x20%i\\x20%m\\x20%u\\x20%T@\\x20%C@\\n");
    let mut lines: Vec<_> = list.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Paths and modes alone: a folder has another time once something was in it.
fn names(host: &Host) -> String {
    let list = host.must("find /etc -printf %p\\x20%m\\n");
    let mut lines: Vec<_> = list.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn key_id(host: &Host, name: &str) -> String {
    host.must(&format!("spiped keyid /etc/spiped/{name}.key"))
}

fn process(host: &Host, unit: &str) -> String {
    host.must(&format!("systemctl show -P MainPID {unit}"))
}

/// What systemd says of a unit: its state, and whether it is enabled.
fn state(host: &Host, unit: &str) -> String {
    host.must(&format!("systemctl show -p ActiveState -p UnitFileState {unit}")).replace('\n', " ")
}

#[track_caller]
fn refused(output: &Output, code: i32, reason: &str) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with(&format!("spiped: {reason}")), "{reason:?} does not begin {said}");
    assert!(said.lines().count() == 2 && said.contains("\nhint: "), "{said}");
    said
}

#[test]
fn one_line_a_side_carries_redis() {
    if !hosts_can_be("spiped setup") {
        return;
    }
    let mut hosts = Hosts::boot(&["server", "client"]);
    hosts["server"].has_redis();
    let printed = hosts["server"].must(RECEIVE);
    let key = key_id(&hosts["server"], "redis");
    assert_eq!(
        printed,
        format!(
            "redis runs: takes encrypted connections on [192.0.2.1]:6379, \
             sends plaintext to [127.0.0.1]:6379\n  its key: {key}\n\
             Now, on the clients' host:\n  \
             ssh 192.0.2.1 sudo cat /etc/spiped/redis.key | sudo {SEND} --key -"
        )
    );
    let sent = follow(&hosts, ("server", "client"), &printed);
    assert_eq!(
        sent,
        format!(
            "redis runs: takes plaintext on [127.0.0.1]:8000, \
             sends it encrypted to [192.0.2.1]:6379\n  its key: {key}"
        )
    );
    assert_eq!(hosts["client"].redis("ping"), "PONG");
    for host in ["server", "client"] {
        let files = hosts[host].must("stat --format %a,%U,%n /etc/spiped /etc/spiped/redis.key");
        assert_eq!(files, "700,root,/etc/spiped\n600,root,/etc/spiped/redis.key");
        let left = hosts[host].must("ls -A /etc/spiped");
        assert_eq!(left, "redis.conf\nredis.key");
    }

    // Again: the same words, and nothing has changed.
    let again = |host: &Host, unit: &str, run: &dyn Fn() -> String, before: &str| {
        let (files, id) = (listing(host), process(host, unit));
        assert_eq!(run(), before);
        assert_eq!((listing(host), process(host, unit)), (files, id));
    };
    let (server, client) = (&hosts["server"], &hosts["client"]);
    again(server, "spiped-receive@redis", &|| server.must(RECEIVE), &printed);
    let follow_again = || follow(&hosts, ("server", "client"), &printed);
    again(client, "spiped-send@redis", &follow_again, &sent);
    assert_eq!(
        server.must(&format!("{RECEIVE} --dry-run")),
        "nothing to do: it is set up and runs"
    );
    // What the operator added is kept, what was stopped and disabled is mended.
    server.sh("echo SPIPED_LOG=debug >> /etc/spiped/redis.conf");
    server.must("systemctl disable --quiet --now spiped-receive@redis");
    again_after_a_stop(server, &printed);
    assert_eq!(key_id(server, "redis"), key);

    for host in ["server", "client"] {
        hosts.reboot(host);
        wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
        hosts.power_cut(host);
        wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
    }
}

fn again_after_a_stop(server: &Host, printed: &str) {
    let conf = fs::read_to_string(server.etc("redis.conf")).unwrap();
    assert_eq!(server.must(RECEIVE), printed);
    assert_eq!(fs::read_to_string(server.etc("redis.conf")).unwrap(), conf);
    assert_eq!(state(server, "spiped-receive@redis"), "ActiveState=active UnitFileState=enabled");
}

#[test]
fn three_lines_make_a_pair_that_replicates() {
    if !hosts_can_be("spiped setup pair") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b"]);
    for host in ["a", "b"] {
        hosts[host].has_redis();
    }
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let first = a.must(PAIR);
    let (in_a, head) = (key_id(a, "redis-in"), "takes encrypted connections on");
    let out = "redis-out runs: takes plaintext on [127.0.0.1]:8000, sends it encrypted to";
    let to = "sends plaintext to [127.0.0.1]:6379";
    assert_eq!(
        first,
        format!(
            "redis-in runs: {head} [192.0.2.1]:6380, {to}\n  its key: {in_a}\n\
             Now, on 192.0.2.2:\n  \
             ssh 192.0.2.1 sudo cat /etc/spiped/redis-in.key | sudo spiped setup pair redis \
             --source 192.0.2.2:6380 --target 127.0.0.1:6379 \
             --local 127.0.0.1:8000 --peer 192.0.2.1:6380 --key -"
        )
    );
    let second = follow(&hosts, ("a", "b"), &first);
    let in_b = key_id(b, "redis-in");
    assert_ne!(in_a, in_b);
    assert_eq!(
        second,
        format!(
            "redis-in runs: {head} [192.0.2.2]:6380, {to}\n  its key: {in_b}\n\
             {out} [192.0.2.1]:6380\n  its key: {in_a}\n\
             Last, on 192.0.2.1, unless redis-out runs there already:\n  \
             ssh 192.0.2.2 sudo cat /etc/spiped/redis-in.key | sudo spiped setup send redis-out \
             --source 127.0.0.1:8000 --target 192.0.2.2:6380 --key -"
        )
    );
    let third = follow(&hosts, ("b", "a"), &second);
    assert_eq!(third, format!("{out} [192.0.2.2]:6380\n  its key: {in_b}"));

    b.must("redis-cli replicaof 127.0.0.1 8000");
    a.must("redis-cli set name value");
    wait_until("it is replicated", || b.must("redis-cli get name") == "value");
    b.must("redis-cli replicaof no one");
    a.must("redis-cli replicaof 127.0.0.1 8000");
    b.must("redis-cli set name other");
    wait_until("it is replicated the other way", || a.must("redis-cli get name") == "other");

    // Each line again, and the whole pair by its own name with the key.
    let before = (listing(a), listing(b));
    assert_eq!(a.must(PAIR), first);
    assert_eq!(follow(&hosts, ("a", "b"), &first), second);
    assert_eq!(follow(&hosts, ("b", "a"), &second), third);
    let key = fs::read(b.etc("redis-in.key")).unwrap();
    let whole = run_with_key(a, &format!("{PAIR} --key -"), &key);
    assert!(whole.contains(&third), "{whole}");
    assert_eq!((listing(a), listing(b)), before);
}

#[test]
fn what_fails_leaves_nothing_behind() {
    if !hosts_can_be("what spiped setup undoes") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    let before = names(host);
    let taken = "Address already in use (os error 98)";
    let gone = |unit: &str| {
        assert_eq!(names(host), before);
        assert_eq!(state(host, unit), "ActiveState=inactive UnitFileState=disabled");
    };

    let to_taken = "spiped setup receive redis -s 127.0.0.1:6379 -t 127.0.0.1:1";
    let said = refused(
        &host.run(to_taken),
        69,
        &format!(
            "spiped-receive@redis.service does not start: cannot listen on [127.0.0.1]:6379: {taken}"
        ),
    );
    assert!(said.ends_with("hint: another program listens there: 'ss -lntxp' names it"), "{said}");
    gone("spiped-receive@redis.service");
    refused(
        &host.run(&format!("{to_taken} --socket")),
        69,
        "spiped-receive@redis.socket does not start: Failed to create listening socket \
         (127.0.0.1:6379): Address already in use",
    );
    gone("spiped-receive@redis.socket");
    gone("spiped-receive@redis.service");
    let elsewhere = host.run("spiped setup receive redis -s 192.0.2.9:6380 -t 127.0.0.1:6379");
    refused(
        &elsewhere,
        69,
        "spiped-receive@redis.service does not start: cannot listen on [192.0.2.9]",
    );
    gone("spiped-receive@redis.service");

    // The second half fails: the first one goes as well.
    host.must("spiped keygen /root/key");
    let pair = "spiped setup pair redis -s 192.0.2.1:6380 -t 127.0.0.1:6379 \
                --local 127.0.0.1:6379 --peer 192.0.2.2:6380 -k /root/key";
    refused(&host.run(pair), 69, "spiped-send@redis-out.service does not start: cannot listen on");
    gone("spiped-receive@redis-in.service");
    gone("spiped-send@redis-out.service");

    // What was there before stays.
    host.must("mkdir -m 0700 /etc/spiped");
    host.must("spiped keygen /etc/spiped/redis.key");
    let before = listing(host);
    assert_eq!(host.run(to_taken).status.code(), Some(69));
    let of_key =
        |list: &str| list.lines().find(|line| line.contains("redis.key")).unwrap().to_owned();
    assert_eq!(of_key(&listing(host)), of_key(&before));
    assert_eq!(host.must("ls /etc/spiped"), "redis.key");

    // What systemd itself refuses.
    host.must("systemctl mask --quiet --runtime spiped-receive@masked.service");
    let masked = host.run("spiped setup receive masked -s 192.0.2.1:6380 -t 127.0.0.1:6379");
    let reason = "'systemctl enable spiped-receive@masked.service' failed: Failed to enable unit";
    assert!(refused(&masked, 69, reason).contains("is masked"));
    assert_eq!(host.must("ls /etc/spiped"), "redis.key");
}

#[test]
fn a_signal_undoes_and_a_kill_is_finished_by_the_next_run() {
    if !hosts_can_be("spiped setup and signals") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    // A unit that takes its time to start.
    let slow = "/etc/systemd/system/spiped-receive@redis.service.d";
    host.must(&format!("mkdir {slow}"));
    host.sh(&format!("printf '[Service]\\nExecStartPre=sleep 50\\n' > {slow}/slow.conf"));
    host.must("systemctl daemon-reload");
    let before = names(host);
    let unit = "spiped-receive@redis.service";
    let in_the_middle = || {
        host.must(&format!("systemd-run --quiet --unit setup --remain-after-exit -- {RECEIVE}"));
        wait_until("it is starting", || state(host, unit).contains("activating"));
    };
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        in_the_middle();
        host.must(&format!("systemctl kill --kill-whom main --signal {name} setup"));
        wait_until("setup ends", || {
            host.must("systemctl show -P ExecMainStatus setup") == code.to_string()
        });
        assert_eq!(names(host), before);
        assert_eq!(state(host, unit), "ActiveState=inactive UnitFileState=disabled");
        let log = host.log("setup");
        assert!(log.contains("spiped: ended by a signal, before it was done"), "{log}");
        host.must("systemctl reset-failed setup");
    }

    in_the_middle();
    host.must("systemctl kill --signal KILL setup");
    wait_until("setup is gone", || state(host, "setup").contains("failed"));
    let key = key_id(host, "redis");
    host.must(&format!("rm -r {slow}"));
    host.must("systemctl daemon-reload");
    host.must(&format!("systemctl stop {unit}"));
    assert!(host.must(RECEIVE).contains(&format!("its key: {key}\n")));
    assert_eq!(state(host, unit), "ActiveState=active UnitFileState=enabled");
}

#[test]
fn what_stands_for_something_else_is_refused() {
    if !hosts_can_be("what spiped setup refuses") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    let fresh = listing(host);
    host.must(&format!("{RECEIVE} --dry-run"));
    assert_eq!(listing(host), fresh, "a dry run has changed something");

    host.must(RECEIVE);
    host.must("spiped keygen /root/key");
    let send = "spiped setup send out -s 127.0.0.1:8000 -t 192.0.2.9:1 -k";
    host.must(&format!("{send} /root/key"));
    // Keys that are there, and good, are used.
    host.must(&format!("{send} /etc/spiped/out.key"));
    let before = listing(host);
    let ids = (key_id(host, "out"), key_id(host, "redis"));
    let (out, redis) = &ids;
    let other = "spiped setup receive redis -s 192.0.2.1:6379 -t";
    let cases = [
        (
            format!("{send} /etc/spiped/redis.key"),
            format!(
                "/etc/spiped/out.key is there with another key, {out}, than the one given, {redis}"
            ),
        ),
        (
            format!("{other} 127.0.0.1:1"),
            "/etc/spiped/redis.conf is there and does not say SPIPED_TARGET=[127.0.0.1]:1".into(),
        ),
        (
            "spiped setup receive redis -s 192.0.2.1:1 -t 127.0.0.1:6379".into(),
            "/etc/spiped/redis.conf is there and does not say SPIPED_SOURCE=[192.0.2.1]:1".into(),
        ),
        (format!("{RECEIVE} --socket"), "spiped-receive@redis.service is in use already".into()),
    ];
    for (line, reason) in &cases {
        refused(&host.run(line), 73, reason);
        refused(&host.run(&format!("{line} --dry-run")), 73, reason);
    }
    assert_eq!(listing(host), before);
    assert_eq!((key_id(host, "out"), key_id(host, "redis")), ids);

    host.must("chmod 0640 /etc/spiped/redis.key");
    refused(&host.run(RECEIVE), 77, "the key file /etc/spiped/redis.key is open to others");
    host.must("mv /etc/spiped/redis.key /root");
    let running = "spiped-receive@redis.service is running, but /etc/spiped/redis.key is not there";
    refused(&host.run(RECEIVE), 73, running);
    assert_eq!(state(host, "spiped-receive@redis"), "ActiveState=active UnitFileState=enabled");

    let exposed = "spiped setup send open -s 192.0.2.1:8001 -t 192.0.2.9:1 -k /root/key";
    refused(&host.run(exposed), 64, "--source: plaintext at [192.0.2.1]:8001 could be read");
    host.must(&format!("{exposed} --expose-plaintext"));
    assert!(host.must("ss -lnt").contains("192.0.2.1:8001"));

    // Without the units.
    host.sh("mount -t tmpfs none /usr/lib/systemd/system && systemctl daemon-reload");
    let unknown = host.run("spiped setup receive new -s 192.0.2.1:6381 -t 127.0.0.1:6379");
    refused(&unknown, 69, "spiped-receive@new.service is not known to systemd");
    assert!(!host.etc("new.key").exists());
}

#[test]
fn with_socket_a_restart_refuses_no_client() {
    if !hosts_can_be("spiped setup --socket") {
        return;
    }
    let mut hosts = Hosts::boot(&["server", "client"]);
    hosts["server"].has_redis();
    let printed = hosts["server"].must(&format!("{RECEIVE} --socket"));
    follow(&hosts, ("server", "client"), &printed);
    {
        let (server, client) = (&hosts["server"], &hosts["client"]);
        assert_eq!(client.redis("ping"), "PONG");
        let files = listing(server);
        assert_eq!(server.must(&format!("{RECEIVE} --socket")), printed);
        assert_eq!(listing(server), files);
        let socket = "spiped-receive@redis.socket";
        refused(&server.run(RECEIVE), 73, &format!("{socket} is in use already"));

        let pings = "for i in {1..100}; do redis-cli -p 8000 ping; done | sort | uniq -c";
        let restarts = "for i in {1..5}; do systemctl restart spiped-receive@redis; done";
        let answers = std::thread::scope(|scope| {
            let answers = scope.spawn(|| client.sh(pings));
            server.sh(restarts);
            answers.join().unwrap()
        });
        assert_eq!(answers, "100 PONG");
    }
    hosts.reboot("server");
    wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
}
