//! An attacker on the wire between the two ends: whatever is flipped, cut, replayed,
//! swapped or reflected never reaches the target as a clean end, and the log says why.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, channel};

use spiped::protocol::{Kex, Suite};

use crate::support::hop::{Act, Hop, Tamper, Unit, Way};
use crate::support::{
    Daemon, End, Folder, PATIENCE, SUITE, Server, read_to_end, reset, wait_until,
};

/// Numbers of the sender's first units: 0 is message 1, 1 is OPEN, 2 is the first DATA.
const FIRST_DATA: usize = 2;

#[test]
fn untouched_everything_arrives_and_ends_cleanly() {
    let wire = Wire::with(|_| Box::new(|unit| vec![Act::Forward(unit.bytes)]));
    assert_eq!(wire.send(b"all of it"), End::Clean);
    assert_eq!(wire.seen(), (b"all of it".to_vec(), End::Clean));
}

/// Without care, urgent data would be left out of the stream, or delay it.
#[test]
fn bytes_that_are_made_urgent_on_the_wire_change_nothing() {
    let wire = Wire::with(|_| Box::new(|unit| vec![Act::Urge(unit.bytes)]));
    assert_eq!(wire.send(b"all of it"), End::Clean);
    assert_eq!(wire.seen(), (b"all of it".to_vec(), End::Clean));
}

/// The messages of both exchanges, and the bytes of each that are cut or altered: all of
/// the short ones.
fn handshakes() -> Vec<(Kex, Way, Vec<usize>)> {
    let some = |length: usize| (0..length).step_by(41).chain([length - 1]).collect();
    Kex::ALL
        .into_iter()
        .flat_map(|kex| {
            let suite = Suite { kex, ..SUITE };
            let bytes = |length: usize| match kex {
                Kex::X25519 => (0..length).collect(),
                Kex::X25519MlKem768 => some(length),
            };
            [
                (kex, Way::ToReceiver, bytes(suite.message_1())),
                (kex, Way::ToSender, bytes(suite.message_2())),
            ]
        })
        .collect()
}

#[test]
fn a_handshake_that_is_cut_at_any_byte_opens_nothing() {
    for (kex, way, bytes) in handshakes() {
        let at = bytes.clone();
        let wire = Wire::with_kex(kex, move |number| {
            let byte = at[number];
            on(way, 0, move |bytes| cut(bytes, byte))
        });
        for byte in bytes {
            assert_eq!(wire.send(b"x"), End::Reset, "{kex}, {way:?} at byte {byte}");
        }
        assert_eq!(wire.target.accepted(), 0);
    }
}

#[test]
fn a_handshake_that_is_altered_at_any_byte_opens_nothing() {
    for (kex, way, bytes) in handshakes() {
        let at = bytes.clone();
        let wire = Wire::with_kex(kex, move |number| {
            let byte = at[number];
            on(way, 0, move |bytes| flip(bytes, byte))
        });
        for byte in bytes {
            assert_eq!(wire.send(b"x"), End::Reset, "{kex}, {way:?} at byte {byte}");
        }
        assert_eq!(wire.target.accepted(), 0);
    }
}

/// A record with 3 bytes of data has 22: length, kind, data, tag.
#[test]
fn a_record_that_is_cut_at_any_byte_is_a_truncation() {
    let wire = Wire::with(|byte| on(Way::ToReceiver, FIRST_DATA, move |bytes| cut(bytes, byte)));
    for byte in 0..22 {
        assert_eq!(wire.send(b"abc"), End::Reset, "byte {byte}");
        assert_eq!(wire.seen(), (vec![], End::Reset), "byte {byte}");
    }
    wire.receiver.log.wait_for("reason=truncated");
    wire.sender.log.wait_for("reason=truncated");
}

#[test]
fn a_record_that_is_altered_at_any_byte_is_refused() {
    let wire = Wire::with(|byte| on(Way::ToReceiver, FIRST_DATA, move |bytes| flip(bytes, byte)));
    for byte in 0..22 {
        let mut client = wire.sender.connect();
        client.write_all(b"abc").unwrap();
        if byte < 2 {
            // The altered length claims 256 bytes more, or one more: the receiver waits
            // for these bytes until the client gives up.
            wait_until("the target is connected to", || wire.target.accepted() == byte + 1);
            reset(client);
        } else {
            assert_eq!(read_to_end(&mut client).1, End::Reset, "byte {byte}");
        }
        assert_eq!(wire.seen(), (vec![], End::Reset), "byte {byte}");
    }
    wire.receiver.log.wait_for("reason=wrong-record");
    wire.receiver.log.wait_for("hint=\"something between the two ends altered the stream\"");
}

/// The stream is whole and only its END is missing: that is still no clean end.
#[test]
fn a_stream_without_its_end_is_a_truncation() {
    let wire = Wire::with(|_| on(Way::ToReceiver, FIRST_DATA + 1, |_| vec![Act::End]));
    assert_eq!(wire.send(b"all of it"), End::Reset);
    assert_eq!(wire.seen(), (b"all of it".to_vec(), End::Reset));
}

#[test]
fn a_replayed_record_is_refused() {
    let wire = Wire::with(|_| {
        on(Way::ToReceiver, FIRST_DATA, |bytes| {
            vec![Act::Forward(bytes.clone()), Act::Forward(bytes)]
        })
    });
    assert_eq!(wire.send(b"once"), End::Reset);
    let (bytes, end) = wire.seen();
    assert!(end == End::Reset && b"once".starts_with(&bytes), "{bytes:?}, {end:?}");
}

#[test]
fn swapped_records_are_refused() {
    let wire = Wire::with(|_| {
        let mut held = Vec::new();
        Box::new(move |unit| match (unit.way, unit.number) {
            (Way::ToReceiver, FIRST_DATA) => {
                held = unit.bytes;
                vec![]
            }
            (Way::ToReceiver, number) if number == FIRST_DATA + 1 => {
                vec![Act::Forward(unit.bytes), Act::Forward(held.clone())]
            }
            _ => vec![Act::Forward(unit.bytes)],
        })
    });
    // The record after the data is END.
    assert_eq!(wire.send(b"first"), End::Reset);
    assert_eq!(wire.seen(), (vec![], End::Reset));
}

#[test]
fn a_reflected_record_is_refused() {
    let wire = Wire::with(|_| {
        on(Way::ToReceiver, FIRST_DATA, |bytes| {
            vec![Act::Reflect(bytes.clone()), Act::Forward(bytes)]
        })
    });
    // The stream goes on, so no END can arrive yet.
    let mut client = wire.sender.connect();
    client.write_all(b"mine").unwrap();
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    wire.sender.log.wait_for("reason=wrong-record");
    assert_eq!(wire.seen().1, End::Reset);
}

/// A connection that is recorded and replayed as a whole gets no answer. A process with
/// the same key that has not seen the connection answers with message 2. Neither connects
/// to the target.
#[test]
fn a_replayed_connection_reaches_no_target() {
    let folder = Folder::new();
    let (target, seen) = reading_target();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &["-o", "1"]);
    let hop = Hop::recording(receiver.address);
    let sender = Daemon::sender(&folder.shared_key(), hop.address, &[]);
    let mut client = sender.connect();
    client.write_all(b"pay 100").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).1, End::Clean);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (b"pay 100".to_vec(), End::Clean));

    let replay = |receiver: &Daemon| {
        let mut replay = receiver.connect();
        replay.write_all(&hop.recorded().0).unwrap();
        read_to_end(&mut replay)
    };
    assert_eq!(replay(&receiver), (vec![], End::Reset));
    let line = receiver.log.wait_for("reason=replay");
    assert!(line.contains("warn") && line.contains("hint=") && !line.contains("key_id="), "{line}");

    let other = Daemon::receiver(&folder.shared_key(), target.address, &["-o", "1"]);
    let (answer, end) = replay(&other);
    assert!(answer.len() <= SUITE.message_2() && end == End::Reset, "{answer:?}, {end:?}");
    other.log.wait_for("reason=wrong-first-record");
    assert_eq!(replay(&other), (vec![], End::Reset));
    assert_eq!(target.accepted(), 1);
}

/// When a whole stream of the other direction is altered, the client is told as well.
#[test]
fn the_client_never_takes_a_truncated_answer_for_a_whole_one() {
    let folder = Folder::new();
    let target = Server::start(|mut stream| {
        let _gone = stream.write_all(b"the whole answer");
        let _gone = stream.shutdown(Shutdown::Write);
        let _gone = read_to_end(&mut stream);
    });
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    // 0 is message 2, 1 is OPENED, 2 the answer, 3 END.
    let hop = Hop::tampering(receiver.address, |_| on(Way::ToSender, 3, |_| vec![Act::End]));
    let sender = Daemon::sender(&folder.shared_key(), hop.address, &[]);
    let (bytes, end) = read_to_end(&mut sender.connect());
    assert_eq!((bytes.as_slice(), end), (b"the whole answer".as_slice(), End::Reset));
}

/// A sender and a receiver with a tampering hop between them, and a target that only
/// reads.
struct Wire {
    _folder: Folder,
    receiver: Daemon,
    sender: Daemon,
    target: Server,
    seen: Receiver<Seen>,
}

/// What a target saw of one connection: all bytes, and how it ended.
type Seen = (Vec<u8>, End);

fn reading_target() -> (Server, Receiver<Seen>) {
    let (sender, seen) = channel();
    let server = Server::start(move |mut stream| {
        let _nobody_asks = sender.send(read_to_end(&mut stream));
    });
    (server, seen)
}

impl Wire {
    /// `tamper` is called with the number of every connection.
    fn with(tamper: impl Fn(usize) -> Tamper + Send + 'static) -> Self {
        Self::with_kex(Kex::X25519MlKem768, tamper)
    }

    fn with_kex(kex: Kex, tamper: impl Fn(usize) -> Tamper + Send + 'static) -> Self {
        let folder = Folder::new();
        let key = folder.shared_key();
        let (target, seen) = reading_target();
        let receiver = Daemon::receiver(&key, target.address, &[]);
        let hop = Hop::tampering(receiver.address, tamper);
        let sender = Daemon::sender(&key, hop.address, &["--kex", &kex.to_string()]);
        Self { _folder: folder, receiver, sender, target, seen }
    }

    /// Sends bytes and the end of the stream; returns how the client's connection ended.
    fn send(&self, bytes: &[u8]) -> End {
        let mut client = self.sender.connect();
        match client.write_all(bytes) {
            // A write that reports a reset takes the error away from the read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
            result => result.unwrap(),
        }
        let _reset = client.shutdown(Shutdown::Write);
        read_to_end(&mut client).1
    }

    /// What the target received on the next connection.
    fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

/// Forwards everything except one unit of one direction.
fn on(way: Way, number: usize, act: impl Fn(Vec<u8>) -> Vec<Act> + Send + 'static) -> Tamper {
    Box::new(move |unit: Unit| {
        if (unit.way, unit.number) == (way, number) {
            act(unit.bytes)
        } else {
            vec![Act::Forward(unit.bytes)]
        }
    })
}

fn cut(mut bytes: Vec<u8>, at: usize) -> Vec<Act> {
    bytes.truncate(at);
    vec![Act::Forward(bytes), Act::End]
}

fn flip(mut bytes: Vec<u8>, at: usize) -> Vec<Act> {
    bytes[at] ^= 1;
    vec![Act::Forward(bytes)]
}
