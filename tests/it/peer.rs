//! An independent peer in Python (`tests/peer`): it holds the vectors, and speaks with
//! itself and with the program, as either end.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::thread;

use serde_json::Value;

use crate::support::peer::{
    Initiated, Responder, carrier_vectors, command, initiate, is_installed, vectors,
};
use crate::support::{
    Daemon, End, Folder, PATIENCE, Server, noise, read_to_end, wait_until, write_and_read_to_end,
};

const SUITES: [&str; 4] = ["2", "3", "4", "5"];

/// What both ends of a connection know, and nobody else may make up.
const SHARED: [&str; 5] = ["suite", "key_id", "hint", "connection_id", "handshake_hash"];

#[test]
fn the_peer_agrees_with_every_value_of_the_vectors() {
    if !is_installed("the vectors, with the independent peer") {
        return;
    }
    let files = [vectors(), carrier_vectors()];
    let files = files.each_ref().map(|path| path.to_str().unwrap());
    let done = command(&["vectors", files[0], files[1]]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, b"162 values agree\n");
}

/// One digit is changed in each value; the peer names the value.
#[test]
fn the_peer_finds_a_changed_value_in_the_vectors() {
    if !is_installed("changed vectors, with the independent peer") {
        return;
    }
    let changed = |value: &mut Value| {
        let text = value.as_str().unwrap();
        let last = if text.ends_with('0') { '1' } else { '0' };
        *value = Value::from(format!("{}{last}", &text[..text.len() - 1]));
    };
    for (file, pointer, named) in [
        (vectors(), "/0/psk", "suite 2, psk: "),
        (vectors(), "/0/hint_key", "suite 2, hint_key: "),
        (vectors(), "/1/key_id", "suite 3, key_id: "),
        (vectors(), "/1/hint", "suite 3, hint: "),
        (vectors(), "/2/prologue", "suite 4, prologue: "),
        (vectors(), "/2/message_2", "suite 4, message_2: "),
        (vectors(), "/3/handshake_hash", "suite 5, handshake_hash: "),
        (vectors(), "/3/connection_id", "suite 5, connection_id: "),
        (vectors(), "/3/records/11/record", "suite 5, records.11.record: "),
        (carrier_vectors(), "/proof", "proof: "),
        (carrier_vectors(), "/handshake_hash", "proof: "),
        (carrier_vectors(), "/records/0/plaintext", "records.0.plaintext: "),
        (carrier_vectors(), "/records/2/frames/1/payload", "records.2.plaintext: "),
        (carrier_vectors(), "/records/9/plaintext", "records.9.plaintext: "),
    ] {
        let folder = Folder::new();
        let path = folder.path("changed.json");
        let mut all: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        changed(all.pointer_mut(pointer).unwrap());
        fs::write(&path, all.to_string()).unwrap();
        let done = command(&["vectors", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{pointer}: {done:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains(named), "{pointer}: {said}");
    }
}

#[test]
fn the_peer_speaks_with_itself_in_all_suites() {
    if !is_installed("the independent peer with itself") {
        return;
    }
    let folder = Folder::new();
    let input = noise(1, 1_000_000);
    let rekeys = ["--rekey-every", "5"];
    let responder = Responder::start(&folder.shared_key(), &rekeys);
    for suite in SUITES {
        let more = ["--suite", suite, "--prepare", "--extension", "1:04c00002010050"];
        let more = [&more[..], &rekeys].concat();
        let initiated = initiate(&folder.shared_key(), responder.address, &more, &input);
        assert_eq!(initiated.end(), "clean");
        assert!(initiated.output == input.to_ascii_uppercase(), "suite {suite}");
        let connection = initiated.report["connection_id"].as_str().unwrap();
        let report = responder.report(connection);
        assert_eq!(report["end"], "clean");
        assert_eq!(report["client"], "192.0.2.1:80");
        assert_eq!(report["received"], 1_000_000);
        for name in SHARED {
            assert_eq!(report[name], initiated.report[name], "suite {suite}, {name}");
        }
    }
}

/// The peer must be as strict as the program, so that the program's faults do not pass.
#[test]
fn the_peer_refuses_a_hostile_peer() {
    if !is_installed("a hostile independent peer") {
        return;
    }
    let folder = Folder::new();
    let responder = Responder::start(&folder.shared_key(), &[]);
    for (fault, expected) in [
        ("--wrong-hint", "no key fits"),
        ("--bad-ek", "bad encapsulation key"),
        ("--low-order", "all-zero dh result"),
        ("--flip=1:0:0", "no key fits"),
        ("--flip=1:30:7", "no key fits"),
        ("--flip=1:1256:0", "no key fits"),
        ("--flip=r0:2:0", "wrong tag"),
        ("--extension=200:", "abort 8 by us"),
        ("--extension=1:0400", "violation: an impossible client address"),
        ("--extension=2:00", "violation: nobody, with a value"),
        ("--first=3:41", "violation: kind 3 in place of OPEN"),
        ("--first=77:", "abort 8 by us"),
        ("--first=8:", "violation: kind 8 in place of OPEN"),
        ("--first=10:00", "violation: a wrong JOIN"),
        ("--record=1:", "violation: kind 1 in the stream"),
        ("--record=77:", "violation: kind 77 in the stream"),
        ("--record=11:", "violation: kind 11 in the stream"),
        ("--without-end", "truncated: end of file"),
    ] {
        let before = responder.reports().len();
        let initiated = initiate(&folder.shared_key(), responder.address, &[fault], b"x");
        assert_ne!(initiated.end(), "clean", "{fault}");
        wait_until(fault, || responder.reports().len() > before);
        assert_eq!(responder.reports()[before]["end"], expected, "{fault}");
    }
}

/// The options of the program for each suite of the peer.
const OPTIONS: [(&str, [&str; 4]); 4] = [
    ("2", ["--kex", "x25519", "--cipher", "chacha20-poly1305"]),
    ("3", ["--kex", "x25519", "--cipher", "aes-256-gcm"]),
    ("4", ["--kex", "x25519mlkem768", "--cipher", "chacha20-poly1305"]),
    ("5", ["--kex", "x25519mlkem768", "--cipher", "aes-256-gcm"]),
];

/// Whatever the peer does as initiator, a receiver of each suite gives the same bytes back.
#[test]
fn the_receiver_serves_the_independent_peer_in_all_suites() {
    if !is_installed("the receiver with the independent peer") {
        return;
    }
    let stage = Stage::new(&[]);
    let input = noise(2, 1_000_000);
    for (suite, _) in OPTIONS {
        for more in [
            &["--pad", "512"][..],
            &["--prepare"],
            // An unknown extension that may be passed over, and the client's address.
            &["--extension", "1:06000000000000000000000000000000010050", "--extension", "5:ff"],
        ] {
            let initiated = stage.initiate(&[&["--suite", suite], more].concat(), &input);
            assert_eq!(initiated.end(), "clean", "suite {suite}, {more:?}");
            assert!(initiated.output == input, "suite {suite}, {more:?}");
            stage.logs_as_the_peer(&initiated.report);
        }
        // Nobody is behind the connection: the target answers, and its server sees nothing.
        let served = stage.target.accepted();
        let asked = stage.initiate(&["--suite", suite, "--extension", "2:"], b"");
        assert_eq!((asked.end(), &asked.output[..]), ("clean", &b""[..]), "suite {suite}");
        assert_eq!(stage.target.accepted(), served, "suite {suite}");
    }
}

#[test]
fn the_sender_is_served_by_the_independent_peer_in_all_suites() {
    if !is_installed("the sender with the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let input = noise(3, 1_000_000);
    for (suite, options) in OPTIONS {
        for pad in ["0", "512"] {
            let peer = Responder::start(&key, &["--suites", suite, "--pad", pad]);
            let sender = Daemon::sender(&key, peer.address, &options);
            let mut client = sender.connect();
            let mut writer = client.try_clone().unwrap();
            let output = thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&input).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                read_to_end(&mut client)
            });
            assert!(output == (input.to_ascii_uppercase(), End::Clean), "suite {suite}");
            let report = peer.report("\"end\": \"clean\"");
            assert_eq!(report["suite"].to_string(), suite);
            // The client's address is sent only where the operator asks for it.
            assert_eq!(report["extensions"].as_object().unwrap().len(), 0, "{report}");
            sender.log.wait_for(report["connection_id"].as_str().unwrap());
            sender.log.wait_for(report["key_id"].as_str().unwrap());
        }
    }
}

/// A hybrid exchange can be required at either end, and no end falls back by itself.
#[test]
fn a_suite_that_the_other_end_refuses_is_never_replaced_by_another() {
    if !is_installed("suites that are refused, with the independent peer") {
        return;
    }
    let hybrid_only = Stage::new(&["--kex", "x25519mlkem768"]);
    for suite in ["2", "3"] {
        let refused = hybrid_only.initiate(&["--suite", suite], b"x");
        assert!(refused.end().starts_with("no message 2: "), "{}", refused.end());
    }
    assert_eq!(hybrid_only.initiate(&["--suite", "4"], b"x").end(), "clean");
    assert_eq!(hybrid_only.target.accepted(), 1);

    let folder = Folder::new();
    let key = folder.shared_key();
    let peer = Responder::start(&key, &["--suites", "2,3"]);
    let sender = Daemon::sender(&key, peer.address, &[]);
    for connections in 1..=2 {
        assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
        wait_until("the peer has refused", || peer.reports().len() >= connections);
    }
    for report in peer.reports() {
        assert!(report["suite"] == 4 || report["suite"] == 5, "not hybrid: {report}");
        assert_eq!(report["end"], "a suite that is not accepted");
    }
}

/// Nobody gets an answer to message 1 without the key, or with an invalid message.
#[test]
fn the_receiver_answers_no_hostile_message_1() {
    if !is_installed("a hostile message 1 of the independent peer") {
        return;
    }
    for suite in SUITES {
        let last = if suite < "4" { "--flip=1:56:0" } else { "--flip=1:1256:0" };
        let mut hostile = vec![
            ("--wrong-hint", "reason=wrong-key"),
            ("--low-order", "reason=degenerate-key"),
            // Another suite of the same length, the hint, the public key, the last tag.
            ("--flip=1:0:0", "reason=wrong-key"),
            ("--flip=1:8:7", "reason=wrong-key"),
            ("--flip=1:40:6", "reason=wrong-key"),
            (last, "reason=wrong-key"),
        ];
        if suite > "3" {
            hostile.push(("--flip=1:41:0", "reason=wrong-key"));
            // Both tags are right; the check of the key itself fails.
            hostile.push(("--bad-ek", "reason="));
        }
        for (fault, reason) in hostile {
            let stage = Stage::new(&[]);
            let initiated = stage.initiate(&["--suite", suite, fault], b"x");
            assert!(initiated.end().starts_with("no message 2: "), "suite {suite}, {fault}");
            assert!(initiated.report.get("connection_id").is_none());
            stage.receiver.log.wait_for(reason);
            stage.has_no_client_but_the_next();
        }
    }
}

/// The bytes of a message 1 that was answered are sent again by somebody without the key.
#[test]
fn the_receiver_answers_no_message_1_of_the_independent_peer_twice() {
    if !is_installed("a replay, with the independent peer") {
        return;
    }
    for suite in SUITES {
        let stage = Stage::new(&[]);
        let initiated = stage.initiate(&["--suite", suite], b"x");
        assert_eq!(initiated.end(), "clean");
        let text = initiated.report["message_1"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        let message_1: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
        let mut replay = stage.receiver.connect();
        assert_eq!(write_and_read_to_end(&mut replay, &message_1).0, b"");
        stage.receiver.log.wait_for("reason=replay");
        assert_eq!(stage.target.accepted(), 1);
    }
}

/// What comes after the handshake from a holder of the key who breaks the rules, and how
/// the connection ends for that holder.
#[test]
fn the_receiver_connects_to_no_target_for_a_wrong_first_record() {
    if !is_installed("a wrong first record of the independent peer") {
        return;
    }
    let too_long = format!("--extension=5:{}", "00".repeat(254));
    for (fault, end) in [
        // Authentic, and not understood: the other end is told.
        ("--first=77:", "abort 8"),
        ("--first=255:00", "abort 8"),
        ("--extension=128:", "abort 8"),
        ("--extension=255:6e616d65", "abort 8"),
        // Not authentic, or a violation: no answer.
        ("--flip=r0:0:0", ""),
        ("--flip=r0:1:7", ""),
        ("--flip=r0:2:0", ""),
        (&too_long, ""),
        // Of this version, in the wrong place.
        ("--first=3:41", ""),
        ("--first=4:", ""),
        ("--first=6:000178", ""),
        ("--first=1:05", ""),
        ("--first=1:050100ff", ""),
        ("--first=1:05000500", ""),
        ("--first=1:06000500", ""),
        ("--extension=1:", ""),
        ("--extension=1:0400", ""),
        ("--extension=1:0050", ""),
        ("--extension=2:00", ""),
    ] {
        for prepare in [&[][..], &["--prepare"]] {
            let stage = Stage::new(&["-o", "1"]);
            // Nothing is sent behind the record: unread bytes would reset the connection
            // before the answer could be read.
            let initiated = stage.initiate(&[&["--wait", fault], prepare].concat(), b"x");
            let ended = initiated.end();
            if end.is_empty() {
                // The receiver may be gone before OPEN follows an empty PADDED.
                let unanswered = ["no first record: ", "cannot write: "];
                assert!(unanswered.iter().any(|text| ended.starts_with(text)), "{fault}: {ended}");
            } else {
                assert!(ended.starts_with(end), "{fault}: {ended}");
            }
            assert_eq!(initiated.output, b"");
            stage.has_no_client_but_the_next();
        }
    }
}

/// The target of a stream that breaks the rules is reset, so that it never takes the
/// stream for whole.
#[test]
fn the_receiver_resets_its_target_when_the_independent_peer_breaks_the_rules() {
    if !is_installed("wrong records of the independent peer") {
        return;
    }
    for fault in [
        "--without-end",
        "--record=1:",
        "--record=2:",
        "--record=9:",
        "--record=77:",
        "--flip=r1:2:0",
    ] {
        let folder = Folder::new();
        let (reported, reports) = channel();
        let target =
            Server::start(move |mut stream| reported.send(read_to_end(&mut stream).1).unwrap());
        let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
        // After OPENED, there is a connection to the target.
        let more = ["--wait", fault];
        let initiated = initiate(&folder.shared_key(), receiver.address, &more, b"x");
        assert_ne!(initiated.end(), "clean", "{fault}");
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(End::Reset), "{fault}");
    }
}

/// The client gets a reset and no byte, whatever the other end does wrong.
#[test]
fn the_sender_resets_its_client_when_the_independent_peer_breaks_the_rules() {
    if !is_installed("hostile answers of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (fault, options) in [
        // The public key, its tag or the ciphertext of the KEM, the last tag.
        ("--flip=2:0:0", 0..4),
        ("--flip=2:40:0", 0..4),
        ("--low-order", 0..4),
        // Right tags around a ciphertext that gives another secret.
        ("--bad-ct", 2..4),
        ("--flip=2:1151:7", 2..4),
        ("--abort=4", 0..1),
        ("--abort=200", 0..1),
        ("--flip=r0:0:0", 0..1),
        ("--flip=r0:2:0", 0..1),
        ("--extension=128:", 0..1),
        ("--record=2:", 0..1),
        ("--record=1:", 0..1),
        ("--record=77:", 0..1),
        ("--record=3:", 0..1),
    ] {
        for (suite, options) in &OPTIONS[options] {
            let peer = Responder::start(&key, &[fault]);
            let sender = Daemon::sender(&key, peer.address, options);
            let mut client = sender.connect();
            assert_eq!(
                write_and_read_to_end(&mut client, b"x"),
                (vec![], End::Reset),
                "suite {suite}, {fault}"
            );
        }
    }
}

/// The stream of the other direction is cut after all its bytes, or one of them altered.
#[test]
fn the_sender_never_takes_a_cut_stream_of_the_independent_peer_for_whole() {
    if !is_installed("streams that the independent peer cuts") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (fault, bytes) in [("--without-end", "X"), ("--flip=r1:2:0", ""), ("--flip=r2:2:0", "X")] {
        let peer = Responder::start(&key, &[fault]);
        let sender = Daemon::sender(&key, peer.address, &[]);
        let mut client = sender.connect();
        client.write_all(b"x").unwrap();
        if !bytes.is_empty() {
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, bytes.as_bytes(), "{fault}");
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), (vec![], End::Reset), "{fault}");
    }
}

/// A receiver before a server that sends everything back.
struct Stage {
    folder: Folder,
    target: Server,
    receiver: Daemon,
}

impl Stage {
    fn new(options: &[&str]) -> Self {
        let folder = Folder::new();
        let target = Server::echo();
        let receiver = Daemon::receiver(&folder.shared_key(), target.address, options);
        Self { folder, target, receiver }
    }

    fn initiate(&self, more: &[&str], input: &[u8]) -> Initiated {
        initiate(&self.folder.shared_key(), self.receiver.address, more, input)
    }

    /// The receiver's log has the names of key and connection that the peer computed.
    fn logs_as_the_peer(&self, report: &Value) {
        let line = self.receiver.log.wait_for(report["connection_id"].as_str().unwrap());
        assert!(line.contains(report["key_id"].as_str().unwrap()), "{line}");
    }

    /// The target has had no connection yet, and the receiver still serves.
    fn has_no_client_but_the_next(&self) {
        assert_eq!(self.target.accepted(), 0, "a target was connected to");
        let next = self.initiate(&["--suite", "3"], b"still there?");
        assert_eq!((next.end(), &next.output[..]), ("clean", &b"still there?"[..]));
        assert_eq!(self.target.accepted(), 1);
    }
}
