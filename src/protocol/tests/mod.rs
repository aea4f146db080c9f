//! Tests of the protocol: both ends of spiped's own, and an end of another implementation.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail that way"
)]

mod carriers;
mod hostile;
mod hostile_handshake;
mod interop;
mod keys;
mod records;
mod vectors;

use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use super::testing::{GCM, OPEN, OPENED, keyed_message};
use super::*;

/// The default of senders.
const HYBRID: Suite = Suite { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm };

/// A key of one repeated byte.
fn key(byte: u8) -> SharedKey {
    SharedKey::from_key_file(&[byte; 32], Box::new([0; KEY_SECRETS])).unwrap()
}

/// Two sessions of one handshake: the initiator's and the responder's.
fn sessions(suite: Suite) -> (Session, Session) {
    let (initiator, message_1) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
    let responder =
        Responder::accept(&message_1, [&key(1)], Accepted::default(), &mut SysRng).unwrap();
    let session = initiator.finish(&responder.reply).unwrap();
    (session, responder.session)
}

/// Two sessions that stream: OPEN and OPENED are done.
fn streaming(suite: Suite) -> (Session, Session) {
    let (mut a, mut b) = sessions(suite);
    let mut open = a.sealer.seal_open(Extensions::default()).unwrap();
    assert_eq!(b.opener.open(&mut open), Ok(OPEN));
    let mut opened = b.sealer.seal_opened().unwrap();
    assert_eq!(a.opener.open(&mut opened), Ok(OPENED));
    (a, b)
}

/// A DATA record around `data`.
fn data(sealer: &mut Sealer, data: &[u8]) -> Vec<u8> {
    let mut record = [&[0; PREFIX], data, &[0; SUFFIX]].concat();
    sealer.seal_data(&mut record).unwrap();
    record
}

/// Opens a record, and returns its data.
fn open(opener: &mut Opener, record: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut record = record.to_vec();
    match opener.open(&mut record)? {
        Record::Data(range) => Ok(record[range].to_vec()),
        other => panic!("data expected, not {other:?}"),
    }
}
