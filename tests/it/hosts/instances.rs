//! One unit for each pipe: spiped-receive@NAME and spiped-send@NAME in their sandbox, and
//! what `systemctl status` says where they cannot work.

use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be};
use crate::support::wait_until;

const RECEIVE: &str = "spiped-receive@in.service";
const SEND: &str = "spiped-send@out.service";

/// A host that has both ends of a pipe to its own Redis.
fn boot() -> Hosts {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    write_conf(host, "in", "127.0.0.1:7000", "127.0.0.1:6379");
    write_conf(host, "out", "127.0.0.1:8000", "127.0.0.1:7000");
    for key in ["in.key", "out.key"] {
        host.write_etc(key, [3; 32], 0o600);
    }
    hosts
}

fn write_conf(host: &Host, name: &str, source: &str, target: &str) {
    let conf = format!("SPIPED_SOURCE={source}\nSPIPED_TARGET={target}\n");
    host.write_etc(&format!("{name}.conf"), conf, 0o644);
}

/// A value of the process of a unit, from its /proc/ID/status.
fn process_status(host: &Host, unit: &str, name: &str) -> String {
    let process = host.must(&format!("systemctl show -P MainPID {unit}"));
    let status = host.must(&format!("cat /proc/{process}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.trim().to_owned()
}

/// A resolver that comes up later, the server's unix socket, and syslog.
#[test]
fn the_sandbox_lets_names_unix_sockets_and_syslog_through() {
    if !hosts_can_be("the sandbox of the units") {
        return;
    }
    let hosts = boot();
    let host = &hosts["one"];
    host.sh("echo nameserver 127.0.0.1 > /etc/resolv.conf
        systemd-run --quiet --unit redis --property RuntimeDirectory=redis-test \
            --property Type=notify --property RuntimeDirectoryMode=0755 redis-server \
            --supervised systemd --port 0 --unixsocketperm 660 --dir /tmp \
            --unixsocket /run/redis-test/redis.sock
        chgrp redis /run/redis-test/redis.sock");
    write_conf(host, "in", "127.0.0.1:7000", "/run/redis-test/redis.sock");
    let conf = "SPIPED_SOURCE=127.0.0.1:8000\nSPIPED_TARGET=receiver.test:7000\nSPIPED_SYSLOG=1\n";
    host.write_etc("out.conf", conf, 0o644);
    host.drop_in(RECEIVE, "[Service]\nSupplementaryGroups=redis\n");
    // Nothing resolves the target's name yet, and the host is not online.
    host.drop_in("network-online.target", "[Unit]\nAfter=offline.service\nWants=offline.service\n");
    host.sh(
        "printf '[Service]\nType=oneshot\nExecStart=false\n' > /etc/systemd/system/offline.service",
    );
    host.must("systemctl stop systemd-networkd-wait-online.service");
    host.start("start", RECEIVE);
    host.must(&format!("systemctl start {SEND}"));
    assert!(host.redis("ping").contains("reset by peer"));
    host.sh("systemd-run --quiet --unit dns dnsmasq --keep-in-foreground --no-resolv --no-hosts \
            --listen-address=127.0.0.1 --bind-interfaces --address=/receiver.test/127.0.0.1 \
            --user=root --pid-file=");
    wait_until("the name resolves", || host.redis("ping") == "PONG");

    host.must("journalctl --sync");
    let syslog = host.must("journalctl --quiet --output cat _TRANSPORT=syslog --identifier spiped");
    assert!(syslog.contains("sender listening on [127.0.0.1]:8000"), "{syslog}");
    for unit in [RECEIVE, SEND] {
        is_confined(host, unit);
    }
}

/// The process has what the unit gives it, and nothing else.
fn is_confined(host: &Host, unit: &str) {
    let status = |name| process_status(host, unit, name);
    let ids: Vec<_> = status("Uid").split_whitespace().map(str::to_owned).collect();
    assert_ne!(ids[0], "0", "{unit}");
    for capabilities in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert_eq!(status(capabilities), "0000000000000000", "{unit}");
    }
    assert_eq!((status("NoNewPrivs"), status("Seccomp")), ("1".into(), "2".into()), "{unit}");
    let process = host.must(&format!("systemctl show -P MainPID {unit}"));
    let inside = |command: &str| {
        let (id, group) = (&ids[0], status("Gid"));
        let group = group.split_whitespace().next().unwrap().to_owned();
        let enter = format!("nsenter --target {process} --mount setpriv --clear-groups");
        let output = host.run(&format!("{enter} --reuid {id} --regid {group} {command}"));
        assert!(!output.status.success(), "{unit}: {command}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for key in ["in.key", "out.key"] {
        assert!(inside(&format!("cat /etc/spiped/{key}")).contains("Permission denied"));
    }
    assert!(inside("touch /etc/x").contains("Read-only file system"));
    assert!(inside("cat /proc/1/status").contains("No such file"));
    assert!(inside("ls /root").contains("Permission denied"));
}

/// Follows the manual's own text on two hosts.
#[test]
fn the_manuals_example_carries_redis() {
    if !hosts_can_be("the manual's example") {
        return;
    }
    let hosts = Hosts::boot(&["server", "client"]);
    let (server, client) = (&hosts["server"], &hosts["client"]);
    server.has_redis();
    let example = commands_of("EXAMPLES");
    assert_eq!(example.len(), 2);
    std::fs::create_dir_all(server.etc("")).unwrap();
    server.sh(&example[0].replace("10.0.0.5", "192.0.2.1"));
    client.write_etc("cache.key", std::fs::read(server.etc("cache.key")).unwrap(), 0o600);
    client.sh(&example[1].replace("10.0.0.5", "192.0.2.1"));
    assert_eq!(client.redis("ping"), "PONG");
}

/// The status says in one line why a unit does not start or does not serve.
#[test]
fn status_says_what_is_wrong() {
    if !hosts_can_be("what systemctl status says") {
        return;
    }
    let hosts = boot();
    let host = &hosts["one"];
    let fails = |unit: &str| {
        assert!(!host.run(&format!("systemctl start {unit}")).status.success(), "{unit}");
        let status = host.status(unit);
        host.must(&format!("systemctl stop {unit}"));
        status
    };
    // systemd takes the name that systemd-escape makes for a pattern, not for a file.
    host.write_etc(r"o\x2dut.key", [3; 32], 0o600);
    let status = fails(r"spiped-send@o\x2dut.service");
    assert!(status.contains(r"hint: name the unit after the file as it is"), "{status}");

    let open = "the key file /etc/spiped/out.key is open to others (mode 0644)";
    let short = "is refused: the key has 31 bytes, fewer than 32\"";
    for (length, mode, reason) in [(32, 0o644, open), (31, 0o600, short)] {
        host.write_etc("out.key", vec![3; length], mode);
        let status = fails(SEND);
        assert!(status.contains("Status: \"") && status.contains(reason), "{status}");
    }
    host.write_etc("out.key", [7; 32], 0o600);

    host.start("start", RECEIVE);
    for (target, reason) in [
        ("127.0.0.1:7000", "SPIPED_TARGET: [127.0.0.1]:7000 leads back to [127.0.0.1]:7000"),
        ("127.0.0.1:7001", "cannot listen on [127.0.0.1]:7000: Address already in use"),
    ] {
        write_conf(host, "out", "127.0.0.1:7000", target);
        let status = fails(SEND);
        assert!(status.contains(&format!("Status: \"{reason}")), "{status}");
    }

    write_conf(host, "out", "127.0.0.1:8000", "127.0.0.1:7000");
    host.start("start", SEND);
    assert!(host.redis("ping").contains("reset by peer"));
    for (unit, reason) in [
        (RECEIVE, "the key does not fit"),
        (SEND, "the receiver closed the connection in the handshake"),
    ] {
        wait_until(reason, || {
            let status = host.status(unit);
            status.contains(reason) || status.contains("failed in the handshake")
        });
    }
    serves_as_its_status_says(host);
}

/// The status also shows what working units do.
fn serves_as_its_status_says(host: &Host) {
    let does = "Status: \"receiver on [127.0.0.1]:7000 to [127.0.0.1]:6379, kex auto, key ";
    // The status changes once a second at most.
    wait_until("the status tells the last failure", || {
        let status = host.status(RECEIVE);
        status.contains(does) && status.contains(": 0 connections; last failed 20")
    });
}

/// systemd restarts a process that is stuck.
#[test]
fn the_watchdog_ends_what_is_stuck() {
    if !hosts_can_be("the watchdog") {
        return;
    }
    let hosts = boot();
    let host = &hosts["one"];
    host.drop_in(RECEIVE, "[Service]\nWatchdogSec=1\nRestartSec=0\nTimeoutAbortSec=1\n");
    host.start("start", RECEIVE);
    // A healthy process is left alone.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(host.must(&format!("systemctl show -P NRestarts {RECEIVE}")), "0");
    host.must(&format!("systemctl kill --signal STOP {RECEIVE}"));
    wait_until("it is started again", || {
        let show = |name| host.must(&format!("systemctl show -P {name} {RECEIVE}"));
        show("NRestarts") == "1" && show("ActiveState") == "active"
    });
    let log = host.must(&format!("journalctl --quiet --output cat --unit {RECEIVE}"));
    assert!(log.contains("Watchdog timeout (limit 1s)!"), "{log}");
}
