//! The vectors of `tests/vectors/carrier.json`, and the table of frames in the manual.

use serde_json::Value;

use super::*;
use crate::protocol::extensions::Client;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/carrier.json")).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// A side says a frame of the vectors, in `batch`. Returns whether it is an event for the
/// other side.
fn say(carrier: &mut Carrier, told: &Value, batch: &mut Batch<'_>) -> bool {
    let payload = unhex(&told["payload"]);
    let number = u32::try_from(told["stream"].as_u64().unwrap_or(0)).unwrap();
    let stream = || id(number);
    match told["type"].as_str().unwrap() {
        "OPEN" if payload.is_empty() => {
            assert_eq!(carrier.open(Extensions::default()), Ok(stream()));
        }
        "OPEN" => {
            let client = Some(Client::Ip("192.0.2.7:50000".parse().unwrap()));
            assert_eq!(carrier.open(Extensions { client }), Ok(stream()));
        }
        "OPENED" => carrier.opened(stream()),
        "DATA" => {
            let read = |place: &mut [u8]| {
                place[..payload.len()].copy_from_slice(&payload);
                Ok::<_, Infallible>(payload.len())
            };
            let sent = carrier.data(stream(), payload.len(), batch, read);
            assert_eq!(sent, Ok(Sent::Bytes(payload.len())));
        }
        "END" => carrier.end(stream()),
        "DONE" => carrier.done(stream()),
        "ABORT" => assert!(carrier.abort(stream(), AbortReason::from_byte(payload[0]))),
        // The local socket took nothing: a responder may have more room than it had promised.
        "CREDIT" => assert!(batch.push(FrameType::Credit, Some(stream()), &payload)),
        // An initiator says MOVED by itself.
        "MOVED" if carrier.side == Side::Initiator => {}
        "MOVED" => assert!(carrier.accept_join(stream())),
        "GOAWAY" => carrier.go_away(AbortReason::from_byte(payload[0])),
        "PAD" => return false,
        other => panic!("{other}"),
    }
    assert!(carrier.write_due(batch));
    true
}

/// Each side makes its records of the vectors, and takes those of the other.
#[test]
fn a_carrier_says_and_understands_the_frames_of_the_vectors() {
    let mut i = Carrier::new(Side::Initiator, 1024);
    let mut r = Carrier::new(Side::Responder, 1024);
    let vectors = vectors();
    let mut seen = Vec::new();
    for told in vectors["records"].as_array().unwrap() {
        if told["name"] == "JOIN" {
            i.join(id(3));
        }
        let Some(frames) = told["frames"].as_array() else { continue };
        let (from, to) =
            if told["from"] == "initiator" { (&mut i, &mut r) } else { (&mut r, &mut i) };
        let mut room = record(FRAMES_MAX);
        let mut batch = Batch::new(&mut room, 0);
        let count = frames.iter().filter(|frame| say(from, frame, &mut batch)).count();
        let filled = batch.filled();
        let plaintext = unhex(&told["plaintext"]);
        let (held, pad) = plaintext[1..].split_at(filled);
        assert_eq!((plaintext[0], &room[PREFIX..PREFIX + filled]), (9, held));
        assert!(pad.iter().all(|byte| *byte == 0), "{pad:?}");
        assert_eq!(events(to, &plaintext[1..]).map(|events| events.len()), Ok(count));
        seen.extend(frames.iter().map(|frame| frame["type"].as_str().unwrap()));
    }
    assert_eq!((i.streams(), r.streams()), (0, 0));
    for kind in TYPES {
        assert!(seen.contains(&kind), "{kind}");
    }
}

/// The names of the types, by their bytes.
const TYPES: [&str; 10] =
    ["PAD", "OPEN", "OPENED", "DATA", "END", "ABORT", "CREDIT", "MOVED", "GOAWAY", "DONE"];

/// Another implementation has nothing but this page.
#[test]
fn the_page_of_the_protocol_has_every_type_of_a_frame() {
    let page = include_str!("../../../../man/spiped-protocol.7");
    let (_, table) = page.split_once(".It Sy type Ta Sy name Ta Sy from").unwrap();
    let table = table.split("\n.El").next().unwrap();
    let listed: Vec<_> = table.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    let known = (0..=u8::MAX).filter(|kind| {
        let mut at = 0;
        // A header, whatever it names.
        frame::read(&[*kind, 0, 0, 0, 0, 0, 0], &mut at) != Err(Violation::Type)
    });
    assert_eq!(known.count(), TYPES.len());
    assert_eq!(listed.len(), TYPES.len());
    for ((kind, name), line) in TYPES.iter().enumerate().zip(listed) {
        assert!(line.starts_with(&format!("{kind} Ta {name} Ta ")), "{line}");
    }
}
