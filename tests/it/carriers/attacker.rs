//! An attacker on the wire of a carrier: whatever is flipped, cut, replayed, swapped or
//! reflected, no client and no server takes a part of a stream for the whole.

use super::*;

/// Unit 0 is the handshake's, 1 is CARRY or CARRIED.
const FIRST_FRAMES: usize = 2;

/// What happens to a unit of the carrier.
type Alter = fn(Vec<u8>, &mut Option<Vec<u8>>) -> Vec<Act>;

const ATTACKS: [(&str, Alter); 6] = [
    ("flipped", |mut bytes, _| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        vec![Act::Forward(bytes)]
    }),
    ("cut", |mut bytes, _| {
        bytes.truncate(bytes.len() / 2);
        vec![Act::Forward(bytes), Act::End]
    }),
    ("ended", |_, _| vec![Act::End]),
    ("replayed", |bytes, _| vec![Act::Forward(bytes.clone()), Act::Forward(bytes)]),
    ("left out, and the next one sent", |_, _| vec![]),
    ("reflected", |bytes, _| vec![Act::Reflect(bytes)]),
];

/// A client sends so many times this.
const PART: usize = 2000;

#[test]
fn nothing_of_a_stream_is_taken_for_whole() {
    for (what, alter) in ATTACKS {
        for way in [Way::ToReceiver, Way::ToSender] {
            for at in [0, 1, 3] {
                streams_are_reset((what, alter), way, FIRST_FRAMES + at);
            }
        }
    }
}

fn streams_are_reset((what, alter): (&str, Alter), way: Way, at: usize) {
    let line = Line::tampered(Server::echo().address, move |number| {
        let mut held = None;
        Box::new(move |unit: Unit| {
            if (number, unit.way, unit.number) == (0, way, at) {
                alter(unit.bytes, &mut held)
            } else {
                vec![Act::Forward(unit.bytes)]
            }
        })
    });
    let mut clients: Vec<_> = (0..3).map(|_| line.connect()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        let sent = noise(number, PART * 20);
        let mut got = Vec::new();
        let mut has_failed = false;
        // Turn by turn, so that the carrier has more than one record.
        for part in sent.chunks(PART) {
            let mut back = vec![0; part.len()];
            if client.write_all(part).is_err() || client.read_exact(&mut back).is_err() {
                has_failed = true;
                break;
            }
            got.extend(back);
        }
        assert!(has_failed, "{what}, {way:?}, unit {at}: nothing was noticed");
        assert!(sent.starts_with(&got), "{what}, {way:?}, unit {at}");
    }
    for daemon in [&line.sender, &line.receiver] {
        wait_until("the carrier has ended", || daemon.log.count("carrier ended") > 0);
        assert_eq!(
            daemon.log.count(" info closed reason=finished"),
            0,
            "{what}, {way:?}, unit {at}"
        );
    }
    // The next carrier, or a session of its own.
    round_trip(&mut line.connect(), b"as before");
}
