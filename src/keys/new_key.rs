//! Keys that are yet to be written to a file: generated, copied or pasted.

use std::io;
use std::path::Path;

use base64ct::{Base64, Encoding};
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::error::KeyFileError;
use super::file::{Owners, content, derive};
use super::guessable::GuessableKey;
use super::memory::SecretBytes;
use super::terminal;
use crate::process::new_file;
use crate::protocol::{KEY_FILE_MAX, KEY_FILE_MIN, KeyId, SharedKey};

/// The prompt at a terminal.
const PASTE: &str = "Paste the key, as 'sudo base64 FILE' prints it on the other host, and end with an empty line \
     (it is not shown): ";

/// Makes a new key at `path`: 32 bytes of the system's randomness, mode 0600.
///
/// # Errors
/// When something is there already, or the file cannot be written. No part of it is left.
pub(crate) fn generate(path: &Path) -> Result<KeyId, KeyFileError> {
    let key = NewKey::generate()?;
    key.write(path)?;
    Ok(key.id())
}

/// The content of a key file that is yet to be made; wiped when dropped.
pub(crate) struct NewKey {
    content: SecretBytes,
    id: KeyId,
}

impl NewKey {
    /// What the file will contain.
    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    /// 32 bytes of the system's randomness.
    ///
    /// # Errors
    /// When the system has no randomness or no memory.
    pub(crate) fn generate() -> Result<Self, KeyFileError> {
        let mut content = SecretBytes::zeroed(KEY_FILE_MIN).map_err(KeyFileError::Memory)?;
        SysRng
            .try_fill_bytes(&mut content)
            .map_err(|error| KeyFileError::Randomness(error.to_string()))?;
        let id = derive(Path::new("-"), &content)?.id();
        Ok(Self { content, id })
    }

    /// The content of the key file at `path`; `-` is standard input.
    ///
    /// # Errors
    /// As [`read`](super::file::read), and when it is the base64 of a key: who prints a key
    /// for a person to type, and pipes it on, has not decoded it.
    pub(crate) fn copy_of(path: &Path) -> Result<Self, KeyFileError> {
        let content = content(path, Owners::Own)?;
        if is_base64_of_key(&content) {
            return Err(KeyFileError::Base64(path.into()));
        }
        let id = derive(path, &content)?.id();
        Ok(Self { content, id })
    }

    /// Asks for the base64 of a key at the terminal that is standard input.
    ///
    /// # Errors
    /// As [`read`](super::file::read), and when the text is not base64.
    pub(crate) fn pasted() -> Result<Self, KeyFileError> {
        let path = Path::new("-");
        let content = terminal::paste_base64(PASTE, KEY_FILE_MAX).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                KeyFileError::NotBase64
            } else {
                KeyFileError::Read { path: path.into(), error }
            }
        })?;
        if content.is_empty() {
            return Err(KeyFileError::NoneCame);
        }
        let id = derive(path, &content)?.id();
        Ok(Self { content, id })
    }

    /// The key's id.
    #[must_use]
    pub(crate) const fn id(&self) -> KeyId {
        self.id
    }

    /// The warning about the key file that is to be made, where the key can be guessed.
    pub(crate) fn guessable(&self, path: &Path) -> Option<GuessableKey> {
        GuessableKey::find(Some(path), &self.content)
    }

    /// The key itself.
    ///
    /// # Errors
    /// When no memory is left.
    pub(crate) fn derive(&self) -> Result<SharedKey, KeyFileError> {
        derive(Path::new("-"), &self.content)
    }

    /// Puts the key in the place of another key file, mode 0600.
    ///
    /// # Errors
    /// When the file cannot be written. The old one stays then.
    pub(crate) fn replace(&self, path: &Path) -> Result<(), KeyFileError> {
        new_file::replace(path, &self.content, 0o600)
            .map_err(|error| KeyFileError::Write { path: path.into(), error })
    }

    /// Makes the key file, mode 0600.
    ///
    /// # Errors
    /// When something is there already, or the file cannot be written. No part of it is
    /// left.
    pub(crate) fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        new_file::write(path, &self.content, 0o600).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                KeyFileError::Exists(path.into())
            } else {
                KeyFileError::Write { path: path.into(), error }
            }
        })
    }
}

/// Whether a content is the base64 of as many bytes as a key of spiped has.
fn is_base64_of_key(content: &[u8]) -> bool {
    let mut key = Zeroizing::new([0; KEY_FILE_MIN]);
    Base64::decode(content.trim_ascii(), &mut *key).is_ok_and(|key| key.len() == KEY_FILE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::file::read;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_base64_of_a_key_is_no_key_to_copy() {
        let encode = |bytes: &[u8]| Base64::encode(bytes, &mut [0; 64]).map(str::to_owned).unwrap();
        let text = encode(&[7; KEY_FILE_MIN]);
        for base64 in [text.clone(), format!("{text}\n"), format!("{text}\r\n")] {
            assert!(is_base64_of_key(base64.as_bytes()), "{base64}");
        }
        for other in [encode(&[7; 33]), encode(&[7; 30]), "7".repeat(44)] {
            assert!(!is_base64_of_key(other.as_bytes()), "{other}");
        }
        assert!(!is_base64_of_key(&[7; KEY_FILE_MIN]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        assert!(matches!(NewKey::copy_of(file.path()), Err(KeyFileError::Base64(_))));
    }

    #[test]
    fn a_generated_key_is_private_new_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.key");
        let id = generate(&path).unwrap();
        assert_eq!(read(&path, Owners::Own).unwrap().key.id(), id);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (32, 0o600));
        assert!(matches!(generate(&path), Err(KeyFileError::Exists(_))));
        assert_eq!(read(&path, Owners::Own).unwrap().key.id(), id);
        assert_ne!(generate(&folder.path().join("other.key")).unwrap(), id);
    }
}
