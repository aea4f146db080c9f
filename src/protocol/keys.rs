//! The shared key, derived from a key file once, at the start.

use std::fmt;
use std::ops::DerefMut;

use siphasher::sip::SipHasher24;
use thiserror::Error;
use zeroize::Zeroize;

use super::hkdf::hkdf_sha256;
use super::ids::KeyId;
use super::suite::Suite;

/// The fewest bytes a key file may have.
pub const KEY_FILE_MIN: usize = 32;
/// The most bytes a key file may have.
pub const KEY_FILE_MAX: usize = 64 * 1024;

/// HKDF salt of everything derived from a key file.
const SALT: &[u8] = b"spiped-2 key file";

/// Bytes of the hint in message 1.
pub(super) const HINT: usize = 8;
/// Bytes of the secrets that are derived from a key file.
pub const KEY_SECRETS: usize = PSK + HINT_KEY;
/// Bytes of Noise's pre-shared key.
const PSK: usize = 32;
/// Bytes of the key that makes hints.
pub const HINT_KEY: usize = 16;

/// The key that both ends share: Noise's 32-byte pre-shared key, the key that makes hints,
/// and the key's id.
///
/// The key is wiped when dropped, and cannot be cloned or compared. `Debug` shows only its
/// id.
pub struct SharedKey {
    /// `psk(32) ‖ hint key(16)`, boxed, so that moving the key leaves no copy behind.
    secrets: Box<dyn DerefMut<Target = [u8; KEY_SECRETS]> + Send + Sync>,
    id: KeyId,
}

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
    /// psk      = HKDF-SHA256(salt = "spiped-2 key file", ikm = file, info = "psk")[32]
    /// hint key = HKDF-SHA256(salt = "spiped-2 key file", ikm = file, info = "hint")[16]
    /// key id   = HKDF-SHA256(salt = "spiped-2 key file", ikm = file, info = "key id")[8]
    /// ```
    ///
    /// The key is kept in `memory`. The caller hands it in, since the protocol cannot ask a
    /// system not to swap it.
    ///
    /// # Errors
    /// When the content has fewer than 32 bytes or more than 64 KiB.
    pub fn from_key_file(
        content: &[u8],
        memory: impl DerefMut<Target = [u8; KEY_SECRETS]> + Send + Sync + 'static,
    ) -> Result<Self, KeyLengthError> {
        match content.len() {
            short if short < KEY_FILE_MIN => return Err(KeyLengthError::TooShort(short)),
            long if long > KEY_FILE_MAX => return Err(KeyLengthError::TooLong),
            _ => {}
        }
        let mut key = Self { secrets: Box::new(memory), id: KeyId([0; 8]) };
        let (psk, hint_key) = key.secrets.split_at_mut(PSK);
        hkdf_sha256(SALT, content, b"psk", psk);
        hkdf_sha256(SALT, content, b"hint", hint_key);
        hkdf_sha256(SALT, content, b"key id", &mut key.id.0);
        Ok(key)
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Noise's pre-shared key; for the handshake only.
    pub(super) fn psk(&self) -> &[u8; PSK] {
        self.secrets().0
    }

    /// The hint in message 1, by which a responder of many keys finds the key of the
    /// initiator, and which tells others nothing.
    pub(super) fn hint(&self, suite: Suite, e: &[u8; 32]) -> [u8; HINT] {
        hint(self.secrets().1, suite, e)
    }

    fn secrets(&self) -> (&[u8; PSK], &[u8; HINT_KEY]) {
        match self.secrets.split_first_chunk() {
            Some((psk, rest)) => match rest.first_chunk() {
                Some(hint_key) => (psk, hint_key),
                None => unreachable!("the secrets have {KEY_SECRETS} bytes"),
            },
            None => unreachable!("the secrets have {KEY_SECRETS} bytes"),
        }
    }
}

/// SipHash-2-4(hint key, suite ‖ e), little endian.
pub(super) fn hint(hint_key: &[u8; HINT_KEY], suite: Suite, e: &[u8; 32]) -> [u8; HINT] {
    let mut message = [suite.byte(); 33];
    message.split_at_mut(1).1.copy_from_slice(e);
    SipHasher24::new_with_key(hint_key).hash(&message).to_le_bytes()
}

/// The keys that make hints, of all keys of a responder: side by side, so that the search for
/// the key of a first message reads few lines of memory, and in order. With a thousand keys,
/// each where it happens to be, the search would take twice as long.
///
/// They are wiped when dropped.
pub struct HintKeys(Box<dyn DerefMut<Target = [u8]> + Send + Sync>);

impl HintKeys {
    /// Copies them into `memory`, [`HINT_KEY`] bytes for each key.
    pub fn of<'k>(
        keys: impl IntoIterator<Item = &'k SharedKey>,
        memory: impl DerefMut<Target = [u8]> + Send + Sync + 'static,
    ) -> Self {
        let mut copies = Self(Box::new(memory));
        for (copy, key) in copies.0.as_chunks_mut().0.iter_mut().zip(keys) {
            *copy = *key.secrets().1;
        }
        copies
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8; HINT_KEY]> {
        self.0.as_chunks().0.iter()
    }
}

impl Drop for HintKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for SharedKey {
    fn drop(&mut self) {
        self.secrets.zeroize();
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.id)
    }
}
