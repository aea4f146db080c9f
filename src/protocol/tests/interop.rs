//! Against `snow`, an independent implementation of Noise, in both roles.

use super::*;
use snow::TransportState;

/// The role of spiped's end; snow has the other.
#[derive(Clone, Copy, PartialEq)]
enum Ours {
    Initiates,
    Responds,
}

/// Snow's end of a handshake whose message 1 has this hint.
fn snow_builder<'k>(suite: Suite, key: &'k SharedKey, prologue: &'k [u8]) -> snow::Builder<'k> {
    snow::Builder::new(suite.noise_name().parse().unwrap())
        .prologue(prologue)
        .unwrap()
        .psk(0, key.psk())
        .unwrap()
}

fn prologue(suite: Suite, hint: &[u8]) -> Vec<u8> {
    [b"spiped-2".as_slice(), &[suite.byte()], hint].concat()
}

/// The sessions of both ends, spiped's in the given role.
fn with_snow(suite: Suite, role: Ours, interval: u64) -> (Session, TransportState) {
    let key = key(1);
    let mut buffer = [0; 100];
    if role == Ours::Initiates {
        let (initiator, message_1) = Initiator::start(suite, &key, &mut SysRng).unwrap();
        assert_eq!(message_1[0], suite.byte());
        let (hint, message) = message_1[1..].split_at(8);
        let prologue = prologue(suite, hint);
        let mut snow = snow_builder(suite, &key, &prologue).build_responder().unwrap();
        assert_eq!(snow.read_message(message, &mut buffer).unwrap(), 0);
        let mut reply = vec![0; suite.message_2()];
        assert_eq!(snow.write_message(&[], &mut reply).unwrap(), reply.len());
        let session = initiator.finish_rekeying_every(interval, &reply).unwrap();
        (session, snow.into_transport_mode().unwrap())
    } else {
        // Snow makes its key in the midst of the message, and the hint stands before.
        let e = x25519_dalek::StaticSecret::from([5; 32]);
        let hint = key.hint(suite, x25519_dalek::PublicKey::from(&e).as_bytes());
        let prologue = prologue(suite, &hint);
        let builder = snow_builder(suite, &key, &prologue);
        let e = e.to_bytes();
        let mut snow = builder.fixed_ephemeral_key_for_testing_only(&e).build_initiator().unwrap();
        let mut message = vec![0; suite.message_1() - 9];
        assert_eq!(snow.write_message(&[], &mut message).unwrap(), message.len());
        let message_1 = [&[suite.byte()], &hint[..], &message].concat();
        let wrong_key_first = [&self::key(2), &key];
        let greeting = Greeting::read(&message_1, wrong_key_first, Accepted::default()).unwrap();
        let responder = greeting.answer_rekeying_every(interval, &mut SysRng).unwrap();
        assert_eq!(responder.key_id, key.id());
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
        let record = ours.sealer.seal_open(Extensions::default()).unwrap();
        assert_eq!(snow_open(&mut snow, interval, &record), [1]);
        let mut record = snow_seal(&mut snow, interval, 2, &[]);
        assert_eq!(ours.opener.open(&mut record), Ok(OPENED));
    } else {
        let mut record = snow_seal(&mut snow, interval, 1, &[]);
        assert_eq!(ours.opener.open(&mut record), Ok(OPEN));
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
    for suite in Suite::ALL.into_iter().filter(|suite| suite.kex == Kex::X25519) {
        for role in [Ours::Initiates, Ours::Responds] {
            talk(suite, role, 7, 1000);
        }
    }
}

/// The interval that is in force, crossed once: 2^20 records and a few.
#[test]
fn the_real_rekey_interval_against_snow() {
    let interval = 1 << 20;
    let (mut ours, mut snow) = with_snow(GCM, Ours::Initiates, interval);
    assert_eq!(interval, transport::REKEY_INTERVAL);
    let record = ours.sealer.seal_open(Extensions::default()).unwrap();
    assert_eq!(snow_open(&mut snow, interval, &record), [1]);
    for i in 1..interval + 3 {
        let record = data(&mut ours.sealer, b"x");
        assert_eq!(snow_open(&mut snow, interval, &record), b"\x03x", "record {i}");
    }
}

/// Computed with Python's hmac and hashlib, from the text of the protocol.
#[test]
fn key_derivation_gives_the_documented_bytes() {
    let file: Vec<u8> = (0..32).collect();
    let key = SharedKey::from_key_file(&file, Box::new([0; KEY_SECRETS])).unwrap();
    assert_eq!(key.id().to_string(), "2d1c-ac55-32f2-0f3c");
    assert_eq!(hex(key.psk()), "c44c8114ddccafb67a686e96cf5d01b5538e9d60b3795f73296b072683589e8d");
}

fn hex(bytes: &[u8; 32]) -> String {
    let (high, low) = bytes.split_at(16);
    let number = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
    format!("{:032x}{:032x}", number(high), number(low))
}
