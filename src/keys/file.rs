//! Key files: making, checking and reading them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use rand::TryRng;
use rand::rngs::SysRng;
use thiserror::Error;

use super::memory::{KeyMemory, SecretBytes};
use super::terminal;
use crate::process::new_file;
use crate::process::stdio::Stdin;
use crate::protocol::{KEY_FILE_MAX, KEY_FILE_MIN, KeyId, KeyLengthError, SharedKey};
use crate::report::{Report, exit};

/// The prompt at a terminal.
const PASTE: &str =
    "Paste the key, as 'sudo base64 FILE' prints it on the other host (it is not shown): ";

/// Why a key file was not read or not made. Never has any of its content.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    #[error("cannot read the key file {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// It is a folder, a pipe, a device or a socket.
    #[error("the key file {} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Its group, or all users, may read or write it.
    #[error("the key file {} is open to others (mode {mode:04o})", path.display())]
    Mode { path: PathBuf, mode: u32 },
    /// Another user could replace its content.
    #[error("the key file {} belongs to user {owner}, who could replace the key", path.display())]
    Owner { path: PathBuf, owner: u32 },
    /// It is too short or too long.
    #[error("the key file {} is refused: {error}", path.display())]
    Length { path: PathBuf, error: KeyLengthError },
    /// Standard input ended without a byte.
    #[error("no key on standard input")]
    NoneCame,
    #[error("what was pasted is not the base64 of a key")]
    NotBase64,
    /// `keygen` found something at that path.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// `keygen` could not write.
    #[error("cannot make the key file {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("the system gave no random bytes: {0}")]
    Randomness(String),
    #[error("no memory is left for the key: {0}")]
    Memory(io::Error),
}

impl Report for KeyFileError {
    fn hint(&self) -> &str {
        match self {
            Self::Read { .. } => {
                "check the path and that this user may read it; copy the key from the other end, or make one for both with 'spiped keygen PATH'"
            }
            Self::NotRegular(_) => {
                "give the path of a plain file, or - to read the key from standard input"
            }
            Self::Mode { .. } => {
                "chmod 600 the file, or mount it as root's with mode 0440; if others could read it, make a new key"
            }
            Self::Owner { .. } => {
                "chown the file to root or to the user that runs spiped, or run spiped as its owner"
            }
            Self::Length { .. } => {
                "make a key with 'spiped keygen PATH'; if this is a key, it was not copied unchanged"
            }
            Self::NoneCame => "give the content of a key file: add '< FILE' to the command",
            Self::NotBase64 => "paste all that 'sudo base64 FILE' prints on the other host",
            Self::Exists(_) => "choose another path, or move the old key away once no end uses it",
            Self::Write { .. } => "check that the folder exists and that this user may write to it",
            Self::Randomness(_) => "try again once the system has started",
            Self::Memory(_) => "raise the limit of memory (MemoryMax=, ulimit -v)",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::NoneCame => exit::NO_INPUT,
            Self::Length { .. } | Self::NotBase64 => exit::DATA,
            Self::NotRegular(_) | Self::Mode { .. } | Self::Owner { .. } => exit::NO_PERMISSION,
            Self::Exists(_) | Self::Write { .. } => exit::CANNOT_CREATE,
            Self::Randomness(_) | Self::Memory(_) => exit::OS,
        }
    }
}

/// The users who may own a key file. The owner could replace the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Any user, since the key is only looked at.
    Anybody,
    /// Root and the user of this process.
    Own,
    /// Root, the user of this process, and the user of this uid, who runs the daemon.
    OwnOr(u32),
    /// Root and the user of this uid.
    User(u32),
}

impl Owners {
    fn include(self, owner: u32) -> bool {
        let is_own = || owner == geteuid().as_raw();
        owner == 0
            || match self {
                Self::Anybody => true,
                Self::Own => is_own(),
                Self::OwnOr(user) => owner == user || is_own(),
                Self::User(user) => owner == user,
            }
    }
}

/// Reads the key at `path`; `-` is standard input.
///
/// # Errors
/// When the file cannot be read, or is refused: shorter than 32 bytes, longer than 64 KiB,
/// not a regular file, of another owner, or open to others. A group may read a file of
/// root's: volumes of secrets in Kubernetes, and credentials of systemd, have no other way
/// to let one user read it.
pub(crate) fn read(path: &Path, owners: Owners) -> Result<SharedKey, KeyFileError> {
    derive(path, &content(path, owners)?)
}

/// Reads the content of the key file at `path`, if it is a good key, and the id of that
/// key; `-` is standard input.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_content(
    path: &Path,
    owners: Owners,
) -> Result<(SecretBytes, KeyId), KeyFileError> {
    let content = content(path, owners)?;
    let id = derive(path, &content)?.id();
    Ok((content, id))
}

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
    /// As [`read`].
    pub(crate) fn copy_of(path: &Path) -> Result<Self, KeyFileError> {
        let content = content(path, Owners::Own)?;
        let id = derive(path, &content)?.id();
        Ok(Self { content, id })
    }

    /// Asks for the base64 of a key at the terminal that is standard input.
    ///
    /// # Errors
    /// As [`read`], and when the text is not base64.
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

/// Checks a key file's owner and mode, and reads its content.
fn content(path: &Path, owners: Owners) -> Result<SecretBytes, KeyFileError> {
    if path == Path::new("-") {
        let content = read_all(path, Stdin)?;
        return if content.is_empty() { Err(KeyFileError::NoneCame) } else { Ok(content) };
    }
    // Without O_NONBLOCK, to open a named pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(|error| KeyFileError::Read { path: path.into(), error })?;
    check_owner_and_mode(path, &file, owners)?;
    read_all(path, file)
}

fn derive(path: &Path, content: &[u8]) -> Result<SharedKey, KeyFileError> {
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
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &tempfile::TempDir, length: usize, mode: u32) -> PathBuf {
        let path = folder.path().join(format!("{length}-{mode:o}"));
        std::fs::write(&path, vec![7; length]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_generated_key_is_private_new_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.key");
        let id = generate(&path).unwrap();
        assert_eq!(read(&path, Owners::Own).unwrap().id(), id);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o7777), (32, 0o600));
        assert!(matches!(generate(&path), Err(KeyFileError::Exists(_))));
        assert_eq!(read(&path, Owners::Own).unwrap().id(), id);
        assert_ne!(generate(&folder.path().join("other.key")).unwrap(), id);
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
    fn root_may_always_own_a_key_and_others_where_they_are_named() {
        let own = geteuid().as_raw();
        let other = own.saturating_add(1);
        let included = |owners: Owners| [0, own, other].map(|owner| owners.include(owner));
        assert_eq!(included(Owners::Anybody), [true; 3]);
        assert_eq!(included(Owners::Own), [true, true, false]);
        assert_eq!(included(Owners::OwnOr(other)), [true; 3]);
        assert_eq!(included(Owners::User(other)), [true, own == 0, true]);
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
