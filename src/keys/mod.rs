//! Keys: key files, and the key store with the key in force. Only this folder knows whether
//! a key came from a file, from standard input, from a terminal or by `spiped rekey`.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod guessable;
pub(crate) mod memory;
pub(crate) mod new_key;
pub(crate) mod terminal;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;

use self::error::KeyFileError;
use self::file::{KeyFile, Owners};
use self::guessable::GuessableKey;
use self::memory::KeyMemory;
use crate::process::blocking::BlockingThread;
use crate::protocol::{KeyId, KeyLengthError, SharedKey};
use crate::report::{AnyError, SystemError};

/// The key store: the key in force, and where it came from.
pub(crate) struct KeyStore {
    path: PathBuf,
    in_force: watch::Sender<Arc<SharedKey>>,
    /// Reads the key file, since a file system may be slow.
    files: BlockingThread,
}

/// A key that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The id of the key in force now.
    pub(crate) id: KeyId,
    /// The id of the previous key, which may be equal.
    pub(crate) before: KeyId,
    /// The warning, where the key in force now can be guessed.
    pub(crate) guessable: Option<GuessableKey>,
}

/// Why the key was not reloaded.
#[derive(Debug, Error)]
pub(crate) enum KeyStays {
    /// The file is missing, or refused.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The key was read from standard input.
    #[error("it came from standard input and cannot be read again")]
    ReadOnce,
    /// The thread that reads files has ended.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

impl KeyStore {
    /// Reads the key at `path`; `-` is standard input. Returns the warning, too, where the
    /// key can be guessed.
    ///
    /// # Errors
    /// When the key is refused, or the thread that reloads it cannot be started.
    pub(crate) fn load(
        path: &Path,
        owners: Owners,
    ) -> Result<(Self, Option<GuessableKey>), AnyError> {
        let KeyFile { key, guessable } = file::read(path, owners)?;
        let files =
            BlockingThread::start("files").map_err(SystemError::of("cannot start a thread"))?;
        let in_force = watch::Sender::new(Arc::new(key));
        Ok((Self { path: path.into(), in_force, files }, guessable))
    }

    /// The key in force now.
    pub(crate) fn in_force(&self) -> Arc<SharedKey> {
        Arc::clone(&self.in_force.borrow())
    }

    /// A receiver of the key in force, and of each key after it.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<SharedKey>> {
        self.in_force.subscribe()
    }

    /// Reloads the key file.
    ///
    /// # Errors
    /// Why the key was not reloaded.
    pub(crate) async fn reload(&self) -> Result<Replaced, KeyStays> {
        if self.path == Path::new("-") {
            return Err(KeyStays::ReadOnce);
        }
        let path = self.path.clone();
        let read = self.files.run(move || Ok(file::read(&path, Owners::Own))).await?;
        Ok(self.replace(read?))
    }

    /// Puts a key in force that is derived from the content of a key file.
    ///
    /// # Errors
    /// The inner error when the content has the wrong length; the outer one when there is
    /// no memory.
    pub(crate) fn replace_by(
        &self,
        content: &[u8],
    ) -> io::Result<Result<Replaced, KeyLengthError>> {
        let key = SharedKey::from_key_file(content, KeyMemory::new()?);
        Ok(key.map(|key| {
            let guessable = GuessableKey::find(None, content);
            self.replace(KeyFile { key, guessable })
        }))
    }

    /// Puts a key in force. Watchers are notified only if the key differs.
    fn replace(&self, KeyFile { key, guessable }: KeyFile) -> Replaced {
        let (id, mut before) = (key.id(), key.id());
        self.in_force.send_if_modified(|in_force| {
            before = in_force.id();
            *in_force = Arc::new(key);
            before != id
        });
        Replaced { id, before, guessable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A store whose key file holds this byte, 32 times.
    fn store(folder: &tempfile::TempDir, byte: u8) -> KeyStore {
        let path = folder.path().join("key");
        write(&path, byte);
        KeyStore::load(&path, Owners::Own).unwrap().0
    }

    fn write(path: &Path, byte: u8) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        io::Write::write_all(&mut file.unwrap(), &[byte; 32]).unwrap();
    }

    #[tokio::test]
    async fn another_key_is_told_to_those_who_watch_and_the_same_key_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, 1);
        let (first, mut watch) = (store.in_force().id(), store.watch());
        let again = store.reload().await.unwrap();
        assert_eq!((again.id, again.before), (first, first));
        assert!(!watch.has_changed().unwrap());
        write(&store.path, 2);
        let other = store.reload().await.unwrap();
        assert_eq!(other.before, first);
        assert_ne!(other.id, first);
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().id(), other.id);
    }

    #[tokio::test]
    async fn a_bad_key_leaves_the_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, 1);
        let first = store.in_force().id();
        fs::write(&store.path, b"short").unwrap();
        assert!(matches!(store.reload().await, Err(KeyStays::File(_))));
        assert!(store.replace_by(b"short").unwrap().is_err());
        fs::remove_file(&store.path).unwrap();
        assert!(matches!(store.reload().await, Err(KeyStays::File(_))));
        assert_eq!(store.in_force().id(), first);
    }
}
