//! Where keys come from: the files and folders after `-k`.
//!
//! In a folder, `NAME.key` is a key, and `NAME.conf` beside it its settings. In systemd's
//! folder of credentials, `PIPE.keys_NAME.key` and `PIPE.keys_NAME.conf` are those of
//! NAME, and `PIPE.key` is the key PIPE.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::entry::{KEYS_MAX, KeyEntry, SETTINGS_MAX};
use super::error::KeyFileError;
use super::file::{Owners, content};
use super::open::open;
use super::settings::KeySettings;
use crate::config::KeyName;
use crate::config::key_name::{KEY_ENDING, NEW};

/// What the name of a file of settings ends in.
const SETTINGS_ENDING: &str = ".conf";
/// What stands before the name in the credential of a key from a folder.
const OF_FOLDER: &str = ".keys_";
/// The content that a unit gives a credential for which there is no file.
const MISSING: &[u8] = b"missing";

/// Whether keys may come from folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folders {
    /// Those of a receiver.
    Allowed,
    /// A sender has one key.
    Refused,
}

/// How the files of a folder are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// `NAME.key`, `NAME.conf`.
    Plain,
    /// As systemd names credentials.
    Credentials,
}

/// A key file that was found.
struct Found {
    name: KeyName,
    path: PathBuf,
    settings: Option<PathBuf>,
}

/// A warning: settings that no key has. They stop nothing, so that a key can be removed before
/// its settings, and is never in force without them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnusedSettings(PathBuf);

impl UnusedSettings {
    /// What the operator can do.
    pub(crate) const HINT: &str = "NAME.conf belongs to NAME.key; remove it if that key is gone";
}

impl fmt::Display for UnusedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "beside the settings {} is no key", self.0.display())
    }
}

/// Reads all keys, in the order of the paths, and in a folder in the order of the names.
///
/// # Errors
/// When a file or folder cannot be read or is refused, a folder has something else in it, or
/// there is no key.
pub(crate) fn read_all(
    paths: &[PathBuf],
    owners: Owners,
    folders: Folders,
) -> Result<Vec<KeyEntry>, KeyFileError> {
    let mut entries = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        if paths[..number].contains(path) {
            return Err(KeyFileError::Twice(path.clone()));
        }
        if path != Path::new("-") && path.is_dir() {
            if folders == Folders::Refused {
                return Err(KeyFileError::FolderOfSender(path.clone()));
            }
            let is_credentials = env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|it| it == *path);
            let naming = if is_credentials { Naming::Credentials } else { Naming::Plain };
            for found in find(path, owners, naming)? {
                let entry = read(&found, owners)?;
                if naming == Naming::Plain || *entry.content != *MISSING {
                    entries.push(entry);
                }
                // Each takes memory.
                if entries.len() > KEYS_MAX {
                    return Err(KeyFileError::TooMany);
                }
            }
        } else {
            let content = content(path, owners)?;
            let name = KeyName::of_file(path).ok_or_else(|| KeyFileError::Name(path.clone()))?;
            let settings = KeySettings::default();
            entries.push(KeyEntry { name, path: Some(path.clone()), content, settings });
        }
    }
    match paths.first() {
        Some(folder) if entries.is_empty() => Err(KeyFileError::NoKeys(folder.clone())),
        _ => Ok(entries),
    }
}

/// The settings in these folders that no key has.
pub(crate) fn unused_settings(paths: &[PathBuf]) -> Vec<UnusedSettings> {
    let files = paths.iter().flat_map(fs::read_dir).flatten().flatten();
    let is_unused = |file: &PathBuf| {
        let Some(name) = file.to_str().and_then(|it| it.strip_suffix(SETTINGS_ENDING)) else {
            return false;
        };
        let has = |ending: &str| Path::new(&format!("{name}{ending}{KEY_ENDING}")).exists();
        !(has("") || has(NEW))
    };
    let is_seen = |file: &fs::DirEntry| !is_left_over(&file.file_name());
    let mut unused: Vec<_> =
        files.filter(is_seen).map(|file| file.path()).filter(is_unused).collect();
    unused.sort();
    unused.into_iter().map(UnusedSettings).collect()
}

/// The paths at which something is, or all if nothing is at any.
pub(crate) fn existing(paths: &[PathBuf]) -> Vec<PathBuf> {
    let is_there = |path: &&PathBuf| path.symlink_metadata().is_ok();
    let there: Vec<_> = paths.iter().filter(is_there).cloned().collect();
    if there.is_empty() { paths.to_vec() } else { there }
}

fn read(found: &Found, owners: Owners) -> Result<KeyEntry, KeyFileError> {
    let content = content(&found.path, owners)?;
    let settings = found.settings.as_deref();
    let settings =
        settings.map_or(Ok(KeySettings::default()), |path| read_settings(path, owners))?;
    Ok(KeyEntry { name: found.name.clone(), path: Some(found.path.clone()), content, settings })
}

/// The keys of a folder, by name.
fn find(folder: &Path, owners: Owners, naming: Naming) -> Result<Vec<Found>, KeyFileError> {
    check_folder(folder, owners)?;
    let unread = |error| KeyFileError::Read { path: folder.into(), error };
    let (mut keys, mut settings) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let (file, path) = (entry.file_name(), entry.path());
        let part = match naming {
            Naming::Plain => file,
            Naming::Credentials => of_credential(file),
        };
        let is_folder = entry.file_type().map_err(unread)?.is_dir();
        // The volumes of Kubernetes have such folders.
        let is_hidden = part.to_string_lossy().starts_with("..");
        if is_hidden || !is_folder && is_left_over(&part) {
            continue;
        }
        if is_folder {
            return Err(KeyFileError::FolderInFolder(path));
        }
        let name = |ending| part.to_str()?.strip_suffix(ending)?.parse::<KeyName>().ok();
        match (name(KEY_ENDING), name(SETTINGS_ENDING)) {
            (Some(name), _) => keys.push(Found { name, path, settings: None }),
            (None, Some(name)) => settings.push((name, path)),
            (None, None) => return Err(no_key(path, &part)),
        }
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    for key in &mut keys {
        let of = |wanted: &str| settings.iter().find(|(name, _)| name.as_str() == wanted);
        // A key that is to follow another one has the settings of that one.
        let its_own = of(key.name.as_str()).or_else(|| of(key.name.without_new()));
        key.settings = its_own.map(|(_, path)| path.clone());
    }
    Ok(keys)
}

/// The error of a file of which neither a key nor its settings can have the name.
fn no_key(path: PathBuf, file: &OsString) -> KeyFileError {
    let file = file.to_string_lossy();
    match [KEY_ENDING, SETTINGS_ENDING].iter().find_map(|ending| file.strip_suffix(ending)) {
        Some(name) => KeyFileError::NameInFolder { path, name: name.to_owned() },
        None => KeyFileError::NoKeyOfFolder(path),
    }
}

/// The name of the file of which a credential is the copy. That of the credential in the
/// place of a folder that is missing begins with a dot.
fn of_credential(file: OsString) -> OsString {
    let Some(name) = file.to_str() else { return file };
    match name.split_once(OF_FOLDER) {
        Some((_pipe, of_folder)) => of_folder.into(),
        None if name.rsplit_once('.').is_some_and(|(_, ending)| ending == "keys") => ".keys".into(),
        None => file,
    }
}

/// Whether an editor, a package or somebody has left the file there.
pub(crate) fn is_left_over(file: &OsString) -> bool {
    let name = file.to_string_lossy();
    name.starts_with('.')
        || name.ends_with('~')
        || name.ends_with(".swp")
        || name.contains(".dpkg-")
}

/// Refuses a folder in which another user could put a key.
fn check_folder(folder: &Path, owners: Owners) -> Result<(), KeyFileError> {
    let opened = open(folder, owners)?;
    let unread = |error| KeyFileError::Read { path: folder.into(), error };
    let metadata = opened.metadata().map_err(unread)?;
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o7777);
    if !owners.include(owner) {
        return Err(KeyFileError::Owner { path: folder.into(), owner });
    }
    if mode & 0o022 != 0 {
        return Err(KeyFileError::FolderMode { path: folder.into(), mode });
    }
    Ok(())
}

fn read_settings(path: &Path, owners: Owners) -> Result<KeySettings, KeyFileError> {
    let unread = |error| KeyFileError::Read { path: path.into(), error };
    let mut file = open(path, owners)?;
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotRegular(path.into()));
    }
    if !owners.include(metadata.uid()) {
        return Err(KeyFileError::Owner { path: path.into(), owner: metadata.uid() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(KeyFileError::FolderMode { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    let wrong = |reason| KeyFileError::Settings { path: path.into(), reason };
    if metadata.len() > u64::try_from(SETTINGS_MAX).unwrap_or(u64::MAX) {
        return Err(wrong(format!("it has more than {SETTINGS_MAX} bytes")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            wrong("it is not UTF-8".to_owned())
        } else {
            unread(error)
        }
    })?;
    text.parse().map_err(wrong)
}
