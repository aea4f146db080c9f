//! The ciphers in pure Rust, by the RustCrypto crates.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use super::tag::{AuthenticationFailed, TAG};
use crate::protocol::suite::Cipher;

/// The key schedule, wiped when dropped. Boxed, since it is about a kilobyte.
pub(super) enum Key {
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
    Aes256Gcm(Box<Aes256Gcm>),
}

impl Key {
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        match cipher {
            Cipher::ChaCha20Poly1305 => {
                Self::ChaCha20Poly1305(Box::new(ChaCha20Poly1305::new(key.into())))
            }
            Cipher::Aes256Gcm => Self::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
        }
    }

    pub(super) fn seal(&self, nonce: [u8; 12], ad: &[u8], in_out: &mut [u8]) -> [u8; TAG] {
        let nonce = (&nonce).into();
        let sealed = match self {
            Self::ChaCha20Poly1305(key) => key.encrypt_inout_detached(nonce, ad, in_out.into()),
            Self::Aes256Gcm(key) => key.encrypt_inout_detached(nonce, ad, in_out.into()),
        };
        match sealed {
            Ok(tag) => tag.into(),
            Err(_) => unreachable!("a record is far below the ciphers' limits"),
        }
    }

    pub(super) fn open(
        &self,
        nonce: [u8; 12],
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), AuthenticationFailed> {
        let (nonce, tag) = ((&nonce).into(), tag.into());
        match self {
            Self::ChaCha20Poly1305(key) => {
                key.decrypt_inout_detached(nonce, ad, in_out.into(), tag)
            }
            Self::Aes256Gcm(key) => key.decrypt_inout_detached(nonce, ad, in_out.into(), tag),
        }
        .map_err(|_| AuthenticationFailed)
    }
}
