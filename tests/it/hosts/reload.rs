//! `systemctl reload` loads another key, `systemctl stop` lets connections end.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be, said};
use crate::support::{Server, connect, noise, round_trip, wait_until};

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
    // The journal takes the lines of a command that has ended a little later.
    wait_until(reason, || host.log(RECEIVE).contains(reason));
    assert_eq!(host.must(&format!("systemctl show -P MainPID {RECEIVE}")), process);
    assert_eq!(host.must(&format!("systemctl is-active {RECEIVE}")), "active");
}

/// Follows the manual's own text, for the key, the folder, and both.
#[test]
fn encrypted_keys_are_used_and_reloaded() {
    if !hosts_can_be("encrypted keys") {
        return;
    }
    let (hosts, _server) = boot("");
    let host = &hosts["one"];
    let recipe = commands_of("Encrypted keys");
    let [encrypt_the_key, encrypt_the_folder, configure] = recipe.as_slice() else {
        panic!("{recipe:?}")
    };
    host.sh("mkdir -m 700 /etc/spiped/redis.keys
             spiped keygen /etc/spiped/redis.keys/alice.key
             echo CONNECTIONS=20 > /etc/spiped/redis.keys/alice.conf");
    // The sender goes on with its own copy of the plain key.
    host.sh(&format!("cp -p /etc/spiped/redis.key /etc/spiped/sender.key
        cp -p /etc/spiped/redis.keys/alice.key /root
        mkdir -p /etc/systemd/system/{SEND}.d
        printf '[Service]\nExecStartPre=\nLoadCredential=redis.key:/etc/spiped/sender.key\nExecReload=\n\
            ExecReload=+spiped rekey $SPIPED_CONTROL /etc/spiped/sender.key\n' \
            > /etc/systemd/system/{SEND}.d/key.conf"));
    host.sh(encrypt_the_key);
    host.sh(encrypt_the_folder);
    host.sh(configure);
    let left = host.sh("cd /etc/spiped; echo *");
    assert_eq!(left, "redis.conf redis.key.cred redis.keys.cred sender sender.key");
    host.net().enter(|| round_trip(&mut connect(sender()), b"with the encrypted key"));
    host.sh(&format!("mv /root/alice.key /etc/spiped/sender.key; systemctl reload {SEND}"));
    host.net().enter(|| round_trip(&mut connect(sender()), b"with one of the folder"));

    // Another key, and one more.
    for (name, file) in
        [("redis.key", "redis.key.cred"), ("redis.keys_bob.key", "redis.keys.cred/bob.key")]
    {
        host.sh(&format!(
            "cd /etc/spiped; rm -f /run/new {file}; spiped keygen /run/new
                          systemd-creds encrypt --name={name} /run/new {file}"
        ));
        host.must(&format!("systemctl reload {RECEIVE}"));
        host.sh(&format!("mv /run/new /etc/spiped/sender.key; systemctl reload {SEND}"));
        host.net().enter(|| round_trip(&mut connect(sender()), b"with the new one"));
    }
    assert_eq!(host.sh("cd /run; echo tmp.*"), "tmp.*");
    let revoked = host.sh("spiped setup revoke bob --pipe redis");
    assert!(revoked.starts_with("removed /etc/spiped/redis.keys.cred/bob.key\nrevoked bob "));
    host.net().enter(|| assert!(connect(sender()).read(&mut [0]).is_err()));
    let refused = host.run("spiped setup client carol --pipe redis");
    assert!(said(&refused).contains("redis.key.cred is encrypted"), "{}", said(&refused));

    // A key that was encrypted for another host, or cut off.
    host.sh("echo rubbish > /etc/spiped/redis.keys.cred/alice.key");
    is_refused(host, "Failed to read encrypted credential data");
    assert_eq!(host.sh("cd /run; echo tmp.*"), "tmp.*");
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

#[test]
fn the_receiver_without_a_name_is_reloaded_with_a_folder_of_keys_alone() {
    if !hosts_can_be("a folder of keys of the unit without a name") {
        return;
    }
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    host.write_etc("redis.addr", "ADDR=192.0.2.1\n", 0o644);
    host.write_etc("redis.keys/alice.key", [3; 32], 0o600);
    host.must("chmod 700 /etc/spiped/redis.keys");
    host.start("start", "spiped-receive.service");
    host.write_etc("redis.keys/bob.key", [4; 32], 0o600);
    host.must("systemctl reload spiped-receive.service");
    assert!(host.log("spiped-receive.service").contains("key added key=bob "));
}
