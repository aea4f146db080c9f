//! The systemd units: two hosts, Redis on one, its client on the other.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::hosts::{Hosts, hosts_can_be, install, must, project};
use crate::support::{Folder, need, wait_until};

const RECEIVE: &str = "spiped-receive.service";
const SEND: &str = "spiped-send.service";
/// The server's address.
const ADDR: &str = "192.0.2.1";

/// Two hosts with one key, for the units without a name.
fn boot() -> Hosts {
    let hosts = Hosts::boot(&["server", "client"]);
    for host in ["server", "client"] {
        hosts[host].write_etc("redis.key", [3; 32], 0o600);
        hosts[host].write_etc("redis.addr", format!("ADDR={ADDR}\n"), 0o644);
    }
    hosts
}

#[test]
fn the_units_carry_redis_between_two_hosts() {
    if !hosts_can_be("the units") {
        return;
    }
    let hosts = boot();
    let (server, client) = (&hosts["server"], &hosts["client"]);
    server.has_redis();
    server.start("enable --now", RECEIVE);
    client.start("enable --now", SEND);

    assert_eq!(client.redis("ping"), "PONG");
    assert_eq!(client.redis("set name value"), "OK");
    assert_eq!(client.redis("get name"), "value");
    // A client that connects directly to the receiver gets nothing.
    let straight = client.redis(&format!("-h {ADDR} -p 6379 ping"));
    assert!(straight.contains("reset by peer"), "{straight}");
    assert!(server.log(RECEIVE).contains("looks like plaintext redis"));

    for (host, unit) in [(server, RECEIVE), (client, SEND)] {
        let process = host.must(&format!("systemctl show -P MainPID {unit}"));
        let user = host.must(&format!("stat --format %u /proc/{process}"));
        assert_ne!(user, "0", "{unit} runs as root");
    }

    server.start("restart", RECEIVE);
    assert_eq!(client.redis("get name"), "value");
    server.must(&format!("systemctl kill --signal KILL {RECEIVE}"));
    wait_until("it is started again", || {
        server.must(&format!("systemctl show -P NRestarts {RECEIVE}")) == "1"
            && client.redis("get name") == "value"
    });

    // Without Redis, the client gets an error, and the log has the reason.
    server.must("systemctl stop redis-server");
    let error = client.redis("ping");
    assert!(error.contains("reset by peer"), "{error}");
    for (host, unit) in [(server, RECEIVE), (client, SEND)] {
        let log = host.log(unit);
        assert!(log.contains("refused the connection hint="), "{unit}:\n{log}");
    }
}

#[test]
fn the_units_refuse_keys_that_differ_or_are_open_to_others() {
    if !hosts_can_be("the units") {
        return;
    }
    let hosts = boot();
    let (server, client) = (&hosts["server"], &hosts["client"]);
    server.start("start", RECEIVE);
    client.write_etc("redis.key", [7; 32], 0o600);
    client.start("start", SEND);
    let error = client.redis("ping");
    assert!(error.contains("reset by peer"), "{error}");
    let log = server.log(RECEIVE);
    let lines: Vec<_> = log.lines().filter(|line| line.contains("reason=wrong-key")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("compare 'spiped keyid"), "{log}");

    server.write_etc("redis.key", [3; 32], 0o644);
    assert!(!server.run(&format!("systemctl restart {RECEIVE}")).status.success());
    let log = server.log(RECEIVE);
    assert!(log.contains("redis.key is open to others (mode 0644)"), "{log}");

    server.must("chmod 600 /etc/spiped/redis.key");
    server.must("chown 65534 /etc/spiped/redis.key");
    assert!(!server.run(&format!("systemctl restart {RECEIVE}")).status.success());
    let log = server.log(RECEIVE);
    assert!(log.contains("redis.key belongs to user 65534"), "{log}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    need("systemd-analyze", "systemd");
    let folder = Folder::new();
    // The units are verified among the units that every system has.
    let usr = folder.path("root/usr");
    fs::create_dir_all(usr.join("lib/systemd")).unwrap();
    let copy = ["-R", "/usr/lib/systemd/system"].map(Path::new);
    must(Command::new("cp").args(copy).arg(usr.join("lib/systemd")));
    install(&usr);
    let root = folder.path("root");
    let names = fs::read_dir(project("systemd")).unwrap().map(|unit| unit.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let unit = name.replace('@', "@a-name");
        let verify = ["verify", "--man=no", "--root", root.to_str().unwrap(), &unit];
        // The command succeeds even when it warns.
        assert_eq!(must(Command::new("systemd-analyze").args(verify)), "");
        if name.ends_with(".service") {
            // The exposure may be 1.2 of 10 at most.
            let security = ["security", "--no-pager", "--offline=true", "--threshold=12"];
            must(Command::new("systemd-analyze").args(security).arg(project("systemd").join(name)));
        }
    }
}

#[test]
fn the_units_are_alike() {
    let read = |unit: &str| fs::read_to_string(project("systemd").join(unit)).unwrap();
    let units = [RECEIVE, SEND, "spiped-receive@.service", "spiped-send@.service"].map(read);
    let common = |unit: &str| {
        let (_, common) =
            unit.split_once("# --- All four units are identical from here on.").unwrap();
        common.to_owned()
    };
    for unit in &units {
        assert_eq!(common(unit), common(&units[0]));
    }
    assert!(common(&units[0]).lines().count() > 40);
    // A reload checks the options that a start has, but for the keys.
    for unit in &units {
        let options = |begin: &str| {
            let line = unit.lines().find_map(|line| line.strip_prefix(begin)).unwrap();
            line.split_once(" -k ").unwrap().0.to_owned()
        };
        let start = options("ExecStart=/usr/bin/spiped ");
        assert_eq!(options("ExecReload=+/usr/bin/spiped config-check "), start);
    }
    let sockets = ["receive", "send"].map(|end| read(&format!("spiped-{end}@.socket")));
    let settings = |socket: &str| socket.split_once("[Socket]").unwrap().1.to_owned();
    assert_eq!(settings(&sockets[0]), settings(&sockets[1]));
}
