//! `--prewarm`: a connection takes a session that is ready and waits for no handshake;
//! sessions that have become useless are replaced.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SysRng;
use spiped::protocol::{
    AbortReason, Extensions, Initiator, KEY_SECRETS, OVERHEAD, PADDED_COUNT, Record, SharedKey,
};

use crate::support::hop::{Act, Hop, Tamper, Unit, Way};
use crate::support::{
    Daemon, End, Folder, SUITE, Server, connect, read_to_end, round_trip, wait_until,
    write_and_read_to_end,
};

/// Bytes of the record by which a session is made ready.
const READY: usize = OVERHEAD + PADDED_COUNT;

/// What a hop has seen of sessions, and whether it lets handshakes through.
#[derive(Default)]
struct Seen {
    /// Handshakes that have begun.
    begun: AtomicUsize,
    /// Sessions that were made ready.
    ready: AtomicUsize,
    /// Ready sessions that were opened.
    opened_later: AtomicUsize,
    /// Sessions that were opened without having been ready.
    opened_at_once: AtomicUsize,
    loses_handshakes: AtomicBool,
}

impl Seen {
    fn counts(&self) -> [usize; 3] {
        [&self.ready, &self.opened_later, &self.opened_at_once].map(|it| it.load(Ordering::SeqCst))
    }

    fn ready(&self, count: usize) {
        wait_until(&format!("{count} have been ready"), || self.counts()[0] >= count);
    }

    fn tamper(self: &Arc<Self>) -> Tamper {
        let seen = Arc::clone(self);
        Box::new(move |unit: Unit| {
            let counter = match (unit.way, unit.number, unit.bytes.len()) {
                (Way::ToReceiver, 0, _) => &seen.begun,
                (Way::ToReceiver, 1, READY) => &seen.ready,
                (Way::ToReceiver, 1, _) => &seen.opened_at_once,
                (Way::ToReceiver, 2, OVERHEAD) => &seen.opened_later,
                _ => return vec![Act::Forward(unit.bytes)],
            };
            counter.fetch_add(1, Ordering::SeqCst);
            if unit.number == 0 && seen.loses_handshakes.load(Ordering::SeqCst) {
                return vec![];
            }
            vec![Act::Forward(unit.bytes)]
        })
    }
}

/// A sender that keeps sessions ready, a hop, a receiver, and an echo.
struct Line {
    folder: Folder,
    target: Server,
    receiver: Daemon,
    sender: Daemon,
    seen: Arc<Seen>,
}

impl Line {
    fn with(prewarm: &str, of_sender: &[&str], of_receiver: &[&str]) -> Self {
        let folder = Folder::new();
        let target = Server::echo();
        let receiver = Daemon::receiver(&folder.shared_key(), target.address, of_receiver);
        let seen = Arc::<Seen>::default();
        let tamper = Arc::clone(&seen);
        let hop = Hop::tampering(receiver.address, move |_| tamper.tamper());
        let options = [&["--prewarm", prewarm], of_sender].concat();
        let sender = Daemon::sender(&folder.shared_key(), hop.address, &options);
        Self { folder, target, receiver, sender, seen }
    }

    /// A client that sends and receives.
    fn client(&self) -> TcpStream {
        let mut client = self.sender.connect();
        round_trip(&mut client, b"there and back");
        client
    }

    fn is_reset(&self) -> bool {
        write_and_read_to_end(&mut self.sender.connect(), b"x") == (vec![], End::Reset)
    }

    /// The log line about an outage, or about its end.
    fn said(&self) -> [usize; 2] {
        let log = &self.sender.log;
        [log.count("cannot prewarm sessions"), log.count("prewarming works again")]
    }
}

/// A ready session costs the target nothing beforehand and the client no handshake
/// afterwards; the time limit of a handshake does not end it.
#[test]
fn a_connection_waits_for_no_handshake() {
    let line = Line::with("3", &["-o", "0.4"], &["-o", "0.4"]);
    line.seen.ready(3);
    // The receiver gives up on peers that do not prove the key.
    assert_eq!(read_to_end(&mut line.receiver.connect()).1, End::Reset);
    assert_eq!((line.seen.counts(), line.target.accepted()), ([3, 0, 0], 0));

    line.seen.loses_handshakes.store(true, Ordering::SeqCst);
    let clients: Vec<_> = (0..3).map(|_| line.client()).collect();
    assert_eq!((line.seen.counts(), line.target.accepted()), ([3, 3, 0], 3));
    // No session is left, and none can be made.
    assert!(line.is_reset());

    let attempts = line.seen.begun.load(Ordering::SeqCst);
    let tried = |more| line.seen.begun.load(Ordering::SeqCst) >= attempts + more;
    wait_until("an attempt is made", || tried(1));
    line.seen.loses_handshakes.store(false, Ordering::SeqCst);
    line.sender.log.wait_for("prewarming works again");
    line.seen.ready(6);
    assert_eq!(line.said(), [1, 1]);
    drop(clients);
    line.client();
    assert_eq!(line.seen.counts()[1..], [4, 0]);
}

#[test]
fn a_taken_session_is_replaced() {
    let line = Line::with("2", &[], &[]);
    line.seen.ready(2);
    let descriptors = line.sender.descriptors();
    for taken in 1..=20 {
        drop(line.client());
        line.seen.ready(2 + taken);
    }
    assert_eq!(line.seen.counts(), [22, 20, 0]);
    wait_until("nothing is left of them", || line.sender.descriptors() == descriptors);
    assert_eq!(line.said(), [0, 0]);
}

/// More clients than sessions come at once: the other clients make their own.
#[test]
fn clients_without_a_ready_session_are_served() {
    let line = Line::with("1", &[], &[]);
    line.seen.ready(1);
    let mut clients: Vec<_> = (0..20).map(|_| line.sender.connect()).collect();
    for client in &mut clients {
        round_trip(client, b"all of them");
    }
    let [_, later, at_once] = line.seen.counts();
    assert!(later >= 1 && later + at_once == 20, "{later} {at_once}");
}

#[test]
fn a_receiver_that_was_killed_is_found_again() {
    let mut line = Line::with("2", &[], &[]);
    line.seen.ready(2);
    line.receiver.signal("KILL");
    line.receiver.wait();
    let said = line.sender.log.wait_for("warn cannot prewarm sessions");
    assert!(said.contains("hint="), "{said}");
    assert!(line.is_reset());
    line.receiver = again(&line.receiver, &line.folder, line.target.address);
    line.sender.log.wait_for("prewarming works again");
    line.seen.ready(4);
    line.client();
    assert_eq!((line.seen.counts()[1], line.said()), (1, [1, 1]));
}

/// A client that comes before the sender notices the end of its sessions gets none of
/// them.
#[test]
fn no_client_gets_a_session_that_is_over() {
    let mut line = Line::with("5", &["--threads", "1"], &[]);
    line.seen.ready(5);
    line.sender.signal("STOP");
    line.receiver.signal("KILL");
    line.receiver.wait();
    line.receiver = again(&line.receiver, &line.folder, line.target.address);
    let mut clients: Vec<_> = (0..5).map(|_| line.sender.connect()).collect();
    line.sender.signal("CONT");
    for client in &mut clients {
        round_trip(client, b"served by the new one");
    }
    assert_eq!(line.receiver.log.count("warn"), 0);
}

/// A new receiver at the address of the old one.
fn again(before: &Daemon, folder: &Folder, target: SocketAddr) -> Daemon {
    let [source, target] = [before.address, target].map(|address| address.to_string());
    let key = folder.shared_key();
    Daemon::start(&["-d", "-s", &source, "-t", &target, "-k", key.to_str().unwrap()])
}

/// Both ends get another key: none of the old sessions is used.
#[test]
fn a_new_key_replaces_all_sessions() {
    let line = Line::with("3", &[], &[]);
    line.seen.ready(3);
    fs::copy(line.folder.key("new.key"), line.folder.shared_key()).unwrap();
    line.receiver.signal("HUP");
    let unused = "reason=unused-key-replaced";
    wait_until("they are closed", || line.receiver.log.count(unused) == 3);
    assert!(line.is_reset());
    line.sender.signal("HUP");
    line.sender.log.wait_for("keys reloaded");
    line.client();
    line.sender.log.wait_for("prewarming works again");
    line.seen.ready(6);
    let used = line.seen.counts()[1];
    line.client();
    assert_eq!(line.seen.counts()[1], used + 1);

    // Reloading an unchanged key replaces nothing.
    line.receiver.signal("HUP");
    wait_until("it is read", || line.receiver.log.count("keys reloaded") == 2);
    line.client();
    assert_eq!(line.receiver.log.count(unused), 3);
}

/// The sender's own key changes: no session that was made with the old key is opened.
#[test]
fn a_sender_with_a_new_key_uses_no_old_session() {
    let line = Line::with("3", &[], &[]);
    line.seen.ready(3);
    fs::copy(line.folder.key("new.key"), line.folder.shared_key()).unwrap();
    line.sender.signal("HUP");
    line.sender.log.wait_for("keys reloaded");
    assert!(line.is_reset());
    assert_eq!((line.seen.counts()[1], line.target.accepted()), (0, 0));
}

/// A sender that ignores the end of its session, and opens it.
#[test]
fn a_session_of_a_key_that_is_replaced_is_not_opened() {
    let folder = Folder::new();
    let target = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    let content = fs::read(folder.shared_key()).unwrap();
    let key = SharedKey::from_key_file(&content, Box::new([0; KEY_SECRETS])).unwrap();
    let session = || {
        let (initiator, message_1) = Initiator::start(SUITE, &key, &mut SysRng).unwrap();
        let mut tunnel = connect(receiver.address);
        tunnel.write_all(&message_1).unwrap();
        let mut message_2 = vec![0; SUITE.message_2()];
        tunnel.read_exact(&mut message_2).unwrap();
        let mut session = initiator.finish(&message_2).unwrap();
        tunnel.write_all(&session.sealer.seal_ready().unwrap()).unwrap();
        (tunnel, session)
    };
    let (mut tunnel, mut opened) = session();
    tunnel.write_all(&opened.sealer.seal_open(Extensions::default()).unwrap()).unwrap();
    let mut record = [0; OVERHEAD];
    tunnel.read_exact(&mut record).unwrap();
    assert_eq!(opened.opener.open(&mut record), Ok(Record::Opened(Extensions::default())));

    let (mut tunnel, mut late) = session();
    fs::copy(folder.key("new.key"), folder.shared_key()).unwrap();
    receiver.signal("HUP");
    let mut record = [0; OVERHEAD + 1];
    tunnel.read_exact(&mut record).unwrap();
    assert_eq!(late.opener.open(&mut record), Ok(Record::Abort(AbortReason::KeyReplaced)));
    tunnel.write_all(&late.sealer.seal_open(Extensions::default()).unwrap()).unwrap();
    assert!(read_to_end(&mut tunnel).0.is_empty());
    receiver.log.wait_for("reason=unused-key-replaced");
    assert_eq!(target.accepted(), 1);
}

/// At a shutdown, both ends log nothing about ready sessions and do not wait for them.
#[test]
fn sessions_that_nobody_needed_hold_up_no_end() {
    for first in ["the sender", "the receiver"] {
        let patient = ["--drain-timeout", "60"];
        let mut line = Line::with("5", &patient, &patient);
        line.seen.ready(5);
        line.client();
        line.seen.ready(6);
        let started = Instant::now();
        let end = if first == "the sender" { &mut line.sender } else { &mut line.receiver };
        end.signal("TERM");
        assert!(end.wait().success());
        assert!(started.elapsed() < Duration::from_secs(5), "{first}: {:?}", started.elapsed());
        let log = &line.receiver.log;
        wait_until("all are closed", || log.count("reason=unused-") == 5);
        assert_eq!((log.count("warn"), log.count("reason=finished")), (0, 1), "{first}");
        assert!(line.sender.log.count("warn") <= 1, "{first}");
    }
}

/// A receiver that gives too few sessions is logged once, and asked again at intervals.
#[test]
fn a_receiver_at_its_limit_is_not_stormed() {
    let started = Instant::now();
    let line = Line::with("4", &[], &["-n", "2"]);
    let line_said = line.sender.log.wait_for("warn cannot prewarm sessions");
    let reason = "the receiver has reached its connection limit";
    assert!(line_said.contains(reason) && line_said.contains("hint="), "{line_said}");
    // After the first four, the sender asks a second later, and two seconds after that.
    wait_until("two more", || line.seen.begun.load(Ordering::SeqCst) >= 6);
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
    let clients = [line.client(), line.client()];
    assert_eq!((line.seen.counts()[1..].to_vec(), line.said()), (vec![2, 0], [1, 0]));
    drop(clients);
}
