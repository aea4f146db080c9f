//! Why a handshake fails.

use thiserror::Error;

use crate::protocol::aead::AuthenticationFailed;
use crate::protocol::kem::KemError;
use crate::protocol::suite::{Cipher, Kex};

/// Why a handshake ended without a session. None of it is told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The first byte names no suite.
    #[error("not our protocol")]
    NotOurs,
    /// The message is longer or shorter than its suite's.
    #[error("a message of an impossible length")]
    Length,
    /// The responder does not accept this key exchange.
    #[error("the key exchange {0} is not accepted here")]
    KexRefused(Kex),
    /// The responder does not accept this cipher.
    #[error("the cipher {0} is not accepted here")]
    CipherRefused(Cipher),
    /// The first message is of none of the keys.
    #[error("the key does not fit")]
    WrongKey,
    /// The peer's public key gave an all-zero Diffie-Hellman result.
    #[error("the peer sent a degenerate public key")]
    DegenerateKey,
    /// The peer's encapsulation key has coefficients above the modulus.
    #[error("the peer sent an invalid encapsulation key")]
    InvalidKemKey,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Randomness,
}

impl From<AuthenticationFailed> for HandshakeError {
    fn from(_: AuthenticationFailed) -> Self {
        Self::WrongKey
    }
}

impl From<KemError> for HandshakeError {
    fn from(error: KemError) -> Self {
        match error {
            KemError::InvalidKey => Self::InvalidKemKey,
            KemError::Randomness => Self::Randomness,
        }
    }
}
