//! The two suites, and the byte on the wire that names them.

use std::fmt;

/// A suite, named by the first byte of a connection: the Noise protocol that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `0x02`: `Noise_NNpsk0_25519_ChaChaPoly_SHA256` (RFC 8439).
    ChaCha20Poly1305,
    /// `0x03`: `Noise_NNpsk0_25519_AESGCM_SHA256` (NIST SP 800-38D, 256-bit keys).
    Aes256Gcm,
}

impl Suite {
    /// All suites, which every build speaks.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];

    /// The first byte that the initiator sends.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 0x02,
            Self::Aes256Gcm => 0x03,
        }
    }

    /// The suite that a first byte names; `None` when the byte names none.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x02 => Some(Self::ChaCha20Poly1305),
            0x03 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// The Noise protocol name (Noise section 8), hashed into every handshake.
    #[must_use]
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "Noise_NNpsk0_25519_ChaChaPoly_SHA256",
            Self::Aes256Gcm => "Noise_NNpsk0_25519_AESGCM_SHA256",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        })
    }
}
