//! Tests of the key store.

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
    let b = Arc::clone(&store.in_force().keys[1]);
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
    assert_eq!((b.standing.get(), store.in_force().keys[1].connections()), (None, 1));
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
    for (file, content) in [("d.key", &b"short"[..]), ("readme", b""), ("a.conf", b"x")] {
        let path = folder.path().join(file);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
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
    let keys = store.in_force().keys.clone();
    let _open = keys.iter().map(|key| key.count(None).unwrap()).collect::<Vec<_>>();
    fs::remove_file(folder.path().join("b.key")).unwrap();
    store.reload().await.unwrap();
    let revoke = |name: &str| store.revoke(&name.parse().unwrap());
    assert_eq!(told(&revoke("b").unwrap()), ["revoked b 1"]);
    assert_eq!(told(&revoke("a").unwrap()), ["revoked a 1"]);
    assert_eq!(revoke("a"), None);
    assert!(keys.iter().all(|key| key.is_revoked()));
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
    let key = Arc::clone(&store.in_force().keys[0]);
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
    let key = Arc::clone(&store.in_force().keys[0]);
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
    refused(std::slice::from_ref(&path), Folders::Refused, "is a folder, and a sender has one key");
    fs::write(path.join("more"), "x").unwrap();
    refused(std::slice::from_ref(&path), Folders::Allowed, "is neither a key nor");
    fs::remove_file(path.join("more")).unwrap();
    for name in ["more", "old.swp", ".x", "b.key"] {
        fs::create_dir(path.join(name)).unwrap();
        let reason = format!("{name} is a folder, and a folder of keys has none");
        refused(std::slice::from_ref(&path), Folders::Allowed, &reason);
        fs::remove_dir(path.join(name)).unwrap();
    }
    // As in a volume of Kubernetes.
    fs::create_dir(path.join("..2026_11")).unwrap();
    assert_eq!(names(&load(std::slice::from_ref(&path), Folders::Allowed).unwrap()), ["a"]);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
    refused(std::slice::from_ref(&path), Folders::Allowed, "users other than its owner can write");
    write(&path.join("a b"), 7);
    refused(&[path.join("a b")], Folders::Allowed, "has no name for a key");
}

#[test]
fn an_empty_folder_stops_nothing_where_there_is_another_key() {
    let (folder, _store) = store(&[("a", 1)]);
    let empty = tempfile::tempdir().unwrap();
    let load = |paths: &[PathBuf]| KeyStore::load(paths, Owners::Own, Folders::Allowed, None);
    let error = load(&[empty.path().into()]).err().unwrap().to_string();
    assert!(error.contains("no key is in the folder"), "{error}");
    let (store, _) = load(&[empty.path().into(), folder.path().join("a.key")]).unwrap();
    assert_eq!(names(&store), ["a"]);
}

#[test]
fn settings_without_a_key_are_told_of_and_stop_nothing() {
    let (folder, _store) = store(&[("a", 1), ("b.new", 2)]);
    for name in ["a", "b", "c", ".d"] {
        fs::write(folder.path().join(format!("{name}.conf")), "CONNECTIONS=1\n").unwrap();
    }
    let unused = folder::unused_settings(&[folder.path().into(), folder.path().join("a.key")]);
    let unused: Vec<_> = unused.iter().map(ToString::to_string).collect();
    let of_c = folder.path().join("c.conf");
    assert_eq!(unused, [format!("beside the settings {} is no key", of_c.display())]);
    // A key that is to follow another one has that one's settings, also where that is gone.
    let paths = [folder.path().to_path_buf()];
    let (store, _) = KeyStore::load(&paths, Owners::Own, Folders::Allowed, None).unwrap();
    let limits = |key: &Arc<Key>| key.settings.connections.map(std::num::NonZeroU32::get);
    assert_eq!(store.in_force().iter().map(limits).collect::<Vec<_>>(), [Some(1); 2]);
}

#[test]
fn a_folder_with_too_many_keys_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..=1001 {
        write(&folder.path().join(format!("{number:04}.key")), 1);
    }
    // The last one, which is not reached, could not be read.
    fs::write(folder.path().join("1001.key"), "").unwrap();
    fs::set_permissions(
        folder.path().join("1001.key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let read = folder::read_all(&[folder.path().into()], Owners::Own, Folders::Allowed);
    assert!(matches!(read, Err(KeyFileError::TooMany)));
}
