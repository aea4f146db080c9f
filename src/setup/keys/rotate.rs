//! `spiped setup rotate --pipe`: the two steps of a rotation on the receiver's host.

use std::fs::{self, File};
use std::path::Path;

use super::receiver::{Receiver, id_of};
use crate::config::KeyName;
use crate::config::setup::{KeyNames, OldConnections, Run};
use crate::keys::change::KeyChange;
use crate::protocol::KeyId;
use crate::setup::SetupReport;
use crate::setup::error::SetupError;
use crate::setup::report::{Reach, by_hand};
use crate::status::Key;

/// Puts a new key in force beside the old one, and tells the next steps. Where both are in
/// force already, it tells the same again.
pub(super) fn begin(
    receiver: &Receiver<'_>,
    names: &KeyNames,
    run: Run,
) -> Result<String, SetupError> {
    let KeyNames { name, new } = names;
    receiver.has_plain_keys()?;
    let (old_file, new_file) = (receiver.key_file(name), receiver.key_file(new));
    if old_file.symlink_metadata().is_err() {
        return Err(receiver.no_key(name));
    }
    if run == Run::Dry {
        return receiver.would_put_in_force(&new_file);
    }
    let changes = receiver.put_in_force(&new_file)?;
    let (old_id, new_id) = (id_of(&old_file)?, id_of(&new_file)?);
    let Reach { host, .. } = Reach::of(receiver.source.as_ref());
    let pipe = receiver.pipe;
    let sender = pipe.of_sender();
    let whose = if *pipe == *name { "on each host that has the key" } else { "on its host" };
    Ok(format!(
        "{name} has two keys now.\n  \
         The id of the old one is {old_id}{}.\n  \
         The id of the new one is {new_id}{}.\n{}\
         Now, {whose}, where {sender} is the pipe's name:\n  \
         ssh {host} sudo cat {path} | sudo spiped setup rotate {sender} --key -\n\
         Then, here:\n  \
         sudo spiped setup rotate {name} --pipe {pipe} --finish\n{}",
        open(&changes, old_id),
        open(&changes, new_id),
        receiver.unless_running(),
        by_hand(&new_file),
        path = new_file.display(),
    ))
}

/// Puts the new key in place of the old one, which goes out of force. Where that is done
/// already, it tells so.
///
/// The old key is revoked while it still has its name: afterwards that is the new one's.
pub(super) fn finish(
    receiver: &Receiver<'_>,
    names: &KeyNames,
    old: OldConnections,
    run: Run,
) -> Result<SetupReport, SetupError> {
    let KeyNames { name, new } = names;
    receiver.has_plain_keys()?;
    let (old_file, new_file) = (receiver.key_file(name), receiver.key_file(new));
    let is_begun = new_file.symlink_metadata().is_ok();
    if !is_begun && old_file.symlink_metadata().is_err() {
        return Err(receiver.no_key(name));
    }
    if run == Run::Dry {
        let (from, to) = (new_file.display(), old_file.display());
        let ends = match old {
            OldConnections::End if receiver.is_running => receiver.would_end(name) + "\n",
            OldConnections::End | OldConnections::GoOn => String::new(),
        };
        let rename = format!("would rename {from} to {to}\n");
        let steps = if is_begun { ends + &rename } else { String::new() };
        return Ok(SetupReport::of(steps + &receiver.would_reload()));
    }
    let mut told = String::new();
    if is_begun {
        let is_unused =
            |key: &Key| key.name == new.as_str() && key.in_force && key.last_used.is_none();
        let is_unused = receiver.keys().iter().any(is_unused);
        if old == OldConnections::End {
            let revoked = receiver.revoke(name).map_err(SetupError::OldNotRevoked)?;
            told.extend(revoked.iter().map(|it| format!("{it}\n")));
        }
        rename(&new_file, &old_file)?;
        if is_unused {
            told.push_str(&not_used(receiver, name, &old_file));
        }
    } else if old == OldConnections::End {
        told.push_str("the rotation was finished before: no connection is ended\n");
    }
    let changes = match receiver.reload() {
        Ok(changes) => changes,
        // What was done is told.
        Err(error) => return Ok(SetupReport { failed: Some(error), ..SetupReport::of(told) }),
    };
    let id = id_of(&old_file)?;
    let gone = changes.iter().filter(|it| it.is_removed()).map(|it| format!("{it}\n"));
    told.extend(gone);
    Ok(SetupReport::of(format!(
        "{told}{name} has one key.\n  Its id is {id}{}.\n{}",
        open(&changes, id),
        receiver.unless_running(),
    )))
}

/// The warning about a client that has not changed over yet, as far as the running receiver
/// knows: one that was started since knows nothing of handshakes before. So this only warns.
fn not_used(receiver: &Receiver<'_>, name: &KeyName, path: &Path) -> String {
    let Reach { host, .. } = Reach::of(receiver.source.as_ref());
    format!(
        "warning: since the receiver was started, nobody has used the new key of {name}.\n\
         A client that still has the old key is refused from now on; on its host:\n  \
         ssh {host} sudo cat {} | sudo spiped setup rotate {} --key -\n",
        path.display(),
        receiver.pipe.of_sender(),
    )
}

/// How many connections have a key, if the receiver runs.
fn open(changes: &[KeyChange], id: KeyId) -> String {
    match changes.iter().find(|change| change.id == id.to_string()).map(|change| change.open) {
        Some(1) => ", with 1 open connection".to_owned(),
        Some(count) => format!(", with {count} open connections"),
        None => String::new(),
    }
}

/// Renames a key file over another one, for good. A folder that is empty then goes, too,
/// since it would stop a start.
fn rename(from: &Path, to: &Path) -> Result<(), SetupError> {
    let failed = |error| SetupError::File { what: "replace", path: to.into(), error };
    fs::rename(from, to).map_err(failed)?;
    for folder in [to.parent(), from.parent()].into_iter().flatten() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    if from.parent() != to.parent()
        && let Some(folder) = from.parent()
    {
        // Fails where other keys are there.
        let _others = fs::remove_dir(folder);
    }
    Ok(())
}
