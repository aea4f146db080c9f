//! `systemctl reload` loads another key, `systemctl stop` lets connections end.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be};
use crate::support::{Server, connect, noise, round_trip};

const RECEIVE: &str = "spiped-receive@redis.service";
const SEND: &str = "spiped-send@redis.service";

/// A host whose two ends share the files of one name, before a server of the test's own.
fn boot(more: &str) -> (Hosts, Server) {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let server = host.net().enter(Server::echo);
    let conf = format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={}\n{more}", server.address);
    host.write_etc("redis.conf", conf, 0o644);
    host.write_etc("redis.key", [3; 32], 0o600);
    // The drop-in takes precedence over the file.
    let variables = "SPIPED_SOURCE=127.0.0.1:8000 SPIPED_TARGET=127.0.0.1:7000";
    host.sh(&format!("echo '{variables}' | tr ' ' '\n' > /etc/spiped/sender"));
    host.drop_in(SEND, "[Service]\nEnvironmentFile=/etc/spiped/sender\n");
    host.start("start", RECEIVE);
    host.start("start", SEND);
    (hosts, server)
}

fn sender() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000))
}

fn key_id(host: &Host, unit: &str) -> String {
    let status = host.must(&format!("systemctl show -P StatusText {unit}"));
    let key = status.split(", key ").nth(1).expect(&status).split(':').next().unwrap();
    key.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn reload_puts_a_new_key_in_force_and_refuses_a_bad_one() {
    if !hosts_can_be("systemctl reload") {
        return;
    }
    let (hosts, _server) = boot("");
    let host = &hosts["one"];
    host.net().enter(|| {
        let mut before = connect(sender());
        round_trip(&mut before, b"with the old key");
        for key in [noise(5, 32), noise(6, 32)] {
            host.write_etc("redis.key", key, 0o600);
            for unit in [RECEIVE, SEND] {
                let wanted = host.must("spiped keyid /etc/spiped/redis.key");
                host.must(&format!("systemctl reload {unit}"));
                assert!(host.log(unit).contains(&format!("key added key=redis key_id={wanted}")));
            }
            round_trip(&mut connect(sender()), b"with the new key");
            round_trip(&mut before, b"as before");
        }
        host.write_etc("redis.key", "short", 0o600);
        is_refused(host, "the key has 5 bytes, fewer than 32");
        host.write_etc("redis.key", [7; 32], 0o604);
        is_refused(host, "is open to others (mode 0604)");
        round_trip(&mut connect(sender()), b"with the key that it had");
        round_trip(&mut before, b"as before");
    });
}

/// The reload fails, the log has its reason, and the process goes on.
fn is_refused(host: &Host, reason: &str) {
    let process = host.must(&format!("systemctl show -P MainPID {RECEIVE}"));
    assert!(!host.run(&format!("systemctl reload {RECEIVE}")).status.success());
    let log = host.log(RECEIVE);
    assert!(log.contains(reason), "{log}");
    assert_eq!(host.must(&format!("systemctl show -P MainPID {RECEIVE}")), process);
    assert_eq!(host.must(&format!("systemctl is-active {RECEIVE}")), "active");
}

/// Follows the manual's own text.
#[test]
fn an_encrypted_key_is_used_and_reloaded() {
    if !hosts_can_be("encrypted keys") {
        return;
    }
    let (hosts, _server) = boot("");
    let host = &hosts["one"];
    let id = key_id(host, RECEIVE);
    host.sh(&commands_of("Encrypted keys")[0]);
    assert!(!host.etc("redis.key").exists());
    assert_eq!(key_id(host, RECEIVE), id);
    host.net().enter(|| round_trip(&mut connect(sender()), b"with the encrypted key"));

    let another = "head --bytes 32 /dev/zero > /run/new; chmod 600 /run/new; systemd-creds encrypt \
                   --name=key /run/new /etc/spiped/redis.key.cred; spiped keyid /run/new";
    let printed = host.sh(another);
    let id = printed.lines().find(|line| line.len() == 19 && !line.contains(' ')).unwrap();
    host.must(&format!("systemctl reload {RECEIVE}"));
    assert!(host.log(RECEIVE).contains(&format!("key added key=stdin key_id={id}")));

    // A key that was encrypted for another host, or cut off.
    host.sh("echo rubbish > /etc/spiped/redis.key.cred");
    is_refused(host, "no key on standard input");
}

/// The unit asks systemd for the time that it needs if that exceeds the unit's own; but
/// no idle connection delays a shutdown for the whole drain timeout.
#[test]
fn a_stop_waits_for_open_connections() {
    if !hosts_can_be("systemctl stop") {
        return;
    }
    let (hosts, _server) = boot("SPIPED_DRAIN_TIMEOUT=86400\n");
    let host = &hosts["one"];
    host.drop_in(RECEIVE, "[Service]\nTimeoutStopSec=1\n");
    host.net().enter(|| {
        let mut open = connect(sender());
        round_trip(&mut open, b"before");
        host.must(&format!("systemctl stop --no-block {RECEIVE}"));
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            round_trip(&mut open, b"during");
        }
        assert!(host.status(RECEIVE).contains("Status: \"draining: 1 connection still open\""));
        // systemd does not hold the socket either, though it keeps it at a restart.
        let refused = TcpStream::connect("127.0.0.1:7000").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(open.read(&mut [0]).is_err(), "it goes on");
        host.start("start", RECEIVE);
        round_trip(&mut connect(sender()), b"after");
    });
    let log = host.must(&format!("journalctl --quiet --output cat --unit {RECEIVE}"));
    assert!(log.contains("Deactivated successfully") && !log.contains("timed out"), "{log}");
}
