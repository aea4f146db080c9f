//! The vectors of `tests/vectors/noise.json`, which an independent implementation made.

use std::convert::Infallible;

use rand::{TryCryptoRng, TryRng};
use serde_json::Value;

use super::*;

/// Randomness that is known beforehand.
struct Known(Vec<u8>);

impl TryRng for Known {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl TryCryptoRng for Known {}

/// A vector: each field by its name.
struct Vector(Value);

impl Vector {
    fn all() -> Vec<Self> {
        let file = include_str!("../../../tests/vectors/noise.json");
        let all: Vec<Value> = serde_json::from_str(file).unwrap();
        assert_eq!(all.len(), Suite::ALL.len());
        all.into_iter().map(Self).collect()
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap()
    }

    fn bytes(&self, field: &str) -> Vec<u8> {
        unhex(self.text(field))
    }

    fn suite(&self) -> Suite {
        Suite::from_byte(self.0["suite"].as_u64().unwrap().try_into().unwrap()).unwrap()
    }

    fn key(&self) -> SharedKey {
        SharedKey::from_key_file(&self.bytes("key_file"), Box::new([0; KEY_SECRETS])).unwrap()
    }

    fn interval(&self) -> u64 {
        self.0["rekey_every"].as_u64().unwrap()
    }

    /// The initiator of the vector, and its message 1.
    fn initiator(&self) -> (Initiator, Vec<u8>) {
        let random =
            [self.bytes("initiator_x25519_private"), self.bytes("ml_kem_768_d_z")].concat();
        Initiator::start_known(self.suite(), &self.key(), &mut Known(random))
    }

    fn greeting(&self) -> Greeting {
        Greeting::read(&self.bytes("message_1"), [&self.key()], Accepted::default()).unwrap()
    }

    /// The session of the vector's initiator.
    fn session(&self) -> Session {
        let (initiator, _) = self.initiator();
        initiator.finish_rekeying_every(self.interval(), &self.bytes("message_2")).unwrap()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn names_keys_and_hints_are_those_of_the_vectors() {
    for vector in Vector::all() {
        let (suite, key) = (vector.suite(), vector.key());
        assert_eq!(suite.noise_name(), vector.text("protocol_name"));
        assert_eq!(key.psk().to_vec(), vector.bytes("psk"));
        assert_eq!(key.id().to_string(), vector.text("key_id"));
        let message_1 = vector.bytes("message_1");
        let e = message_1[9..41].try_into().unwrap();
        assert_eq!(key.hint(suite, &e).to_vec(), vector.bytes("hint"));
        let prologue = [b"spiped-2", &message_1[..9]].concat();
        assert_eq!(prologue, vector.bytes("prologue"));
    }
}

/// H1, with the KEM key of the vector in either build.
#[test]
fn h1_the_initiator_makes_the_message_and_the_session_of_the_vectors() {
    for vector in Vector::all() {
        let (_, message_1) = vector.initiator();
        assert_eq!(message_1, vector.bytes("message_1"), "{}", vector.suite());
        let session = vector.session();
        assert_eq!(session.connection_id.to_string(), vector.text("connection_id"));
    }
}

/// H1. A ciphertext can be chosen only where the randomness is handed in.
#[test]
fn h1_the_responder_makes_the_answer_of_the_vectors() {
    for vector in Vector::all() {
        let greeting = vector.greeting();
        if cfg!(feature = "aws-lc") && vector.suite().kex == Kex::X25519MlKem768 {
            continue;
        }
        let random = [vector.bytes("responder_x25519_private"), vector.bytes("ml_kem_768_m")];
        let mut random = Known(random.concat());
        let responder = greeting.answer_rekeying_every(vector.interval(), &mut random).unwrap();
        assert_eq!(responder.reply, vector.bytes("message_2"), "{}", vector.suite());
        assert_eq!(responder.key_id.to_string(), vector.text("key_id"));
        assert_eq!(responder.session.connection_id.to_string(), vector.text("connection_id"));
    }
}

/// Twelve records, with a rekey every four.
#[test]
fn the_records_are_those_of_the_vectors() {
    for vector in Vector::all() {
        let Session { mut sealer, mut opener, .. } = vector.session();
        // The first records of the vectors are DATA.
        opener.skip_opened();
        let records = vector.0["records"].as_array().unwrap();
        assert_eq!(records.len(), 12);
        for record in records {
            let (plaintext, wire) = (
                unhex(record["plaintext"].as_str().unwrap()),
                unhex(record["record"].as_str().unwrap()),
            );
            if record["from"] == "initiator" {
                assert_eq!(sealer.seal_raw(&plaintext), wire);
            } else {
                assert_eq!(plaintext[0], 3);
                assert_eq!(open(&mut opener, &wire).unwrap(), plaintext[1..]);
            }
        }
    }
}
