//! Noise's cipher functions (section 12): one key, 64-bit nonces, 16-byte tags.
//!
//! There are two implementations of `Key`; the features `aws-lc` and `rust-crypto` choose
//! one. The tests compare the two.

use zeroize::Zeroizing;

use super::suite::Cipher;

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(all(feature = "rust-crypto", not(feature = "aws-lc")), test))]
mod rust_crypto;
mod tag;
#[cfg(test)]
mod wycheproof;

#[cfg(feature = "aws-lc")]
use aws_lc::Key;
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
use rust_crypto::Key;

pub(super) use tag::{AuthenticationFailed, TAG};

/// Noise reserves the last nonce for `Rekey()` (section 4.2).
const REKEY_NONCE: u64 = u64::MAX;

/// A key of a cipher, wiped when dropped.
pub(super) struct CipherKey {
    cipher: Cipher,
    key: Key,
}

impl CipherKey {
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        Self { cipher, key: Key::new(cipher, key) }
    }

    /// Noise's ENCRYPT(k, n, ad, plaintext), in place. Returns the tag.
    pub(super) fn seal(&self, n: u64, ad: &[u8], in_out: &mut [u8]) -> [u8; TAG] {
        self.key.seal(nonce(self.cipher, n), ad, in_out)
    }

    /// Noise's DECRYPT(k, n, ad, ciphertext), in place.
    pub(super) fn open(
        &self,
        n: u64,
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), AuthenticationFailed> {
        self.key.open(nonce(self.cipher, n), ad, in_out, tag)
    }

    /// Noise's REKEY(k): the first 32 bytes of ENCRYPT(k, 2^64-1, "", 32 zeros).
    pub(super) fn rekey(&mut self) {
        let mut next = Zeroizing::new([0; 32]);
        let _tag_is_not_used = self.seal(REKEY_NONCE, &[], next.as_mut_slice());
        *self = Self::new(self.cipher, &next);
    }
}

/// 4 zero bytes, then n: little endian for ChaChaPoly, big endian for AESGCM.
fn nonce(cipher: Cipher, n: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (_zeros, counter) = nonce.split_at_mut(4);
    counter.copy_from_slice(&match cipher {
        Cipher::ChaCha20Poly1305 => n.to_le_bytes(),
        Cipher::Aes256Gcm => n.to_be_bytes(),
    });
    nonce
}

#[cfg(all(test, feature = "aws-lc"))]
mod tests {
    use super::*;

    /// The two implementations make equal bytes, and accept each other's.
    #[test]
    fn aws_lc_and_rust_crypto_agree() {
        for cipher in Cipher::ALL {
            for (n, length) in [(0, 0), (1, 1), (u64::MAX, 32), (1 << 40, 65_519)] {
                let plain: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
                let ours = Key::new(cipher, &[7; 32]);
                let theirs = rust_crypto::Key::new(cipher, &[7; 32]);

                let (mut a, mut b) = (plain.clone(), plain.clone());
                let tag_a = ours.seal(nonce(cipher, n), b"ad", &mut a);
                let tag_b = theirs.seal(nonce(cipher, n), b"ad", &mut b);
                assert_eq!((&a, tag_a), (&b, tag_b), "{cipher}, nonce {n}, {length} bytes");

                ours.open(nonce(cipher, n), b"ad", &mut b, &tag_b).unwrap();
                theirs.open(nonce(cipher, n), b"ad", &mut a, &tag_a).unwrap();
                assert_eq!((&a, &b), (&plain, &plain));
                assert!(ours.open(nonce(cipher, n), b"ae", &mut a, &tag_a).is_err());
                assert!(theirs.open(nonce(cipher, n), b"ae", &mut b, &tag_a).is_err());
            }
        }
    }
}
