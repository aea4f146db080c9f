//! Against `snow`, an independent implementation of Noise, in both roles.

use super::*;
use snow::{HandshakeState, TransportState};

/// The role of spiped's end; snow has the other.
#[derive(Clone, Copy, PartialEq)]
enum Ours {
    Initiates,
    Responds,
}

fn snow_handshake(suite: Suite, role: Ours) -> HandshakeState {
    let key = key(1);
    let prologue = [b"spiped-2".as_slice(), &[suite.byte()]].concat();
    let builder = snow::Builder::new(suite.noise_name().parse().unwrap())
        .prologue(&prologue)
        .unwrap()
        .psk(0, key.psk())
        .unwrap();
    match role {
        Ours::Initiates => builder.build_responder().unwrap(),
        Ours::Responds => builder.build_initiator().unwrap(),
    }
}

/// The sessions of both ends, spiped's in the given role.
fn with_snow(suite: Suite, role: Ours, interval: u64) -> (Session, TransportState) {
    let mut snow = snow_handshake(suite, role);
    let mut buffer = [0; 100];
    if role == Ours::Initiates {
        let (initiator, message_1) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
        assert_eq!(message_1[0], suite.byte());
        assert_eq!(snow.read_message(&message_1[1..], &mut buffer).unwrap(), 0);
        let mut reply = [0; MESSAGE_2];
        assert_eq!(snow.write_message(&[], &mut reply).unwrap(), MESSAGE_2);
        let session = initiator.finish_rekeying_every(interval, &reply).unwrap();
        (session, snow.into_transport_mode().unwrap())
    } else {
        let mut message_1 = [suite.byte(); MESSAGE_1];
        assert_eq!(snow.write_message(&[], &mut message_1[1..]).unwrap(), MESSAGE_1 - 1);
        let wrong_key_first = [&key(2), &key(1)];
        let greeting = Greeting::read(&message_1, wrong_key_first, None).unwrap();
        let responder = greeting.answer_rekeying_every(interval, &mut SysRng).unwrap();
        assert_eq!(responder.key_id, key(1).id());
        assert_eq!(snow.read_message(&responder.reply, &mut buffer).unwrap(), 0);
        (responder.session, snow.into_transport_mode().unwrap())
    }
}

/// Has snow seal a record of this kind and body, with the protocol's `Rekey()`.
fn snow_seal(snow: &mut TransportState, interval: u64, kind: u8, body: &[u8]) -> Vec<u8> {
    let n = snow.sending_nonce();
    if n > 0 && n.is_multiple_of(interval) {
        snow.rekey_outgoing();
    }
    let plain = [&[kind], body].concat();
    let mut record = vec![0; 2 + plain.len() + 16];
    let length = snow.write_message(&plain, &mut record[2..]).unwrap();
    record[..2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    record
}

/// Has snow open a record of spiped's: its kind and body.
fn snow_open(snow: &mut TransportState, interval: u64, record: &[u8]) -> Vec<u8> {
    let n = snow.receiving_nonce();
    if n > 0 && n.is_multiple_of(interval) {
        snow.rekey_incoming();
    }
    let length = usize::from(u16::from_be_bytes([record[0], record[1]]));
    assert_eq!(length, record.len() - 2);
    let mut plain = vec![0; length];
    let length = snow.read_message(&record[2..], &mut plain).unwrap();
    plain.truncate(length);
    plain
}

/// OPEN, OPENED, `count` records each way, END each way.
fn talk(suite: Suite, role: Ours, interval: u64, count: usize) {
    let (mut ours, mut snow) = with_snow(suite, role, interval);
    if role == Ours::Initiates {
        let record = ours.sealer.seal_open().unwrap();
        assert_eq!(snow_open(&mut snow, interval, &record), [1]);
        let mut record = snow_seal(&mut snow, interval, 2, &[]);
        assert_eq!(ours.opener.open(&mut record), Ok(Record::Opened));
    } else {
        let mut record = snow_seal(&mut snow, interval, 1, &[]);
        assert_eq!(ours.opener.open(&mut record), Ok(Record::Open));
        let record = ours.sealer.seal_opened().unwrap();
        assert_eq!(snow_open(&mut snow, interval, &record), [2]);
    }
    for i in 0..count {
        let body = vec![u8::try_from(i % 256).unwrap(); i % 999 + 1];
        let record = data(&mut ours.sealer, &body);
        assert_eq!(snow_open(&mut snow, interval, &record), [&[3], body.as_slice()].concat());
        let record = snow_seal(&mut snow, interval, 3, &body);
        assert_eq!(open(&mut ours.opener, &record).unwrap(), body);
    }
    let record = ours.sealer.seal_end().unwrap();
    assert_eq!(snow_open(&mut snow, interval, &record), [4]);
    let mut record = snow_seal(&mut snow, interval, 4, &[]);
    assert_eq!(ours.opener.open(&mut record), Ok(Record::End));
    let record = ours.sealer.seal_done().unwrap();
    assert_eq!(snow_open(&mut snow, interval, &record), [11]);
    let mut record = snow_seal(&mut snow, interval, 11, &[]);
    assert_eq!(ours.opener.open(&mut record), Ok(Record::Done));
}

#[test]
fn a_thousand_records_with_rekeys_against_snow_in_both_roles() {
    for suite in Suite::ALL {
        for role in [Ours::Initiates, Ours::Responds] {
            talk(suite, role, 7, 1000);
        }
    }
}

/// The interval that is in force, crossed once: 2^20 records and a few.
#[test]
fn the_real_rekey_interval_against_snow() {
    let interval = 1 << 20;
    let (mut ours, mut snow) = with_snow(Suite::Aes256Gcm, Ours::Initiates, interval);
    assert_eq!(interval, transport::REKEY_INTERVAL);
    let record = ours.sealer.seal_open().unwrap();
    assert_eq!(snow_open(&mut snow, interval, &record), [1]);
    for i in 1..interval + 3 {
        let record = data(&mut ours.sealer, b"x");
        assert_eq!(snow_open(&mut snow, interval, &record), b"\x03x", "record {i}");
    }
}

#[test]
fn a_suite_that_is_not_accepted_is_refused() {
    let (_, message_1) = Initiator::start(Suite::Aes256Gcm, &key(1), &mut SysRng).unwrap();
    let only = Some(Suite::ChaCha20Poly1305);
    let refused = Responder::accept(&message_1, [&key(1)], only, &mut SysRng).err();
    assert_eq!(refused, Some(HandshakeError::SuiteRefused(Suite::Aes256Gcm)));
}

/// Computed with Python's hmac and hashlib, from the text of the protocol.
#[test]
fn key_derivation_gives_the_documented_bytes() {
    let file: Vec<u8> = (0..32).collect();
    let key = SharedKey::from_key_file(&file, Box::new([0; 32])).unwrap();
    assert_eq!(key.id().to_string(), "2d1c-ac55-32f2-0f3c");
    assert_eq!(hex(key.psk()), "c44c8114ddccafb67a686e96cf5d01b5538e9d60b3795f73296b072683589e8d");
}

fn hex(bytes: &[u8; 32]) -> String {
    let (high, low) = bytes.split_at(16);
    let number = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
    format!("{:032x}{:032x}", number(high), number(low))
}
