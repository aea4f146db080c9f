//! Keys: key files, and the key store with the keys in force. Only this folder knows whether
//! a key came from a file, from standard input, from a terminal or by `spiped rekey`.
//!
//! ```text
//! -k ─▶ folder ─▶ file ─▶ entry ─▶ set ─▶ store      rekey: entry ─▶ control ─▶ entry
//! ```

pub(crate) mod address;
pub(crate) mod change;
pub(crate) mod entry;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod guessable;
pub(crate) mod memory;
pub(crate) mod new_key;
mod open;
pub(crate) mod set;
pub(crate) mod settings;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::yield_now;

use self::change::{Change, KeyChange};
use self::entry::{KeyEntry, check_against, check_size};
use self::error::KeyFileError;
use self::file::Owners;
use self::folder::Folders;
use self::guessable::GuessableKey;
use self::set::{Key, KeySet, OutOfForce, Standing};
use crate::config::{KeyName, LoopbackRange};
use crate::process::blocking::BlockingThread;
use crate::protocol::{KeyId, SharedKey};
use crate::report::{AnyError, SystemError};

/// The key store: the keys in force, and where they came from.
pub(crate) struct KeyStore {
    paths: Vec<PathBuf>,
    folders: Folders,
    /// Of which each key has an address.
    range: Option<LoopbackRange>,
    in_force: watch::Sender<Arc<KeySet>>,
    former: Mutex<Former>,
    /// Reads the key files, since a file system may be slow.
    files: BlockingThread,
}

/// Keys that were in force before.
#[derive(Default)]
struct Former {
    /// Removed by a reload, with connections that are open.
    removed: Vec<Arc<Key>>,
    /// Never in force again in this process.
    revoked: HashSet<KeyId>,
}

/// What a reload has done.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) changes: Vec<KeyChange>,
    /// The warnings about keys that can be guessed, with their ids.
    pub(crate) guessable: Vec<(KeyId, GuessableKey)>,
}

/// Why the keys were not reloaded.
#[derive(Debug, Error)]
pub(crate) enum KeysStay {
    /// A file is missing, or refused.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// A key was read from standard input.
    #[error("one came from standard input and cannot be read again")]
    ReadOnce,
    /// The thread that reads files has ended.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// A key that is derived and not in force yet.
struct Derived {
    name: KeyName,
    secret: SharedKey,
    entry: KeyEntry,
}

impl KeyStore {
    /// Reads the keys at `paths`; `-` is standard input. Returns the warnings, too, about
    /// keys that can be guessed.
    ///
    /// # Errors
    /// When a key is refused, or the thread that reloads them cannot be started.
    pub(crate) fn load(
        paths: &[PathBuf],
        owners: Owners,
        folders: Folders,
        range: Option<LoopbackRange>,
    ) -> Result<(Self, Vec<(KeyId, GuessableKey)>), AnyError> {
        let derived = derive_all(folder::read_all(paths, owners, folders)?)?;
        let files =
            BlockingThread::start("files").map_err(SystemError::of("cannot start a thread"))?;
        let in_force = watch::Sender::default();
        let paths = paths.to_vec();
        let store = Self { paths, folders, range, in_force, former: Mutex::default(), files };
        let Reloaded { guessable, .. } = store.replace(derived)?;
        Ok((store, guessable))
    }

    /// The keys in force now.
    pub(crate) fn in_force(&self) -> Arc<KeySet> {
        Arc::clone(&self.in_force.borrow())
    }

    /// The keys in force, and those out of force that have connections.
    pub(crate) fn with_connections(&self) -> (Arc<KeySet>, Vec<Arc<Key>>) {
        let former = self.former();
        let removed = former.removed.iter().filter(|key| key.connections() > 0);
        (self.in_force(), removed.cloned().collect())
    }

    /// A receiver of the keys in force. It is told when the first key, which a sender uses,
    /// is another.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<KeySet>> {
        self.in_force.subscribe()
    }

    /// Reloads all key files, all or none.
    ///
    /// # Errors
    /// Why the keys were not reloaded.
    pub(crate) async fn reload(&self) -> Result<Reloaded, KeysStay> {
        if self.paths.iter().any(|path| path == Path::new("-")) {
            return Err(KeysStay::ReadOnce);
        }
        let (paths, folders) = (self.paths.clone(), self.folders);
        let read = move || Ok(folder::read_all(&paths, Owners::Own, folders).and_then(derive_all));
        let derived = self.files.run(read).await?;
        Ok(self.replace(derived?)?)
    }

    /// Puts the keys of these entries in force, all or none.
    ///
    /// # Errors
    /// Why one is refused.
    pub(crate) async fn replace_by(
        &self,
        entries: Vec<KeyEntry>,
    ) -> Result<Reloaded, KeyFileError> {
        check_size(&entries)?;
        let mut derived = Vec::with_capacity(entries.len());
        for entry in entries {
            push_derived(&mut derived, entry)?;
            // A thousand keys take tens of milliseconds.
            yield_now().await;
        }
        self.replace(derived)
    }

    /// Takes the key of this name out of force, and ends its connections, also where a
    /// reload has removed it before. `None` if there is none.
    pub(crate) fn revoke(&self, name: &KeyName) -> Option<Vec<KeyChange>> {
        let mut former = self.former();
        let mut revoked = Vec::new();
        self.in_force.send_if_modified(|in_force| {
            let (gone, stay) = in_force.iter().cloned().partition(|key| key.name == *name);
            revoked = gone;
            if !revoked.is_empty() {
                *in_force = Arc::new(KeySet::new(stay));
            }
            false
        });
        let removed = former.removed.extract_if(.., |key| key.name == *name);
        revoked.extend(removed.filter(|key| key.connections() > 0));
        let mut changes = Vec::new();
        for key in &revoked {
            former.revoked.insert(key.id());
            changes.push(KeyChange::new(Change::Revoked, name, key.id(), key.connections()));
            key.standing.set(Some(OutOfForce::Revoked));
        }
        (!changes.is_empty()).then_some(changes)
    }

    /// Puts keys in force. Those who watch are told only if the first key differs.
    fn replace(&self, derived: Vec<Derived>) -> Result<Reloaded, KeyFileError> {
        let mut former = self.former();
        for Derived { name, secret, .. } in &derived {
            if former.revoked.contains(&secret.id()) {
                return Err(KeyFileError::Revoked { name: name.clone(), id: secret.id() });
            }
        }
        let named = derived.iter().map(|key| (&key.name, key.entry.settings));
        let mut addresses = address::assign(self.range, named)?.into_iter();
        let mut guessable = Vec::new();
        let mut changes = Vec::new();
        self.in_force.send_if_modified(|in_force| {
            let before = Arc::clone(in_force);
            let keys = derived.into_iter().map(|Derived { name, secret, entry }| {
                let id = secret.id();
                guessable.extend(entry.guessable().map(|warning| (id, warning)));
                let (settings, address) = (entry.settings, addresses.next().flatten());
                let kept = before.find(id);
                let what = if kept.is_some() { Change::Kept } else { Change::Added };
                // A key that comes back has the connections that it had.
                let same = kept.or_else(|| former.removed.iter().find(|key| key.id() == id));
                let open = same.map_or(0, |key| key.connections());
                changes.push(KeyChange::new(what, &name, id, open));
                let (secret, standing) = match same {
                    Some(key) => (Arc::clone(&key.secret), Arc::clone(&key.standing)),
                    None => (Arc::new(secret), Standing::new()),
                };
                standing.set(None);
                Arc::new(Key { name, settings, address, secret, standing })
            });
            let now = KeySet::new(keys.collect());
            former.removed.retain(|key| key.connections() > 0 && now.find(key.id()).is_none());
            for gone in before.iter().filter(|key| now.find(key.id()).is_none()) {
                gone.standing.set(Some(OutOfForce::Removed));
                let open = gone.connections();
                changes.push(KeyChange::new(Change::Removed, &gone.name, gone.id(), open));
                former.removed.push(Arc::clone(gone));
            }
            let first = |keys: &KeySet| keys.first().map(|key| key.id());
            let is_another = first(&now) != first(&before);
            *in_force = Arc::new(now);
            is_another
        });
        Ok(Reloaded { changes, guessable })
    }

    fn former(&self) -> MutexGuard<'_, Former> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn derive_all(entries: Vec<KeyEntry>) -> Result<Vec<Derived>, KeyFileError> {
    check_size(&entries)?;
    let mut derived = Vec::with_capacity(entries.len());
    for entry in entries {
        push_derived(&mut derived, entry)?;
    }
    Ok(derived)
}

fn push_derived(derived: &mut Vec<Derived>, entry: KeyEntry) -> Result<(), KeyFileError> {
    let secret = entry.derive()?;
    let others = derived.iter().map(|other| (&other.name, other.secret.id()));
    check_against(others, &entry.name, secret.id())?;
    derived.push(Derived { name: entry.name.clone(), secret, entry });
    Ok(())
}
