//! Key files: checking and reading them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::KeyFileError;
use super::guessable::GuessableKey;
use super::memory::{KeyMemory, SecretBytes};
pub(crate) use super::open::Owners;
use super::open::open;
use crate::process::stdio::Stdin;
use crate::protocol::{KEY_FILE_MAX, SharedKey};

/// A key that was read from a file.
pub(crate) struct KeyFile {
    pub(crate) key: SharedKey,
    /// The warning, where the key can be guessed.
    pub(crate) guessable: Option<GuessableKey>,
}

/// Reads the key at `path`; `-` is standard input.
///
/// # Errors
/// When the file cannot be read, or is refused: shorter than 32 bytes, longer than 64 KiB,
/// not a regular file, of another owner, or open to others. A group may read a file of
/// root's: volumes of secrets in Kubernetes, and credentials of systemd, have no other way
/// to let one user read it.
pub(crate) fn read(path: &Path, owners: Owners) -> Result<KeyFile, KeyFileError> {
    let content = content(path, owners)?;
    let key = derive(path, &content)?;
    Ok(KeyFile { key, guessable: GuessableKey::find(Some(path), &content) })
}

/// Checks a key file's owner and mode, and reads its content.
pub(crate) fn content(path: &Path, owners: Owners) -> Result<SecretBytes, KeyFileError> {
    if path == Path::new("-") {
        let content = read_all(path, Stdin)?;
        return if content.is_empty() { Err(KeyFileError::NoneCame) } else { Ok(content) };
    }
    let file = open(path, owners)?;
    check_owner_and_mode(path, &file, owners)?;
    read_all(path, file)
}

pub(super) fn derive(path: &Path, content: &[u8]) -> Result<SharedKey, KeyFileError> {
    let memory = KeyMemory::new().map_err(KeyFileError::Memory)?;
    SharedKey::from_key_file(content, memory)
        .map_err(|error| KeyFileError::Length { path: path.into(), error })
}

/// Checks the open file, not the path, so that the checked file is the one that is read.
fn check_owner_and_mode(path: &Path, file: &File, owners: Owners) -> Result<(), KeyFileError> {
    let metadata =
        file.metadata().map_err(|error| KeyFileError::Read { path: path.into(), error })?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotRegular(path.into()));
    }
    let owner = metadata.uid();
    if !owners.include(owner) {
        return Err(KeyFileError::Owner { path: path.into(), owner });
    }
    let mode = metadata.mode() & 0o7777;
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(KeyFileError::Mode { path: path.into(), mode });
    }
    Ok(())
}

/// Reads everything into memory that is wiped, also after an error.
fn read_all(path: &Path, mut from: impl Read) -> Result<SecretBytes, KeyFileError> {
    // One byte more than the longest key file, so that a longer one is noticed.
    let mut content = SecretBytes::zeroed(KEY_FILE_MAX + 1).map_err(KeyFileError::Memory)?;
    let mut length = 0_usize;
    while let Some(room) = content.get_mut(length..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(count) => length = length.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(KeyFileError::Read { path: path.into(), error });
            }
        }
    }
    content.truncate(length);
    // Hundreds of keys may be held at once, each in as little memory as it needs.
    SecretBytes::copy_of(&content).map_err(KeyFileError::Memory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use nix::unistd::geteuid;

    use super::*;

    fn file(folder: &tempfile::TempDir, length: usize, mode: u32) -> PathBuf {
        let path = folder.path().join(format!("{length}-{mode:o}"));
        std::fs::write(&path, vec![7; length]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn only_lengths_between_the_bounds_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for (length, good) in [(0, false), (31, false), (32, true), (65_536, true), (65_537, false)]
        {
            let result = read(&file(&folder, length, 0o600), Owners::Own);
            assert_eq!(result.is_ok(), good, "{length}");
            if let Err(error) = result {
                assert!(matches!(error, KeyFileError::Length { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o660, 0o604, 0o602, 0o610, 0o620] {
            let error = read(&file(&folder, 32, mode), Owners::Own).err().unwrap();
            assert!(matches!(error, KeyFileError::Mode { mode: m, .. } if m == mode), "{error}");
        }
        assert!(read(&file(&folder, 32, 0o400), Owners::Own).is_ok());
        // A group may read root's file.
        for mode in [0o640, 0o440] {
            let result = read(&file(&folder, 32, mode), Owners::Own);
            assert_eq!(result.is_ok(), geteuid().is_root(), "{mode:o}");
        }
    }

    #[test]
    fn folders_pipes_and_devices_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [folder.path(), &pipe, Path::new("/dev/zero")] {
            let error = read(path, Owners::Own).err().unwrap();
            assert!(matches!(error, KeyFileError::NotRegular(_)), "{error}");
        }
    }
}
