//! `--carriers on`: many connections share a session. What a client sees is what it sees of a
//! connection of its own.

mod attacker;
mod moving;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::support::hop::{Act, Hop, Tamper, Unit, Way};
use crate::support::{
    Daemon, End, Folder, PATIENCE, Server, nobody, noise, read_to_end, reset, round_trip,
    wait_until, write_and_read_to_end,
};

/// One carrier, so that all connections are on it.
const ON: [&str; 4] = ["--carriers", "on", "--threads", "1"];

/// A sender and a receiver with one carrier, and a hop between.
struct Line {
    _folder: Folder,
    receiver: Daemon,
    sender: Daemon,
    /// How many connections have come to the hop.
    connected: Arc<AtomicUsize>,
}

impl Line {
    fn to(target: impl ToString) -> Self {
        Self::with(target, &[], &[], |_| Box::new(|unit| vec![Act::Forward(unit.bytes)]))
    }

    /// The connection of each number is tampered with so; number 0 is the carrier's.
    fn tampered(target: impl ToString, tamper: impl Fn(usize) -> Tamper + Send + 'static) -> Self {
        Self::with(target, &[], &[], tamper)
    }

    fn with(
        target: impl ToString,
        of_sender: &[&str],
        of_receiver: &[&str],
        tamper: impl Fn(usize) -> Tamper + Send + 'static,
    ) -> Self {
        let folder = Folder::new();
        let receiver =
            Daemon::receiver(&folder.shared_key(), target, &[&ON[..], of_receiver].concat());
        let connected = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connected);
        let hop = Hop::tampering(receiver.address, move |number| {
            counter.fetch_add(1, Ordering::SeqCst);
            tamper(number)
        });
        let more = [&ON[..], of_sender].concat();
        let sender = Daemon::sender(&folder.shared_key(), hop.address, &more);
        sender.log.wait_for("carrier open");
        Self { _folder: folder, receiver, sender, connected }
    }

    fn connect(&self) -> TcpStream {
        self.sender.connect()
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::SeqCst)
    }
}

#[test]
fn connections_share_one_session() {
    let line = Line::to(Server::echo().address);
    let mut clients: Vec<_> = (0..50).map(|_| line.connect()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        round_trip(client, &noise(number, 3000));
    }
    assert_eq!(line.connected(), 1);
    for mut client in clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), (vec![], End::Clean));
    }
    wait_until("all have ended well", || line.receiver.log.count("reason=finished") == 50);
}

/// Clients that come before there is a carrier, or where there is none, have sessions of their
/// own.
#[test]
fn a_receiver_that_carries_nothing_is_used_as_before() {
    let folder = Folder::new();
    let server = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--carriers", "off"]);
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &ON);
    round_trip(&mut sender.connect(), b"at once");
    sender.log.wait_for("the receiver carries nothing");
    round_trip(&mut sender.connect(), b"as before");
    assert_eq!(sender.log.count("carrier open"), 0);
}

#[test]
fn a_client_of_a_target_that_is_down_is_reset_at_once() {
    let line = Line::to(nobody());
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(read_to_end(&mut line.connect()).1, End::Reset);
        assert!(began.elapsed() < PATIENCE / 4);
    }
    line.sender.log.wait_for("reason=aborted-target-refused");
    line.receiver.log.wait_for("reason=target-refused");
    assert_eq!(line.connected(), 1);
}

/// The server's refusal arrives, and then its reset.
#[test]
fn last_words_arrive_before_a_reset() {
    let server = Server::start(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"-ERR").unwrap();
        reset(stream);
    });
    let line = Line::to(server.address);
    for _ in 0..20 {
        let (got, end) = write_and_read_to_end(&mut line.connect(), b"AUTH!");
        assert!(b"-ERR".starts_with(&got[..]), "{got:?}");
        assert_eq!(end, End::Reset);
    }
    wait_until("both logs say so", || {
        line.sender.log.count("reason=aborted-peer-reset") == 20
            && line.receiver.log.count("reason=peer-reset") == 20
    });
}

#[test]
fn streams_count_for_the_limits_of_connections() {
    for (limit, reason) in
        [(["-n", "3"], "connection-limit"), (["--per-key", "3"], "key-connection-limit")]
    {
        let line = Line::with(Server::echo().address, &[], &limit, |_| {
            Box::new(|unit| vec![Act::Forward(unit.bytes)])
        });
        let mut open: Vec<_> = (0..3).map(|_| line.connect()).collect();
        for client in &mut open {
            round_trip(client, b"open");
        }
        assert_eq!(read_to_end(&mut line.connect()).1, End::Reset);
        line.receiver.log.wait_for(&format!("reason={reason}"));
        line.sender.log.wait_for("reason=aborted-connection-limit");
        drop(open.pop());
        wait_until("one has ended", || line.receiver.log.count(" reason=") >= 2);
        round_trip(&mut line.connect(), b"again");
    }
}

/// Streams go on with the key that they began with; new ones have the new key.
#[test]
fn a_key_that_is_replaced_takes_no_new_streams() {
    let folder = Folder::new();
    let control = folder.path("control");
    let server = Server::echo();
    let (old, new) = (folder.key("old.key"), folder.key("new.key"));
    let keys = [old.to_str().unwrap(), new.to_str().unwrap()].join(":");
    let receiver = Daemon::receiver(keys.as_ref(), server.address, &ON);
    let more = [&ON[..], &["--control", control.to_str().unwrap()]].concat();
    let sender = Daemon::sender(&old, receiver.address, &more);
    sender.log.wait_for("carrier open");
    let mut first = sender.connect();
    round_trip(&mut first, b"with the old key");
    let mut rekey = std::process::Command::new(env!("CARGO_BIN_EXE_spiped"));
    assert!(rekey.arg("rekey").arg(&control).arg(&new).status().unwrap().success());
    wait_until("there is a carrier of the new key", || sender.log.count("carrier open") == 2);
    let mut second = sender.connect();
    round_trip(&mut second, b"with the new key");
    round_trip(&mut first, b"still with the old one");
    assert_eq!(sender.log.count("carrier ended"), 0);
    drop(first);
    sender.log.wait_for("key=old");
    wait_until("the old carrier has ended", || sender.log.count("carrier ended: closed") == 1);
    round_trip(&mut second, b"goes on");
}

#[test]
fn a_key_that_is_revoked_loses_its_streams_at_once() {
    let folder = Folder::new();
    let control = folder.path("control");
    let (alice, bob) = (folder.key("alice.key"), folder.key("bob.key"));
    let keys = [alice.to_str().unwrap(), bob.to_str().unwrap()].join(":");
    let more = [&ON[..], &["--control", control.to_str().unwrap()]].concat();
    let receiver = Daemon::receiver(keys.as_ref(), Server::echo().address, &more);
    let [of_alice, of_bob] = [&alice, &bob].map(|key| Daemon::sender(key, receiver.address, &ON));
    for sender in [&of_alice, &of_bob] {
        sender.log.wait_for("carrier open");
    }
    let (mut lost, mut stays) = (of_alice.connect(), of_bob.connect());
    round_trip(&mut lost, b"before");
    round_trip(&mut stays, b"before");
    let mut revoke = std::process::Command::new(env!("CARGO_BIN_EXE_spiped"));
    assert!(revoke.arg("revoke").arg(&control).arg("alice").status().unwrap().success());
    assert_eq!(read_to_end(&mut lost).1, End::Reset);
    of_alice.log.wait_for("reason=aborted-key-revoked");
    receiver.log.wait_for("reason=key-revoked");
    assert_eq!(read_to_end(&mut of_alice.connect()).1, End::Reset);
    round_trip(&mut stays, b"after");
}

/// Open streams end by themselves; a new receiver gets a new carrier.
#[test]
fn a_receiver_that_ends_lets_its_streams_end() {
    let line = Line::to(Server::echo().address);
    let mut client = line.connect();
    round_trip(&mut client, b"before");
    line.receiver.signal("TERM");
    line.receiver.log.wait_for("draining open connections");
    round_trip(&mut client, b"while it drains");
    drop(client);
    let Line { mut receiver, sender, .. } = line;
    assert!(receiver.wait().success());
    sender.log.wait_for("carrier ended: closed");
}

#[test]
fn a_sender_that_ends_lets_its_streams_end() {
    let line = Line::to(Server::echo().address);
    let mut client = line.connect();
    round_trip(&mut client, b"before");
    line.sender.signal("TERM");
    line.sender.log.wait_for("draining open connections");
    round_trip(&mut client, b"while it drains");
    drop(client);
    let Line { mut sender, .. } = line;
    assert!(sender.wait().success());
}

/// Nothing comes any more of the carrier, though nobody ends it: its streams are reset, and new
/// clients do not wait for it (C17, D5).
#[test]
fn a_carrier_that_is_dead_resets_its_streams_and_takes_no_new_ones() {
    let is_dead = Arc::<AtomicBool>::default();
    let dead = Arc::clone(&is_dead);
    let line = Line::tampered(Server::echo().address, move |number| {
        let dead = Arc::clone(&dead);
        Box::new(move |unit| {
            let is_swallowed = number == 0 && dead.load(Ordering::SeqCst);
            if is_swallowed { vec![] } else { vec![Act::Forward(unit.bytes)] }
        })
    });
    let mut client = line.connect();
    round_trip(&mut client, b"before");
    is_dead.store(true, Ordering::SeqCst);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    // Whoever notices first closes, and the other one sees that.
    wait_until("both have noticed", || {
        [&line.sender, &line.receiver].iter().all(|end| end.log.count("warn carrier ended") == 1)
    });
    assert!(line.sender.log.count("reason=silent") + line.receiver.log.count("reason=silent") > 0);
    round_trip(&mut line.connect(), b"at once");
}

/// The hop swallows nothing of it, and delays all.
#[test]
fn a_thousand_streams_at_once_are_served() {
    let line = Line::to(Server::echo().address);
    let clients: Vec<_> = (0..1000)
        .map(|number| {
            let mut client = line.connect();
            client.write_all(&noise(number, 100)).unwrap();
            (number, client)
        })
        .collect();
    for (number, mut client) in clients {
        let mut got = [0; 100];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got[..], noise(number, 100));
    }
}

#[test]
fn the_target_is_told_of_the_stream_and_its_client() {
    let server = Server::start(|mut stream| {
        let mut header = [0; 16];
        stream.read_exact(&mut header).unwrap();
        let length = u16::from_be_bytes([header[14], header[15]]);
        let mut rest = vec![0; length.into()];
        stream.read_exact(&mut rest).unwrap();
        stream.write_all(&rest).unwrap();
    });
    let line = Line::with(server.address, &["--tell-client"], &["--proxy-protocol"], |_| {
        Box::new(|unit| vec![Act::Forward(unit.bytes)])
    });
    let mut client = line.connect();
    let told = read_to_end(&mut client).0;
    let port = client.local_addr().unwrap().port().to_be_bytes();
    drop(client);
    let conn = line.receiver.log.wait_for("reason=finished");
    let conn = conn.split_once(" conn=").unwrap().1.split_once(' ').unwrap().0;
    assert!(conn.ends_with("/1"), "{conn}");
    assert!(told.windows(conn.len()).any(|part| part == conn.as_bytes()), "{told:?}");
    assert_eq!(told[8..10], port);
}

/// Both ends tell the same carriers, with what they carry.
#[test]
fn the_status_tells_carriers() {
    let folder = Folder::new();
    let controls = ["receiver", "sender"].map(|name| folder.path(name));
    let at = |number: usize| ["--control", controls[number].to_str().unwrap()];
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, Server::echo().address, &[&ON[..], &at(0)].concat());
    let sender = Daemon::sender(&key, receiver.address, &[&ON[..], &at(1)].concat());
    sender.log.wait_for("carrier open");
    let mut clients: Vec<_> = (0..3).map(|_| sender.connect()).collect();
    for client in &mut clients {
        round_trip(client, b"open");
    }
    let told = controls.map(|control| {
        let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_spiped"));
        let told = status.args(["status", "--json", "--connections"]).arg(control).output();
        serde_json::from_slice::<serde_json::Value>(&told.unwrap().stdout).unwrap()
    });
    for status in &told {
        let carriers = status[0]["carriers"].as_array().unwrap();
        assert_eq!(carriers.len(), 1, "{status:#}");
        assert_eq!((&carriers[0]["streams"], &carriers[0]["is_taking"]), (&3.into(), &true.into()));
        let conn = carriers[0]["conn"].as_str().unwrap();
        let open = status[0]["open"].as_array().unwrap();
        assert_eq!(open.len(), 3);
        for open in open {
            assert!(open["conn"].as_str().unwrap().starts_with(&format!("{conn}/")));
        }
        assert_eq!(status[0]["connections"], 3);
    }
    assert_eq!(told[0][0]["carriers"][0]["conn"], told[1][0]["carriers"][0]["conn"]);
}
