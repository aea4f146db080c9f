//! `spiped setup revoke`: a client is shut out.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::receiver::{Receiver, id_of};
use crate::config::KeyName;
use crate::config::setup::{KeyNames, Run};
use crate::process::new_file;
use crate::setup::SetupReport;
use crate::setup::error::SetupError;
use crate::setup::plan::file;
use crate::setup::report::left;
use crate::unit::configuration::FOLDER;

/// Removes the files of a key, and of the new key in a rotation, then ends the connections
/// that have them. The files go first: whatever happens then, no boot has the key. But files
/// that cannot be removed keep no connection alive.
pub(super) fn revoke(
    receiver: &Receiver<'_>,
    name: &KeyName,
    run: Run,
) -> Result<SetupReport, SetupError> {
    let new = KeyNames::try_from(name.clone()).ok().map(|names| names.new);
    let names: Vec<_> = [Some(name.clone()), new].into_iter().flatten().collect();
    let files: Vec<_> = names.iter().flat_map(|name| files_of(receiver, name)).collect();
    let mut told = Vec::new();
    if run == Run::Dry {
        told.extend(files.iter().map(|file| format!("would remove {}", file.display())));
        if receiver.is_running {
            told.push(receiver.would_end(name));
        }
        if files.is_empty() && !receiver.is_running {
            return Err(receiver.no_key(name));
        }
        return Ok(SetupReport::of(told.join("\n") + "\n"));
    }
    let ids: Vec<_> = files.iter().filter_map(|file| id_of(file).ok()).collect();
    let mut failed = None;
    for file in &files {
        told.push(match remove(file) {
            Ok(()) => format!("removed {}", file.display()),
            Err(error) => {
                failed = Some(SetupError::FilesLeft(name.clone()));
                left(file, &error.to_string())
            }
        });
    }
    for name in &names {
        match receiver.revoke(name) {
            Ok(revoked) => told.extend(revoked.iter().map(ToString::to_string)),
            Err(error) if files.is_empty() => failed = Some(error.into()),
            // Whoever is connected is the greater harm.
            Err(error) => failed = Some(SetupError::NotRevoked(error)),
        }
    }
    if told.is_empty() {
        return Err(failed.unwrap_or_else(|| receiver.no_key(name)));
    }
    if !receiver.is_running {
        told.push(format!("the receiver {} does not run", receiver.pipe));
    }
    let pipe = receiver.pipe;
    // A copy of a key: the running receiver has one key under one name.
    let keys = receiver.keys().into_iter().filter(|key| key.in_force);
    let same: Vec<_> = keys.filter(|key| ids.iter().any(|id| id.to_string() == key.id)).collect();
    told.extend(same.iter().map(|key| {
        format!(
            "the same key, {}, is still in force as {1}: 'spiped setup revoke {1} --pipe {pipe}' \
             revokes it",
            key.id, key.name
        )
    }));
    if receiver.names().is_empty() && same.is_empty() {
        told.push(format!(
            "that was the last key of {pipe}: nobody can connect, and the receiver starts again \
             only with a key; 'spiped setup client NAME --pipe {pipe}' makes one"
        ));
    }
    for kind in ["keys", "keys.cred"] {
        remove_folder(&file(receiver.pipe, kind));
    }
    Ok(SetupReport { failed, ..SetupReport::of(told.join("\n") + "\n") })
}

/// The files of a key that are there. Its settings come after it: they stop nothing, and a
/// key must not be in force without them.
fn files_of(receiver: &Receiver<'_>, name: &KeyName) -> Vec<PathBuf> {
    let own = receiver.key_file(name);
    let encrypted = file(receiver.pipe, "keys.cred");
    let files = if *receiver.pipe == *name {
        vec![own, file(receiver.pipe, "key.cred")]
    } else {
        let folders = [receiver.folder(), encrypted];
        let of = |kind: &str| folders.each_ref().map(|it| it.join(format!("{name}.{kind}")));
        [of("key"), of("conf")].concat()
    };
    files.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// Removes a file, for good.
fn remove(path: &Path) -> io::Result<()> {
    if path.extension().is_some_and(|kind| kind == "conf") && path.with_extension("key").exists() {
        return Err(io::Error::other("its key is still there"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new(FOLDER));
    File::open(folder)?.sync_all().map_err(|error| {
        io::Error::new(error.kind(), format!("it may come back at a power cut: {error}"))
    })
}

/// Removes a folder of keys in which none is any more, if nothing else is there. It may stay,
/// since it stops no start: it may be a link, or a file system of its own.
fn remove_folder(folder: &Path) {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    if files.all(|file| file.path().extension().is_none_or(|kind| kind != "key")) {
        new_file::remove_unfinished(folder);
        let _others = fs::remove_dir(folder);
    }
}
