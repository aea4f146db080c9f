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
pub(crate) mod set;
pub(crate) mod settings;
pub(crate) mod terminal;

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
                *in_force = Arc::new(KeySet(stay));
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
            let now = KeySet(keys.collect());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(path: &Path, byte: u8) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        io::Write::write_all(&mut file.unwrap(), &[byte; 32]).unwrap();
    }

    /// A store of the keys in a folder.
    fn store(keys: &[(&str, u8)]) -> (tempfile::TempDir, KeyStore) {
        let folder = tempfile::tempdir().unwrap();
        for (name, byte) in keys {
            write(&folder.path().join(format!("{name}.key")), *byte);
        }
        let paths = [folder.path().to_path_buf()];
        let (store, _) = KeyStore::load(&paths, Owners::Own, Folders::Allowed, None).unwrap();
        (folder, store)
    }

    fn told(changes: &[KeyChange]) -> Vec<String> {
        let told = |change: &KeyChange| {
            let line = change.line();
            let (before, open) = line.rsplit_once(' ').unwrap();
            format!("{} {open}", before.rsplit_once(' ').unwrap().0)
        };
        changes.iter().map(told).collect()
    }

    fn names(store: &KeyStore) -> Vec<String> {
        store.in_force().iter().map(|key| key.name.to_string()).collect()
    }

    #[tokio::test]
    async fn a_reload_says_what_was_added_removed_and_kept() {
        let (folder, store) = store(&[("a", 1), ("b", 2)]);
        let b = Arc::clone(&store.in_force().0[1]);
        let _open = b.count(None).unwrap();
        fs::remove_file(folder.path().join("b.key")).unwrap();
        write(&folder.path().join("c.key"), 3);
        let changes = store.reload().await.unwrap().changes;
        assert_eq!(told(&changes), ["kept a 0", "added c 0", "removed b 1"]);
        assert_eq!(names(&store), ["a", "c"]);
        assert_eq!(b.standing.get(), Some(OutOfForce::Removed));
        // It comes back with the connections that it has.
        write(&folder.path().join("b.key"), 2);
        store.reload().await.unwrap();
        assert_eq!((b.standing.get(), store.in_force().0[1].connections()), (None, 1));
    }

    #[tokio::test]
    async fn those_who_watch_are_told_of_another_first_key_and_of_nothing_else() {
        let (folder, store) = store(&[("a", 1), ("b", 2)]);
        let mut watch = store.watch();
        write(&folder.path().join("b.key"), 3);
        store.reload().await.unwrap();
        assert!(!watch.has_changed().unwrap());
        write(&folder.path().join("a.key"), 4);
        store.reload().await.unwrap();
        assert!(watch.has_changed().unwrap());
        let first = watch.borrow_and_update().first().unwrap().id();
        assert_eq!(first, store.in_force().first().unwrap().id());
    }

    #[tokio::test]
    async fn one_bad_file_leaves_all_keys_as_they_are() {
        let (folder, store) = store(&[("a", 1), ("b", 2)]);
        write(&folder.path().join("c.key"), 3);
        for (file, content) in [("d.key", &b"short"[..]), ("readme", b""), ("e.conf", b"")] {
            let path = folder.path().join(file);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            let error = store.reload().await.unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
            assert_eq!(names(&store), ["a", "b"]);
            fs::remove_file(path).unwrap();
        }
        write(&folder.path().join("d.key"), 1);
        let error = store.reload().await.unwrap_err().to_string();
        assert!(error.contains("a and d are the same key"), "{error}");
        assert_eq!(names(&store), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_revoked_key_is_out_of_force_for_ever_also_if_a_reload_removed_it_before() {
        let (folder, store) = store(&[("a", 1), ("b", 2)]);
        let keys = store.in_force().0.clone();
        let _open = keys.iter().map(|key| key.count(None).unwrap()).collect::<Vec<_>>();
        fs::remove_file(folder.path().join("b.key")).unwrap();
        store.reload().await.unwrap();
        let revoke = |name: &str| store.revoke(&name.parse().unwrap());
        assert_eq!(told(&revoke("b").unwrap()), ["revoked b 1"]);
        assert_eq!(told(&revoke("a").unwrap()), ["revoked a 1"]);
        assert_eq!(revoke("a"), None);
        for key in &keys {
            key.revoked().await;
        }
        assert_eq!(names(&store), [""; 0]);
        let error = store.reload().await.unwrap_err().to_string();
        assert!(error.contains("the key a (") && error.contains("was revoked"), "{error}");
        fs::remove_file(folder.path().join("a.key")).unwrap();
        write(&folder.path().join("c.key"), 3);
        store.reload().await.unwrap();
        assert_eq!(names(&store), ["c"]);
    }

    #[test]
    fn a_key_has_no_more_connections_than_it_may_have() {
        let (folder, store) = store(&[("a", 1)]);
        let key = Arc::clone(&store.in_force().0[0]);
        let two = std::num::NonZeroU32::new(2);
        let _first = key.count(two).unwrap();
        let second = key.count(two).unwrap();
        assert_eq!(key.count(two).err(), Some(2));
        assert_eq!(key.connections(), 2);
        drop(second);
        assert!(key.count(two).is_ok());
        // The key's own settings come before the option.
        fs::write(folder.path().join("a.conf"), "CONNECTIONS=1\n").unwrap();
        let (store, _) =
            KeyStore::load(&[folder.path().into()], Owners::Own, Folders::Allowed, None).unwrap();
        let key = Arc::clone(&store.in_force().0[0]);
        let _first = key.count(two).unwrap();
        assert_eq!(key.count(two).err(), Some(1));
    }

    #[test]
    fn what_packages_and_editors_leave_is_skipped_and_anything_else_is_refused() {
        let (folder, _store) = store(&[("a", 1)]);
        let load = |paths: &[PathBuf], folders| {
            KeyStore::load(paths, Owners::Own, folders, None).map(|it| it.0)
        };
        let path = folder.path().to_path_buf();
        for name in [".hidden", "a.key~", ".a.key.swp", "a.key.swp", "a.key.dpkg-old"] {
            fs::write(path.join(name), "x").unwrap();
        }
        assert_eq!(names(&load(std::slice::from_ref(&path), Folders::Allowed).unwrap()), ["a"]);
        let refused = |paths: &[PathBuf], folders, part: &str| {
            let error = load(paths, folders).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(
            std::slice::from_ref(&path),
            Folders::Refused,
            "is a folder, and a sender has one key",
        );
        fs::create_dir(path.join("more")).unwrap();
        refused(std::slice::from_ref(&path), Folders::Allowed, "is neither a key nor");
        fs::remove_dir(path.join("more")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        refused(
            std::slice::from_ref(&path),
            Folders::Allowed,
            "users other than its owner can write",
        );
        write(&path.join("a b"), 7);
        refused(&[path.join("a b")], Folders::Allowed, "has no name for a key");
        let empty = tempfile::tempdir().unwrap();
        refused(&[empty.path().into()], Folders::Allowed, "no key is in the folder");
    }
}
