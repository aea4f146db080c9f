//! `spiped setup` ends with a proof: the output when the pipe does not work.

use std::net::TcpListener;

use super::{PROVED, RECEIVE, SEND, follow, refused, run_with_key, state, unproved};
use crate::support::hosts::{Host, Hosts, hosts_can_be};
use crate::support::wait_until;

const RUNS: &str = "ActiveState=active UnitFileState=enabled";

#[test]
fn a_receiver_is_proved_through_its_own_source() {
    if !hosts_can_be("the proof of spiped setup receive") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    // The server may come later: what was set up stays, and the output names what is
    // missing.
    let down = "the pipe works, but the server behind the receiver refused the connection";
    let said = unproved(&host.run(RECEIVE), 75, down);
    // It is told once, by the error.
    assert!(said.contains("\nNow, on the clients' host:\n  ssh "), "{said}");
    assert_eq!(said.matches(down).count(), 1, "{said}");
    assert_eq!(state(host, "spiped-receive@redis"), RUNS);
    let line = "spiped setup receive unix -s /run/spiped/in.socket -t 127.0.0.1:6379 --socket";
    unproved(&host.run(line), 75, down);

    host.has_redis();
    assert!(host.must(RECEIVE).contains(PROVED));
    assert!(host.must(line).contains(PROVED));
    for (name, source) in [("four", "0.0.0.0:6380"), ("six", "[::]:6381")] {
        let line = format!("spiped setup receive {name} -s {source} -t 127.0.0.1:6379");
        assert!(host.must(&line).contains(PROVED));
    }
    // Redis has no connection of a proof, but of each of these questions.
    let connections = || {
        let stats = host.must("redis-cli info stats");
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = connections();
    assert!(host.must(RECEIVE).contains(PROVED));
    assert_eq!(connections(), before + 1);
    let log = host.log("spiped-receive@redis");
    assert!(log.contains("\nclosed reason=finished id="), "{log}");
    assert!(log.contains(" client=nobody "), "{log}");

    // The unit accepts only what the proof would not choose by itself, whichever that is.
    for line in [
        "SPIPED_CIPHER=aes-256-gcm",
        "SPIPED_CIPHER=chacha20-poly1305",
        "SPIPED_KEX=x25519mlkem768",
        "SPIPED_KEX=x25519",
    ] {
        host.sh(&format!("echo {line} >> /etc/spiped/redis.conf"));
        host.must("systemctl restart spiped-receive@redis");
        assert!(host.must(RECEIVE).contains(PROVED), "{line}");
    }
    assert!(host.log("spiped-receive@redis").contains(" kex=x25519 "));
}

/// With or without the header of the PROXY protocol.
#[test]
fn no_server_sees_a_proof() {
    if !hosts_can_be("what a server sees of the proof of spiped setup") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.sh("cat > /root/server.py <<'END'
import socket
server = socket.create_server((\"127.0.0.1\", 6379))
while True:
    client, _ = server.accept()
    print(\"seen\", client.recv(999).hex(), flush=True)
    client.close()
END
systemd-run --quiet --unit server /usr/bin/python3 /root/server.py");
    wait_until("it is proved", || host.run(RECEIVE).status.success());
    host.sh("echo SPIPED_PROXY_PROTOCOL=1 >> /etc/spiped/redis.conf");
    host.must("systemctl restart spiped-receive@redis");
    assert!(host.must(RECEIVE).contains(PROVED));
    assert!(!host.log("server").contains("seen"), "{}", host.log("server"));
    // The server sees every other connection.
    host.sh("echo | python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 6379))'");
    wait_until("the server sees one", || host.log("server").contains("seen"));
}

/// Each fault is a run of its own, with a pipe of its own.
#[test]
fn a_sender_is_proved_as_far_as_the_server_behind_its_receiver() {
    if !hosts_can_be("the proof of spiped setup send") {
        return;
    }
    let hosts = Hosts::boot(&["server", "client"]);
    let (server, client) = (&hosts["server"], &hosts["client"]);
    server.has_redis();
    client.has_redis();
    let printed = server.must(RECEIVE);
    client.must("spiped keygen /root/other");
    let other = client.must("spiped keyid /root/other");
    let faults = [
        ("192.0.2.1:6380", 69, "cannot reach the receiver: target refused the connection".into()),
        ("192.0.2.9:6379", 69, "cannot reach the receiver: ".into()),
        ("no-such-host:6379", 68, "cannot reach the receiver: the name no-such-host does".into()),
        ("192.0.2.1:22", 76, "the answer is not our protocol, looks like ssh".into()),
        (
            "192.0.2.1:6379",
            67,
            format!("the receiver does not have the key {other}, or is at its limit"),
        ),
    ];
    for (port, (target, code, reason)) in (8001..).zip(&faults) {
        let name = format!("to-{port}");
        let line =
            format!("spiped setup send {name} -s 127.0.0.1:{port} -t {target} -k /root/other");
        let said = unproved(&client.run(&line), *code, reason);
        assert!(said.contains(&format!("The sender {name} runs: ")), "{said}");
        assert!(!said.contains("The proof has failed: "), "{said}");
        assert_eq!(state(client, &format!("spiped-send@{name}")), RUNS);
    }

    let dead = || server.must("systemctl stop redis-server");
    dead();
    let key = std::fs::read(server.etc("redis.key")).unwrap();
    std::fs::write(client.root.join("root/key"), key).unwrap();
    client.must("chmod 600 /root/key");
    let sent = client.run(&format!("{SEND} --key /root/key"));
    let down = "the pipe works, but the server behind the receiver refused the connection";
    unproved(&sent, 75, down);
    server.must("systemctl start redis-server");
    assert!(follow(client, &printed).contains(PROVED));
}

#[test]
fn each_half_of_a_pair_is_proved_that_is_here() {
    if !hosts_can_be("the proof of spiped setup pair") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b"]);
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.has_redis();
    let pair = |host: &Host, source: &str, peer: &str| {
        host.run(&format!(
            "spiped setup pair p -s {source}:6380 -t 127.0.0.1:6379 --local 127.0.0.1:8000 \
             --peer {peer}:6380 -k /root/key"
        ))
    };
    b.must("spiped keygen /root/key");
    a.must("spiped keygen /root/key");
    // a's server answers, and nothing listens on b.
    let said = unproved(&pair(a, "192.0.2.1", "192.0.2.2"), 69, "cannot reach the receiver: ");
    assert!(said.contains("p-out is set up") && said.contains(PROVED), "{said}");
    // b has neither a server of its own nor a's key.
    let said = unproved(&pair(b, "192.0.2.2", "192.0.2.1"), 75, "the pipe works, but the server");
    assert!(said.contains("p-in is set up"), "{said}");
    assert_eq!(said.matches("\n  The proof has failed: ").count(), 1, "{said}");
    assert_eq!(said.matches("proof has failed: ").count(), 2, "{said}");

    // A dry run proves nothing, so nothing is missing.
    let key = std::fs::read(a.etc("p-in.key")).unwrap();
    let line = "spiped setup send q -s 127.0.0.1:8001 -t 192.0.2.9:1 --dry-run --key -";
    assert!(run_with_key(b, line, &key).contains("would then prove it"));
    refused(
        &b.run("spiped setup send q -s 127.0.0.1:8001 -t 127.0.0.1:8001 -k /root/key"),
        64,
        "--target",
    );
}

/// An operator can end the wait for a host that does not answer.
#[test]
fn a_signal_ends_the_proof_and_nothing_else() {
    if !hosts_can_be("signals in the proof of spiped setup") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    let silent = host.net().enter(|| TcpListener::bind("127.0.0.1:9999").unwrap());
    host.must("spiped keygen /root/key");
    host.must(
        "systemd-run --quiet --unit setup --remain-after-exit -- spiped setup send redis \
         -s 127.0.0.1:8000 -t 127.0.0.1:9999 -k /root/key",
    );
    let _asked = silent.accept().unwrap();
    host.must("systemctl kill --kill-whom main --signal INT setup");
    let ended = "systemctl show -P ExecMainCode -P ExecMainStatus setup";
    wait_until("it is ended by the signal", || host.must(ended) == "2\n2");
    assert_eq!(state(host, "spiped-send@redis"), RUNS);
}
