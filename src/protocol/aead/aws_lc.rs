//! The ciphers by AWS-LC, which picks the fastest code for the processor.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::tag::{AuthenticationFailed, TAG};
use crate::protocol::suite::Cipher;

/// The key schedule, which AWS-LC wipes when it frees it.
pub(super) struct Key(LessSafeKey);

impl Key {
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        match UnboundKey::new(algorithm, key) {
            Ok(key) => Self(LessSafeKey::new(key)),
            Err(_) => unreachable!("both ciphers take keys of 32 bytes"),
        }
    }

    pub(super) fn seal(&self, nonce: [u8; 12], ad: &[u8], in_out: &mut [u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut out = [0; TAG];
        match self.0.seal_in_place_separate_tag(nonce, Aad::from(ad), in_out) {
            Ok(tag) => out.copy_from_slice(tag.as_ref()),
            Err(_) => unreachable!("a record is far below the ciphers' limits"),
        }
        out
    }

    pub(super) fn open(
        &self,
        nonce: [u8; 12],
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), AuthenticationFailed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(ad), tag, in_out)
            .map(|_plaintext| ())
            .map_err(|_| AuthenticationFailed)
    }
}
