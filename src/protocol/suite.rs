//! The four suites, and the byte on the wire that names each.

use std::fmt;

/// A suite, named by the first byte of a connection: the Noise protocol that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// How the fresh keys are agreed on.
    pub kex: Kex,
    /// What seals the records.
    pub cipher: Cipher,
}

/// A key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kex {
    /// X25519 alone (RFC 7748): the classical exchange.
    X25519,
    /// X25519 and ML-KEM-768 (FIPS 203): the hybrid exchange, which stays secret while one
    /// of the two holds.
    X25519MlKem768,
}

/// A record cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
    /// AES-GCM with 256-bit keys (NIST SP 800-38D).
    Aes256Gcm,
}

/// What a responder accepts; `None` accepts all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The only key exchange.
    pub kex: Option<Kex>,
    /// The only cipher.
    pub cipher: Option<Cipher>,
}

impl Suite {
    /// All suites, which every build speaks.
    pub const ALL: [Self; 4] = [
        Self { kex: Kex::X25519, cipher: Cipher::ChaCha20Poly1305 },
        Self { kex: Kex::X25519, cipher: Cipher::Aes256Gcm },
        Self { kex: Kex::X25519MlKem768, cipher: Cipher::ChaCha20Poly1305 },
        Self { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm },
    ];

    /// The first byte that the initiator sends.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match (self.kex, self.cipher) {
            (Kex::X25519, Cipher::ChaCha20Poly1305) => 0x02,
            (Kex::X25519, Cipher::Aes256Gcm) => 0x03,
            (Kex::X25519MlKem768, Cipher::ChaCha20Poly1305) => 0x04,
            (Kex::X25519MlKem768, Cipher::Aes256Gcm) => 0x05,
        }
    }

    /// The suite that a first byte names; `None` when the byte names none.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.byte() == byte)
    }

    /// The Noise protocol name (Noise section 8), hashed into every handshake.
    #[must_use]
    pub const fn noise_name(self) -> &'static str {
        match (self.kex, self.cipher) {
            (Kex::X25519, Cipher::ChaCha20Poly1305) => "Noise_NNpsk0_25519_ChaChaPoly_SHA256",
            (Kex::X25519, Cipher::Aes256Gcm) => "Noise_NNpsk0_25519_AESGCM_SHA256",
            (Kex::X25519MlKem768, Cipher::ChaCha20Poly1305) => {
                "Noise_NNhfs+psk0_25519+MLKEM768_ChaChaPoly_SHA256"
            }
            (Kex::X25519MlKem768, Cipher::Aes256Gcm) => {
                "Noise_NNhfs+psk0_25519+MLKEM768_AESGCM_SHA256"
            }
        }
    }
}

impl Kex {
    /// All key exchanges.
    pub const ALL: [Self; 2] = [Self::X25519, Self::X25519MlKem768];
}

impl Cipher {
    /// All ciphers.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];
}

impl fmt::Display for Kex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X25519 => "x25519",
            Self::X25519MlKem768 => "x25519mlkem768",
        })
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        })
    }
}

/// Such as `x25519mlkem768, aes-256-gcm`.
impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.kex, self.cipher)
    }
}
