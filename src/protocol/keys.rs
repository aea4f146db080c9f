//! The shared key, derived from a key file once, at the start.

use std::fmt;
use std::ops::DerefMut;

use thiserror::Error;
use zeroize::Zeroize;

use super::hkdf::hkdf_sha256;

/// The fewest bytes a key file may have.
pub const KEY_FILE_MIN: usize = 32;
/// The most bytes a key file may have.
pub const KEY_FILE_MAX: usize = 64 * 1024;

/// HKDF salt of everything derived from a key file.
const SALT: &[u8] = b"spiped-2 key file";

/// The key that both ends share: Noise's 32-byte pre-shared key, and the key's id.
///
/// The key is wiped when dropped, and cannot be cloned or compared. `Debug` shows only its
/// id.
pub struct SharedKey {
    /// Boxed, so that moving the key leaves no copy behind.
    psk: Box<dyn DerefMut<Target = [u8; 32]> + Send + Sync>,
    id: KeyId,
}

/// The id of a key, such as `3f9a-12bc-07de-5581`: its public name of 8 bytes, which people
/// can compare and which tells nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

/// A key file that has too few or too many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyLengthError {
    /// It has fewer than [`KEY_FILE_MIN`] bytes: this many.
    #[error("the key has {0} bytes, fewer than {KEY_FILE_MIN}")]
    TooShort(usize),
    /// It has more than [`KEY_FILE_MAX`] bytes.
    #[error("the key has more than {KEY_FILE_MAX} bytes")]
    TooLong,
}

impl SharedKey {
    /// Derives the key from the whole content of a key file (HKDF, RFC 5869):
    ///
    /// ```text
    /// psk    = HKDF-SHA256(salt = "spiped-2 key file", ikm = file, info = "psk")[32]
    /// key id = HKDF-SHA256(salt = "spiped-2 key file", ikm = file, info = "key id")[8]
    /// ```
    ///
    /// The key is kept in `memory`. The caller hands it in, since the protocol cannot ask a
    /// system not to swap it.
    ///
    /// # Errors
    /// When the content has fewer than 32 bytes or more than 64 KiB.
    pub fn from_key_file(
        content: &[u8],
        memory: impl DerefMut<Target = [u8; 32]> + Send + Sync + 'static,
    ) -> Result<Self, KeyLengthError> {
        match content.len() {
            short if short < KEY_FILE_MIN => return Err(KeyLengthError::TooShort(short)),
            long if long > KEY_FILE_MAX => return Err(KeyLengthError::TooLong),
            _ => {}
        }
        let mut key = Self { psk: Box::new(memory), id: KeyId([0; 8]) };
        hkdf_sha256(SALT, content, b"psk", key.psk.as_mut_slice());
        hkdf_sha256(SALT, content, b"key id", &mut key.id.0);
        Ok(key)
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Noise's pre-shared key; for the handshake only.
    pub(super) fn psk(&self) -> &[u8; 32] {
        &self.psk
    }
}

impl Drop for SharedKey {
    fn drop(&mut self) {
        self.psk.zeroize();
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = u64::from_be_bytes(self.0);
        let group = |shift: u32| hex.wrapping_shr(shift) & 0xffff;
        write!(f, "{:04x}-{:04x}-{:04x}-{:04x}", group(48), group(32), group(16), group(0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}
