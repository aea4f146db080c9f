//! The two messages, taken apart. Every part has its length, or the message is none.

use super::error::HandshakeError;
use crate::protocol::aead::TAG;
use crate::protocol::kem::{CIPHERTEXT, ENCAPSULATION_KEY};
use crate::protocol::keys::HINT;
use crate::protocol::suite::{Kex, Suite};

impl Suite {
    /// Bytes of the initiator's message: 57 or 1257.
    #[must_use]
    pub const fn message_1(self) -> usize {
        const CLASSICAL: usize = 1 + HINT + 32 + TAG;
        match self.kex {
            Kex::X25519 => CLASSICAL,
            Kex::X25519MlKem768 => CLASSICAL + ENCAPSULATION_KEY + TAG,
        }
    }

    /// Bytes of the responder's message: 48 or 1152.
    #[must_use]
    pub const fn message_2(self) -> usize {
        const CLASSICAL: usize = 32 + TAG;
        match self.kex {
            Kex::X25519 => CLASSICAL,
            Kex::X25519MlKem768 => CLASSICAL + CIPHERTEXT + TAG,
        }
    }
}

/// Message 1: `suite(1) ‖ hint(8) ‖ e(32) ‖ ek ‖ tag(16)`; `ek` is empty, or
/// `ciphertext(1184) ‖ tag(16)`.
pub(super) struct Message1<'m> {
    pub(super) suite: Suite,
    pub(super) hint: [u8; HINT],
    pub(super) e: &'m [u8; 32],
    pub(super) ek: Option<Sealed<'m>>,
    pub(super) tag: &'m [u8; TAG],
}

/// Message 2: `e(32) ‖ ct ‖ tag(16)`; `ct` is empty, or `ciphertext(1088) ‖ tag(16)`.
pub(super) struct Message2<'m> {
    pub(super) e: &'m [u8; 32],
    pub(super) ct: Option<Sealed<'m>>,
    pub(super) tag: &'m [u8; TAG],
}

/// What `EncryptAndHash` made of a plaintext.
pub(super) struct Sealed<'m> {
    pub(super) ciphertext: &'m [u8],
    pub(super) tag: &'m [u8; TAG],
}

impl<'m> Message1<'m> {
    /// # Errors
    /// When the message names no suite, or has another length than its suite's.
    pub(super) fn parse(message: &'m [u8]) -> Result<Self, HandshakeError> {
        let (suite, rest) = message.split_first().ok_or(HandshakeError::Length)?;
        let suite = Suite::from_byte(*suite).ok_or(HandshakeError::NotOurs)?;
        if message.len() != suite.message_1() {
            return Err(HandshakeError::Length);
        }
        let (hint, rest) = rest.split_first_chunk().ok_or(HandshakeError::Length)?;
        let (e, rest) = rest.split_first_chunk().ok_or(HandshakeError::Length)?;
        let (ek, tag) = rest.split_last_chunk().ok_or(HandshakeError::Length)?;
        Ok(Self { suite, hint: *hint, e, ek: Sealed::parse(ek)?, tag })
    }
}

impl<'m> Message2<'m> {
    /// # Errors
    /// When the message has another length than that of `suite`.
    pub(super) fn parse(suite: Suite, message: &'m [u8]) -> Result<Self, HandshakeError> {
        if message.len() != suite.message_2() {
            return Err(HandshakeError::Length);
        }
        let (e, rest) = message.split_first_chunk().ok_or(HandshakeError::Length)?;
        let (ct, tag) = rest.split_last_chunk().ok_or(HandshakeError::Length)?;
        Ok(Self { e, ct: Sealed::parse(ct)?, tag })
    }
}

impl<'m> Sealed<'m> {
    /// `None` where there is nothing, as in the classical suites.
    fn parse(bytes: &'m [u8]) -> Result<Option<Self>, HandshakeError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (ciphertext, tag) = bytes.split_last_chunk().ok_or(HandshakeError::Length)?;
        Ok(Some(Self { ciphertext, tag }))
    }
}
