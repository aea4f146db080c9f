//! `spiped setup revoke`: a client is shut out.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::receiver::Receiver;
use crate::config::KeyName;
use crate::config::setup::{KeyNames, Run};
use crate::setup::error::SetupError;
use crate::setup::plan::{FOLDER, file};

/// Removes the files of a key, and of the new key in a rotation, then ends the connections
/// that have them. The files go first: whatever happens then, no boot has the key.
pub(super) fn revoke(
    receiver: &Receiver<'_>,
    name: &KeyName,
    run: Run,
) -> Result<String, SetupError> {
    let new = KeyNames::try_from(name.clone()).ok().map(|names| names.new);
    let names: Vec<_> = [Some(name.clone()), new].into_iter().flatten().collect();
    let files: Vec<_> = names.iter().flat_map(|name| files_of(receiver, name)).collect();
    let mut told = Vec::new();
    if run == Run::Dry {
        told.extend(files.iter().map(|file| format!("would remove {}", file.display())));
        if receiver.is_running {
            told.push(format!("would end the connections of {name} at {}", receiver.unit));
        }
        if files.is_empty() && !receiver.is_running {
            return Err(receiver.no_key(name));
        }
        return Ok(told.join("\n") + "\n");
    }
    for file in &files {
        remove(file)?;
        told.push(format!("removed {}", file.display()));
    }
    for name in &names {
        let revoked = receiver.revoke(name).map_err(|error| {
            if files.is_empty() { error.into() } else { SetupError::NotRevoked(error) }
        })?;
        told.extend(revoked.iter().map(ToString::to_string));
    }
    if told.is_empty() {
        return Err(receiver.no_key(name));
    }
    if !receiver.is_running {
        told.push(format!("the receiver {} does not run", receiver.pipe));
    }
    if receiver.names().is_empty() {
        let pipe = receiver.pipe;
        told.push(format!(
            "that was the last key of {pipe}: nobody can connect, and the receiver starts again \
             only with a key; 'spiped setup client NAME --pipe {pipe}' makes one"
        ));
    }
    Ok(told.join("\n") + "\n")
}

/// The files of a key that are there. Its settings come before it, since settings without
/// a key stop a start.
fn files_of(receiver: &Receiver<'_>, name: &KeyName) -> Vec<PathBuf> {
    let own = receiver.key_file(name);
    let encrypted = file(receiver.pipe, "keys.cred");
    let files = if *receiver.pipe == *name {
        vec![own, file(receiver.pipe, "key.cred")]
    } else {
        let of = |folder: &Path| ["conf", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        [of(&receiver.folder()), of(&encrypted)].concat()
    };
    files.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// Removes a file, and its folder if that is empty then: a folder without a key stops a
/// start.
fn remove(path: &Path) -> Result<(), SetupError> {
    let failed = |path: &Path, error| SetupError::File { what: "remove", path: path.into(), error };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, error)),
        _ => {}
    }
    let Some(folder) = path.parent() else { return Ok(()) };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed(path, error))?;
    if folder == Path::new(FOLDER) {
        return Ok(());
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            Err(failed(folder, error))
        }
        _ => Ok(()),
    }
}
