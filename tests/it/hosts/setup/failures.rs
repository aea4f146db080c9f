//! `spiped setup` where it fails: afterwards nothing has changed.

use super::{RECEIVE, key_id, listing, names, refused, state, unproved};
use crate::support::hosts::{Host, Hosts, hosts_can_be};
use crate::support::wait_until;

/// The address of Redis.
const TO_TAKEN: &str = "spiped setup receive redis -s 127.0.0.1:6379 -t 127.0.0.1:1";

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

    let said = refused(
        &host.run(TO_TAKEN),
        69,
        &format!(
            "spiped-receive@redis.service does not start: cannot listen on [127.0.0.1]:6379: {taken}"
        ),
    );
    let of_redis = "hint: redis-server.service listens there: choose another port, or \
                    'systemctl disable --now redis-server.service' first";
    assert!(said.ends_with(of_redis), "{said}");
    gone("spiped-receive@redis.service");
    let said = refused(
        &host.run(&format!("{TO_TAKEN} --socket")),
        69,
        "spiped-receive@redis.socket does not start: Failed to create listening socket \
         (127.0.0.1:6379): Address already in use",
    );
    assert!(said.ends_with(of_redis), "{said}");
    gone("spiped-receive@redis.socket");
    gone("spiped-receive@redis.service");
    let elsewhere = host.run("spiped setup receive redis -s 192.0.2.9:6380 -t 127.0.0.1:6379");
    refused(
        &elsewhere,
        69,
        "spiped-receive@redis.service does not start: cannot listen on [192.0.2.9]",
    );
    gone("spiped-receive@redis.service");

    // The second half fails, so the first half is undone as well.
    host.must("spiped keygen /root/key");
    let pair = "spiped setup pair redis -s 192.0.2.1:6380 -t 127.0.0.1:6379 \
                --local 127.0.0.1:6379 --peer 192.0.2.2:6380 -k /root/key";
    refused(&host.run(pair), 69, "spiped-send@redis-out.service does not start: cannot listen on");
    gone("spiped-receive@redis-in.service");
    gone("spiped-send@redis-out.service");
}

/// Another pipe has the port, as if the next recipe used the same one.
#[test]
fn a_taken_port_is_reported_with_the_pipe_that_has_it() {
    if !hosts_can_be("who listens where spiped setup cannot") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    host.must(RECEIVE);
    host.must("spiped setup receive any -s [::]:6381 -t 127.0.0.1:6379 --socket");
    // Only systemd listens then.
    host.must("systemctl stop spiped-receive@any.service");
    host.sh("systemd-run --quiet --unit by-hand --property Type=notify \
             spiped -F -d -s 127.0.0.1:6382 -t 127.0.0.1:6379 -k /etc/spiped/redis.key");
    for (taken, holder, instead) in [
        ("192.0.2.1:6379", "spiped-receive@redis.service", "spiped setup remove redis"),
        ("0.0.0.0:6382", "by-hand.service", "systemctl disable --now by-hand.service"),
        ("127.0.0.1:6381", "spiped-receive@any.socket", "spiped setup remove any"),
        ("127.0.0.1:6382", "by-hand.service", "systemctl disable --now by-hand.service"),
    ] {
        let other = host.run(&format!("spiped setup receive other -s {taken} -t 127.0.0.1:1"));
        let said =
            refused(&other, 69, "spiped-receive@other.service does not start: cannot listen");
        let hint =
            format!("hint: {holder} listens there: choose another port, or '{instead}' first");
        assert!(said.ends_with(&hint), "{said}");
    }
}

#[test]
fn what_was_there_before_stays() {
    if !hosts_can_be("what spiped setup leaves alone") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    host.must("mkdir -m 0700 /etc/spiped");
    host.must("spiped keygen /etc/spiped/redis.key");
    let before = listing(host);
    assert_eq!(host.run(TO_TAKEN).status.code(), Some(69));
    let of_key =
        |list: &str| list.lines().find(|line| line.contains("redis.key")).unwrap().to_owned();
    assert_eq!(of_key(&listing(host)), of_key(&before));
    assert_eq!(host.must("ls /etc/spiped"), "redis.key");

    let first = "spiped setup pair pair -s 192.0.2.1:6380 -t 127.0.0.1:6379 \
                 --local 127.0.0.1:6379 --peer 192.0.2.2:6380";
    host.must(first);
    let before = names(host);
    host.must("spiped keygen /root/key");
    let second = host.run(&format!("{first} -k /root/key"));
    refused(&second, 69, "spiped-send@pair-out.service does not start: cannot listen on");
    assert_eq!(names(host), before);
    let half = "spiped-receive@pair-in.service";
    assert_eq!(state(host, half), "ActiveState=active UnitFileState=enabled");

    // The operator has written something that the program refuses.
    host.sh("printf 'SPIPED_SOURCE=192.0.2.1:6390\nSPIPED_TARGET=127.0.0.1:6379\n\
             SPIPED_CIPHER=rot13\n' > /etc/spiped/bad.conf");
    let before = names(host);
    let bad = "spiped setup receive bad -s 192.0.2.1:6390 -t 127.0.0.1:6379";
    let reason = "the configuration /etc/spiped/bad.conf would be refused: SPIPED_CIPHER: 'rot13'";
    for line in [bad, &format!("{bad} --socket"), &format!("{bad} --dry-run")] {
        refused(&host.run(line), 64, reason);
        assert_eq!(names(host), before);
    }
    // Of what a drop-in says, the start of the unit tells.
    host.must("sed -i /CIPHER/d /etc/spiped/bad.conf");
    let drop_in = "[Service]\nEnvironment=SPIPED_CIPHER=rot13\n";
    host.drop_in("spiped-receive@bad.service", drop_in);
    let before = names(host);
    // Clients make the socket start its service again and again.
    host.sh("systemd-run --quiet --unit clients \
             bash -c 'while :; do : < /dev/tcp/192.0.2.1/6390; done'");
    let reason = "spiped-receive@bad.service does not start: SPIPED_CIPHER: 'rot13'";
    for line in [bad, &format!("{bad} --socket")] {
        refused(&host.run(line), 64, reason);
        for unit in ["spiped-receive@bad.service", "spiped-receive@bad.socket"] {
            assert_eq!(state(host, unit), "ActiveState=inactive UnitFileState=disabled");
        }
        assert_eq!(names(host), before);
    }
    host.must("systemctl stop clients");

    // systemd itself refuses this.
    host.must("systemctl mask --quiet --runtime spiped-receive@masked.service");
    let before = names(host);
    let masked = host.run("spiped setup receive masked -s 192.0.2.1:6380 -t 127.0.0.1:6379");
    let reason = "'systemctl enable spiped-receive@masked.service' failed: Failed to enable unit";
    assert!(refused(&masked, 69, reason).contains("is masked"));
    assert_eq!(names(host), before);
}

#[test]
fn a_signal_undoes_and_a_kill_is_finished_by_the_next_run() {
    if !hosts_can_be("spiped setup and signals") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
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
    for (times, (name, code)) in (1..).zip([("INT", 130), ("TERM", 143), ("HUP", 129)]) {
        in_the_middle();
        host.must(&format!("systemctl kill --kill-whom main --signal {name} setup"));
        wait_until("setup ends", || {
            host.must("systemctl show -P ExecMainStatus setup") == code.to_string()
        });
        assert_eq!(names(host), before);
        assert_eq!(state(host, unit), "ActiveState=inactive UnitFileState=disabled");
        // The whole journal is searched, because it may not know the unit of a process
        // that ended at once.
        wait_until("it says so", || {
            let log = host.must("journalctl --quiet --output cat");
            log.matches("spiped: interrupted by a signal before it was done").count() == times
        });
        host.must("systemctl reset-failed setup");
    }

    in_the_middle();
    host.must("systemctl kill --signal KILL setup");
    wait_until("setup is gone", || state(host, "setup").contains("failed"));
    let key = key_id(host, "redis");
    host.must(&format!("rm -r {slow}"));
    host.must("systemctl daemon-reload");
    host.must(&format!("systemctl stop {unit}"));
    assert!(host.must(RECEIVE).contains(&format!("The id of its key is {key}.\n")));
    assert_eq!(state(host, unit), "ActiveState=active UnitFileState=enabled");
}

#[test]
fn what_stands_for_something_else_is_refused() {
    if !hosts_can_be("what spiped setup refuses") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    let fresh = listing(host);
    host.must(&format!("{RECEIVE} --dry-run"));
    assert_eq!(listing(host), fresh, "a dry run has changed something");

    host.sh("mkdir -m 0770 /etc/spiped");
    refused(&host.run(RECEIVE), 77, "users other than root can write to /etc/spiped");
    host.must("rmdir /etc/spiped");

    host.must(RECEIVE);
    host.must("spiped keygen /root/key");
    let send = "spiped setup send out -s 127.0.0.1:8000 -t 192.0.2.9:1 -k";
    // Nothing listens there, and the unit runs all the same.
    let nobody = "cannot reach the receiver: ";
    unproved(&host.run(&format!("{send} /root/key")), 69, nobody);
    // Good keys that exist already are used.
    unproved(&host.run(&format!("{send} /etc/spiped/out.key")), 69, nobody);
    let before = listing(host);
    let ids = (key_id(host, "out"), key_id(host, "redis"));
    let (out, redis) = &ids;
    let other = "spiped setup receive redis -s 192.0.2.1:6379 -t";
    let cases = [
        (
            format!("{send} /etc/spiped/redis.key"),
            format!(
                "/etc/spiped/out.key exists with another key, {out}, than the given one, {redis}"
            ),
        ),
        (
            format!("{other} 127.0.0.1:1"),
            "/etc/spiped/redis.conf exists, but lacks the line SPIPED_TARGET=[127.0.0.1]:1".into(),
        ),
        (
            "spiped setup receive redis -s 192.0.2.1:1 -t 127.0.0.1:6379".into(),
            "/etc/spiped/redis.conf exists, but lacks the line SPIPED_SOURCE=[192.0.2.1]:1".into(),
        ),
        (format!("{RECEIVE} --socket"), "spiped-receive@redis.service is in use already".into()),
    ];
    for (line, reason) in &cases {
        refused(&host.run(line), 73, reason);
        refused(&host.run(&format!("{line} --dry-run")), 73, reason);
    }
    assert_eq!(listing(host), before);
    assert_eq!((key_id(host, "out"), key_id(host, "redis")), ids);
    the_hints_lead_on(host, &cases[0].0);

    host.must("chmod 0644 /etc/spiped/redis.key");
    refused(&host.run(RECEIVE), 77, "the key file /etc/spiped/redis.key is open to others");
    host.must("mv /etc/spiped/redis.key /root");
    let running = "spiped-receive@redis.service is running, but /etc/spiped/redis.key is missing";
    refused(&host.run(RECEIVE), 73, running);
    assert_eq!(state(host, "spiped-receive@redis"), "ActiveState=active UnitFileState=enabled");

    let exposed = "spiped setup send open -s 192.0.2.1:8001 -t 192.0.2.9:1 -k /root/key";
    refused(&host.run(exposed), 64, "--source: plaintext at [192.0.2.1]:8001 could be read");
    unproved(&host.run(&format!("{exposed} --expose-plaintext")), 69, nobody);
    assert!(host.must("ss -lnt").contains("192.0.2.1:8001"));

    // The units are missing.
    host.sh("mount -t tmpfs none /usr/lib/systemd/system && systemctl daemon-reload");
    let unknown = host.run("spiped setup receive new -s 192.0.2.1:6381 -t 127.0.0.1:6379");
    refused(&unknown, 69, "spiped-receive@new.service is not known to systemd");
    assert!(!host.etc("new.key").exists());
}

/// Of a line that is refused for its key, and then for an address; also where a file was
/// edited.
fn the_hints_lead_on(host: &Host, line: &str) {
    let said = refused(&host.run(line), 73, "/etc/spiped/out.key exists");
    assert!(said.contains("run 'spiped setup remove out --keys', then this again"), "{said}");
    host.must("spiped setup remove out --keys");
    unproved(&host.run(line), 69, "cannot reach the receiver: ");
    host.sh("echo SPIPED_LOG=debug >> /etc/spiped/out.conf");
    let moved = line.replace("192.0.2.9", "192.0.2.8");
    let said = refused(&host.run(&moved), 73, "/etc/spiped/out.conf exists, but lacks");
    let (_, remove) = said.split_once("or run '").unwrap();
    let (remove, edited) = remove.split_once("', which leaves an edited file: then '").unwrap();
    assert_eq!(remove, "spiped setup remove out");
    let left = host.must(remove);
    let of_conf = "left /etc/spiped/out.conf: it was edited; remove it by hand if nothing needs it";
    let of_key = "left /etc/spiped/out.key: 'spiped setup remove out --keys' removes it";
    assert!(left.contains(of_conf) && left.ends_with(of_key), "{left}");
    host.must(edited.split('\'').next().unwrap());
    host.must("spiped setup remove out --keys");
    unproved(&host.run(&moved), 69, "cannot reach the receiver: ");
}
