//! `spiped setup`, followed word for word: each printed command is run next.

mod failures;
mod password;
mod proof;
mod remove;

use std::fs;
use std::process::Output;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::support::hosts::{Host, Hosts, hosts_can_be, said};
use crate::support::wait_until;

const RECEIVE: &str = "spiped setup receive redis --source 192.0.2.1:6379 --target 127.0.0.1:6379";
const SEND: &str = "spiped setup send redis --source 127.0.0.1:8000 --target 192.0.2.1:6379";
const PAIR: &str = "spiped setup pair redis --source 192.0.2.1:6380 --target 127.0.0.1:6379 \
                    --local 127.0.0.1:8000 --peer 192.0.2.2:6380";

const PROVED: &str = "  The pipe works: the handshake succeeded, and the server is reached.";

fn by_hand(key: &str) -> String {
    format!(
        "Where sudo asks for a password: run 'sudo base64 /etc/spiped/{key}' on the host that ssh \
         names,\nthen the line without what stands before the |; it asks for what was printed."
    )
}

/// Runs the first printed command on this host.
fn follow(host: &Host, printed: &str) -> String {
    host.sh(printed.lines().find(|line| line.starts_with("  ssh ")).unwrap())
}

/// The pipe is set up and runs, but does not work, for this reason; returns the output.
#[track_caller]
fn unproved(output: &Output, code: i32, reason: &str) -> String {
    let said = said(output);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(error.starts_with("spiped: ") && error.contains("\nhint: "), "{said}");
    let reason = format!(" is set up and runs, but its proof has failed: {reason}");
    assert!(error.contains(&reason), "{reason:?} is not in {said}");
    said
}

/// Runs a command that must succeed and that reads a key from standard input.
fn run_with_key(host: &Host, line: &str, key: &[u8]) -> String {
    let brought = host.root.join("root/brought");
    fs::write(&brought, key).unwrap();
    let printed = host.sh(&format!("{line} < /root/brought"));
    fs::remove_file(brought).unwrap();
    printed
}

/// Every file of /etc, with everything that shows a change.
fn listing(host: &Host) -> String {
    let list = host.must("find /etc -printf %p,%i,%m,%u,%T@,%C@\\n");
    let mut lines: Vec<_> = list.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Paths and modes only: the time of a folder changes with its content.
fn names(host: &Host) -> String {
    let list = host.must("find /etc -printf %p,%m\\n");
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

/// The state of a unit in systemd, and whether it is enabled.
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
fn one_command_a_side_carries_redis() {
    if !hosts_can_be("spiped setup") {
        return;
    }
    let mut hosts = Hosts::boot(&["server", "client"]);
    hosts["server"].has_redis();
    let printed = hosts["server"].must(RECEIVE);
    the_proof_is_logged_as_a_good_connection(&hosts["server"]);
    let key = key_id(&hosts["server"], "redis");
    assert_eq!(
        printed,
        format!(
            "The receiver redis runs: it takes encrypted connections on [192.0.2.1]:6379 and \
             sends plaintext to [127.0.0.1]:6379.\n  The id of its key is {key}.\n{PROVED}\n\
             Now, on the clients' host:\n  \
             ssh 192.0.2.1 sudo cat /etc/spiped/redis.key | sudo {SEND} --key -\n{}",
            by_hand("redis.key")
        )
    );
    let sent = follow(&hosts["client"], &printed);
    assert_eq!(
        sent,
        format!(
            "The sender redis runs: it takes plaintext on [127.0.0.1]:8000 and \
             sends it encrypted to [192.0.2.1]:6379.\n  The id of its key is {key}.\n{PROVED}"
        )
    );
    assert_eq!(hosts["client"].redis("ping"), "PONG");
    for host in ["server", "client"] {
        let files = hosts[host].must("stat --format %a,%U,%n /etc/spiped /etc/spiped/redis.key");
        assert_eq!(files, "700,root,/etc/spiped\n600,root,/etc/spiped/redis.key");
        let left = hosts[host].must("ls -A /etc/spiped");
        assert_eq!(left, "redis.conf\nredis.key");
    }

    // A second run prints the same text and changes nothing.
    let again = |host: &Host, unit: &str, run: &dyn Fn() -> String, before: &str| {
        let (files, id) = (listing(host), process(host, unit));
        assert_eq!(run(), before);
        assert_eq!((listing(host), process(host, unit)), (files, id));
    };
    let (server, client) = (&hosts["server"], &hosts["client"]);
    again(server, "spiped-receive@redis", &|| server.must(RECEIVE), &printed);
    let follow_again = || follow(&hosts["client"], &printed);
    again(client, "spiped-send@redis", &follow_again, &sent);
    assert_eq!(
        server.must(&format!("{RECEIVE} --dry-run")),
        "nothing to do: it is set up and runs\nwould then prove it; only the real run shows \
         whether the units start, the port is free, and the other end answers"
    );
    // The operator's additions stay; what was stopped or disabled is restored.
    server.sh("echo SPIPED_LOG=debug >> /etc/spiped/redis.conf");
    server.must("systemctl disable --quiet --now spiped-receive@redis");
    again_after_a_stop(server, &printed);
    assert_eq!(key_id(server, "redis"), key);

    for host in ["server", "client"] {
        hosts.reboot(host);
        wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
        hosts.power_off(host);
        hosts.power_on(host);
        wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
    }
}

fn the_proof_is_logged_as_a_good_connection(server: &Host) {
    let log = server.log("spiped-receive@redis");
    assert_eq!(log.matches("\nclosed reason=finished ").count(), 1, "{log}");
    let warnings = "journalctl --quiet --unit spiped-receive@redis --priority warning";
    assert_eq!(server.must(warnings), "");
}

fn again_after_a_stop(server: &Host, printed: &str) {
    let conf = fs::read_to_string(server.etc("redis.conf")).unwrap();
    assert_eq!(server.must(RECEIVE), printed);
    assert_eq!(fs::read_to_string(server.etc("redis.conf")).unwrap(), conf);
    assert_eq!(state(server, "spiped-receive@redis"), "ActiveState=active UnitFileState=enabled");
}

/// The printed command for the other host is refused unchanged, because only the other
/// host's operator knows its own address.
fn filled_in(host: &Host, printed: &str) -> String {
    let line = printed.lines().find(|line| line.starts_with("  ssh ")).unwrap();
    fs::write(host.root.join("root/line"), line).unwrap();
    refused(&host.run("bash /root/line"), 64, "--local: LOCAL stands for an address");
    assert!(!host.etc("redis-in.key").exists());
    printed.replace("LOCAL", "127.0.0.1:8000")
}

#[test]
fn three_commands_make_a_pair_that_replicates() {
    if !hosts_can_be("spiped setup pair") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b"]);
    for host in ["a", "b"] {
        hosts[host].has_redis();
    }
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let first = a.must(PAIR);
    let in_a = key_id(a, "redis-in");
    let head = "The receiver redis-in runs: it takes encrypted connections on";
    let out = "The sender redis-out runs: it takes plaintext on [127.0.0.1]:8000 and sends it \
               encrypted to";
    let to = "and sends plaintext to [127.0.0.1]:6379.\n  The id of its key is";
    assert_eq!(
        first,
        format!(
            "{head} [192.0.2.1]:6380 {to} {in_a}.\n{PROVED}\n\
             Now, on 192.0.2.2, with its own --target, and for LOCAL where its programs are to \
             reach the server here:\n  \
             ssh 192.0.2.1 sudo cat /etc/spiped/redis-in.key | sudo spiped setup pair redis \
             --source 192.0.2.2:6380 --target 127.0.0.1:6379 \
             --local LOCAL --peer 192.0.2.1:6380 --key -\n\
             Then, here:\n  \
             ssh 192.0.2.2 sudo cat /etc/spiped/redis-in.key | sudo spiped setup send redis-out \
             --source 127.0.0.1:8000 --target 192.0.2.2:6380 --key -\n{}",
            by_hand("redis-in.key")
        )
    );
    let for_b = filled_in(b, &first);
    let second = follow(b, &for_b);
    let in_b = key_id(b, "redis-in");
    assert_ne!(in_a, in_b);
    assert_eq!(
        second,
        format!(
            "{head} [192.0.2.2]:6380 {to} {in_b}.\n{PROVED}\n\
             {out} [192.0.2.1]:6380.\n  The id of its key is {in_a}.\n{PROVED}\n\
             Last, on 192.0.2.1: what was printed there for itself, \
             unless redis-out runs there already"
        )
    );
    let line_for_itself = first.split_once("Then, here:\n").unwrap().1;
    let third = follow(a, line_for_itself);
    assert_eq!(third, format!("{out} [192.0.2.2]:6380.\n  The id of its key is {in_b}.\n{PROVED}"));

    b.must("redis-cli replicaof 127.0.0.1 8000");
    a.must("redis-cli set name value");
    wait_until("it is replicated", || b.must("redis-cli get name") == "value");
    b.must("redis-cli replicaof no one");
    a.must("redis-cli replicaof 127.0.0.1 8000");
    b.must("redis-cli set name other");
    wait_until("it is replicated the other way", || a.must("redis-cli get name") == "other");

    // Each command again, and the whole pair by its own name with the key.
    let before = (listing(a), listing(b));
    assert_eq!(a.must(PAIR), first);
    assert_eq!(follow(b, &for_b), second);
    assert_eq!(follow(a, line_for_itself), third);
    let key = fs::read(b.etc("redis-in.key")).unwrap();
    let whole = run_with_key(a, &format!("{PAIR} --key -"), &key);
    assert!(whole.contains(&third), "{whole}");
    assert_eq!((listing(a), listing(b)), before);
}

#[test]
fn with_socket_a_restart_refuses_no_client() {
    if !hosts_can_be("spiped setup --socket") {
        return;
    }
    let mut hosts = Hosts::boot(&["server", "client"]);
    hosts["server"].has_redis();
    let printed = hosts["server"].must(&format!("{RECEIVE} --socket"));
    follow(&hosts["client"], &printed);
    {
        let (server, client) = (&hosts["server"], &hosts["client"]);
        assert_eq!(client.redis("ping"), "PONG");
        let files = listing(server);
        assert_eq!(server.must(&format!("{RECEIVE} --socket")), printed);
        assert_eq!(listing(server), files);
        let socket = "spiped-receive@redis.socket";
        refused(&server.run(RECEIVE), 73, &format!("{socket} is in use already"));

        // Pings run from before the first restart until after the last.
        let (begun, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    assert_eq!(client.redis("ping"), "PONG");
                    begun.fetch_add(1, Relaxed);
                }
            });
            wait_until("pings go on", || begun.load(Relaxed) > 3);
            server.sh("for i in {1..5}; do systemctl restart spiped-receive@redis; done");
            over.store(true, Relaxed);
        });
    }
    hosts.reboot("server");
    wait_until("redis answers", || hosts["client"].redis("ping") == "PONG");
}

#[test]
fn a_unix_socket_is_made_by_systemd() {
    if !hosts_can_be("spiped setup --socket with a unix socket") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    host.must(RECEIVE);
    host.must("spiped setup receive unix -s /run/spiped/in.socket -t 127.0.0.1:6379 --socket");
    let send = "spiped setup send local --source /run/spiped/local.socket \
                --target 192.0.2.1:6379 --key /etc/spiped/redis.key --socket";
    let printed = host.must(send);
    assert_eq!(host.must("redis-cli -s /run/spiped/local.socket ping"), "PONG");

    // The operator decides who may connect, and that setting stays.
    let folder = "/etc/systemd/system/spiped-send@local.socket.d";
    host.sh(&format!("echo SocketGroup=redis >> {folder}/listen.conf"));
    let before = listing(host);
    assert_eq!(host.must(send), printed);
    assert_eq!(listing(host), before);
    host.sh(&format!("sed -i s/local.socket/other.socket/ {folder}/listen.conf"));
    let reason = format!(
        "{folder}/listen.conf exists, but lacks the line ListenStream=/run/spiped/local.socket"
    );
    refused(&host.run(send), 73, &reason);

    // The hint says to move the file away, but not while the socket listens elsewhere.
    host.must(&format!("rm {folder}/listen.conf"));
    let socket = "spiped-send@local.socket";
    refused(
        &host.run(send),
        73,
        &format!("{socket} is running, but {folder}/listen.conf is missing"),
    );
    // The socket is still enabled, and systemd has not noticed that the other file is
    // gone.
    host.sh(&format!(
        "printf '[Socket]\\nListenStream=\\nListenStream=/run/other\\n' > {folder}/listen.conf"
    ));
    host.must("systemctl daemon-reload");
    host.must(&format!("systemctl stop {socket} spiped-send@local.service"));
    host.must(&format!("rm {folder}/listen.conf"));
    assert_eq!(state(host, socket), "ActiveState=inactive UnitFileState=enabled");
    assert_eq!(host.must(send), printed);
    assert_eq!(host.must("redis-cli -s /run/spiped/local.socket ping"), "PONG");
}
