//! The records that make a carrier of a session, and that join one to a stream.

use super::*;
use crate::protocol::carrier::{CarrierSecret, StreamId};
use crate::protocol::testing::{To, one_direction};

/// What a session begins with, and what it is then.
fn carrying() -> (Session, Session) {
    let (mut a, mut b) = sessions(GCM);
    let mut carry = a.sealer.seal_carry().unwrap();
    a.opener.await_carried();
    assert_eq!(b.opener.open(&mut carry), Ok(Record::Carry(Extensions::default())));
    let secret = CarrierSecret::new(&[7; 32]);
    let mut carried = b.sealer.seal_carried(1000, &secret).unwrap();
    assert_eq!(a.opener.open(&mut carried), Ok(Record::Carried(1000, secret)));
    (a, b)
}

/// FRAMES around `frames`.
fn frames(sealer: &mut Sealer, frames: &[u8]) -> Vec<u8> {
    let mut record = [&[0; PREFIX], frames, &[0; SUFFIX]].concat();
    sealer.seal_frames(&mut record).unwrap();
    record
}

fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

#[test]
fn c1_a_session_becomes_a_carrier_by_carry_and_carried() {
    let (mut a, mut b) = carrying();
    for length in [0, 1, FRAMES_MAX] {
        let mut record = frames(&mut a.sealer, &vec![5; length]);
        let range = PREFIX..PREFIX + length;
        assert_eq!(b.opener.open(&mut record), Ok(Record::Frames(range.clone())));
        assert_eq!(record[range.clone()], vec![5; length]);
        let mut record = frames(&mut b.sealer, &vec![6; length]);
        assert_eq!(a.opener.open(&mut record), Ok(Record::Frames(range)));
    }
}

#[test]
fn c1_a_session_may_be_made_ready_before_it_becomes_a_carrier() {
    let (mut a, mut b) = sessions(GCM);
    b.opener.open(&mut a.sealer.seal_ready().unwrap()).unwrap();
    let mut carry = a.sealer.seal_carry().unwrap();
    assert_eq!(b.opener.open(&mut carry), Ok(Record::Carry(Extensions::default())));
}

#[test]
fn c1_carried_allows_a_stream_or_more_and_comes_only_after_carry() {
    let carried = |streams: u32, rest: &[u8]| [&[8], &streams.to_be_bytes()[..], rest].concat();
    let long = [&[9; 32][..], &[3, 253], &[0; 253]].concat();
    for (plaintext, opens) in [
        (carried(1, &[9; 32]), true),
        (carried(u32::MAX, &[&[9; 32][..], &[3, 1, 1]].concat()), true),
        (carried(1, &long), true),
        (carried(0, &[9; 32]), false),
        (carried(1, &[9; 31]), false),
        (carried(1, &[9; 33]), false),
        (vec![8], false),
        (vec![2], false),
        (vec![9], false),
    ] {
        let (mut a, mut b) = sessions(GCM);
        let mut record = b.sealer.seal_raw(&plaintext);
        a.opener.await_carried();
        assert_eq!(a.opener.open(&mut record).is_ok(), opens, "{plaintext:?}");
    }
    let (mut a, mut b) = sessions(GCM);
    let mut record = b.sealer.seal_raw(&carried(1, &[9; 32]));
    assert_eq!(a.opener.open(&mut record), Err(OpenError::Violation));
}

#[test]
fn c2_a_responder_may_abort_in_the_place_of_carried() {
    let (mut a, mut b) = sessions(GCM);
    a.opener.await_carried();
    let mut record = b.sealer.seal_abort(AbortReason::NotAvailable).unwrap();
    assert_eq!(a.opener.open(&mut record), Ok(Record::Abort(AbortReason::NotAvailable)));
}

#[test]
fn r3_on_a_carrier_there_are_frames_and_abort_alone() {
    for kind in (0..=255).filter(|kind| *kind != 9) {
        let (mut a, mut b) = carrying();
        let mut record = a.sealer.seal_raw(&[kind, 0]);
        let opened = b.opener.open(&mut record);
        let expected = if kind == 5 {
            Ok(Record::Abort(AbortReason::Other(0)))
        } else {
            Err(OpenError::Violation)
        };
        assert_eq!(opened, expected, "{kind}");
    }
}

#[test]
fn r3_frames_have_at_most_16384_bytes() {
    let (mut a, mut b) = carrying();
    let mut record = vec![0; OVERHEAD + FRAMES_MAX + 1];
    assert_eq!(a.sealer.seal_frames(&mut record), Err(SealError::Size));
    let mut record = a.sealer.seal_raw(&vec![9; 1 + FRAMES_MAX + 1]);
    assert_eq!(b.opener.record_length(&record), Err(OpenError::Length));
    assert_eq!(b.opener.open(&mut record), Err(OpenError::Failed));
}

#[test]
fn c10_join_names_the_carrier_and_the_stream_and_proves_its_session() {
    let secret = CarrierSecret::new(&[7; 32]);
    let (mut a, mut b) = sessions(GCM);
    assert_eq!(a.hash, b.hash);
    let carrier = a.connection_id;
    let join = Join { carrier, stream: id(7), proof: secret.proof(&a.hash, id(7)) };
    let mut record = a.sealer.seal_join(&join).unwrap();
    assert!(record.len() <= FIRST_RECORD_MAX);
    let Ok(Record::Join(came)) = b.opener.open(&mut record) else { panic!("JOIN expected") };
    assert_eq!((came.carrier, came.stream), (carrier, id(7)));
    assert_eq!(came.proof, secret.proof(&b.hash, came.stream));
    // Then it is a session as any.
    assert_eq!(open(&mut b.opener, &data(&mut a.sealer, b"more")).unwrap(), b"more");
    let mut opened = b.sealer.seal_opened().unwrap();
    assert_eq!(a.opener.open(&mut opened), Ok(OPENED));
}

#[test]
fn c10_join_has_28_bytes_and_a_stream() {
    let body = |stream: u32| [&[1; 8][..], &stream.to_be_bytes(), &[2; 16]].concat();
    for (body, opens) in [
        (body(1), true),
        (body(0), false),
        (body(1)[..27].to_vec(), false),
        ([&body(1)[..], &[0]].concat(), false),
    ] {
        let (mut a, mut b) = sessions(GCM);
        let mut record = a.sealer.seal_raw(&[&[10], &body[..]].concat());
        assert_eq!(b.opener.open(&mut record).is_ok(), opens, "{body:?}");
    }
}

/// C10, by another implementation of HKDF, written out.
#[test]
fn c10_the_proof_is_the_one_that_the_manual_describes() {
    let hash = HandshakeHash::new([2; 32]);
    let proof = CarrierSecret::new(&[1; 32]).proof(&hash, id(0x0102_0304));
    let join = Join { carrier: ConnectionId::of(&hash), stream: id(0x0102_0304), proof };
    let (mut a, mut b) = sessions(GCM);
    let mut record = a.sealer.seal_join(&join).unwrap();
    b.opener.open(&mut record).unwrap();
    let hmac = |key: &[u8], data: &[u8]| {
        let pad = |with: u8| {
            let mut block = [with; 64];
            for (place, byte) in block.iter_mut().zip(key) {
                *place ^= byte;
            }
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize()
    };
    let prk = hmac(&[1; 32], &[2; 32]);
    let expected = hmac(&prk, b"join\x01\x02\x03\x04\x01");
    assert_eq!(record[PREFIX + 12..PREFIX + 28], expected[..16]);
}

/// The records around the frames, as `tests/vectors/carrier.json` has them.
#[test]
fn c1_and_c10_the_records_are_those_of_the_vectors() {
    let vectors = include_str!("../../../tests/vectors/carrier.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let bytes = |text: &serde_json::Value| {
        let digits = text.as_str().unwrap().replace('-', "");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>()
    };
    let of = |field: &str| bytes(&vectors[field]);
    let plaintext = |name: &str| {
        let mut records = vectors["records"].as_array().unwrap().iter();
        bytes(&records.find(|record| record["name"] == name).unwrap()["plaintext"])
    };
    let secret = || CarrierSecret::new(&of("secret").try_into().unwrap());
    let hash = HandshakeHash::new(of("handshake_hash").try_into().unwrap());
    let stream = id(vectors["stream"].as_u64().unwrap().try_into().unwrap());
    let join = Join {
        carrier: ConnectionId(of("connection_id").try_into().unwrap()),
        stream,
        proof: secret().proof(&hash, stream),
    };
    assert_eq!(join.proof.0[..], of("proof"));

    // A record as this version seals it is the vector's, and opens.
    let direction = |to| one_direction(GCM, [1; 32], to, 1 << 20);
    let of_vector = |name, to| direction(to).0.seal_raw(&plaintext(name));
    let (mut sealer, mut opener) = direction(To::Responder);
    let mut record = sealer.seal_carry().unwrap();
    assert_eq!(record, of_vector("CARRY", To::Responder));
    assert_eq!(opener.open(&mut record), Ok(Record::Carry(Extensions::default())));
    let (mut sealer, mut opener) = direction(To::Initiator);
    opener.await_carried();
    let mut record = sealer.seal_carried(1024, &secret()).unwrap();
    assert_eq!(record[..], of_vector("CARRIED", To::Initiator));
    assert_eq!(opener.open(&mut record), Ok(Record::Carried(1024, secret())));
    let (mut sealer, mut opener) = direction(To::Responder);
    let mut record = sealer.seal_join(&join).unwrap();
    assert_eq!(record[..], of_vector("JOIN", To::Responder));
    assert_eq!(opener.open(&mut record), Ok(Record::Join(join)));
}
