//! The commands for keys: `spiped keygen`, `keyid`, `rekey` and `revoke`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::output::print;
use super::{say, warn_of, warn_of_settings};
use crate::config::key_name::NAMES;
use crate::config::{KeyName, LoopbackRange, unit_name};
use crate::daemon::control::client;
use crate::keys::address;
use crate::keys::change::KeyChange;
use crate::keys::entry::{self, KeyEntry};
use crate::keys::error::KeyFileError;
use crate::keys::file::{self, KeyFile, Owners};
use crate::keys::folder::{self, Folders};
use crate::keys::new_key::generate;
use crate::process::privileges;
use crate::protocol::KeyId;
use crate::report::{AnyError, WARNING};
use crate::setup;
use crate::status::Detail;

pub(super) fn keygen(path: &Path) -> Result<(), AnyError> {
    let id = generate(path)?;
    if KeyName::of_file(path).is_none() {
        say(&format!("{WARNING}{}", KeyFileError::Name(path.into())), NAMES);
    }
    print(&format_args!("{id}\n"))
}

pub(super) fn keyid(
    path: &Path,
    user: Option<&str>,
    range: Option<LoopbackRange>,
) -> Result<(), AnyError> {
    let user = user.map(privileges::user_of_name).transpose()?;
    let owners = user.map_or(Owners::Anybody, Owners::User);
    if range.is_none() && (path == Path::new("-") || !path.is_dir()) {
        let KeyFile { key, guessable } = file::read(path, owners)?;
        warn_of(guessable);
        return print(&format_args!("{}\n", key.id()));
    }
    let entries = folder::read_all(&[path.into()], owners, Folders::Allowed)?;
    let keys = entry::check(&entries)?;
    warn_of(entries.iter().filter_map(KeyEntry::guessable));
    let addresses = match range {
        Some(_) => address::assign(range, entries.iter().map(|it| (&it.name, it.settings)))?,
        None => vec![None; keys.len()],
    };
    let line = |((name, id), address): (&(KeyName, KeyId), Option<Ipv4Addr>)| match address {
        Some(address) => format!("{name} {id} {address}\n"),
        None => format!("{name} {id}\n"),
    };
    print(&keys.iter().zip(addresses).map(line).collect::<Vec<_>>().concat())
}

pub(super) fn rekey(socket: &Path, keys: &[PathBuf]) -> Result<(), AnyError> {
    let _lock = setup::lock::lock_for(keys)?;
    let (changes, guessable) = client::rekey(socket, keys)?;
    warn_of_settings(keys);
    // In a unit, the daemon has logged both in the log of the unit.
    if unit_name().is_some() {
        return Ok(());
    }
    warn_of(guessable);
    print_changes(&changes)
}

pub(super) fn revoke(socket: &Path, key: &KeyName) -> Result<(), AnyError> {
    print_changes(&client::revoke(socket, key)?)?;
    say(
        &format!("{WARNING}a reload is refused as long as the file of {key} is there"),
        "remove that file, unless it is gone: the next start would have the key again",
    );
    // A rotation has two keys for one client.
    let status = client::status(socket, Detail::Summary);
    for other in status.map_or(vec![], |status| status.keys) {
        let is_of_rotation = other
            .name
            .parse::<KeyName>()
            .is_ok_and(|other| other != *key && other.without_new() == key.without_new());
        if other.in_force && is_of_rotation {
            let hint = format!(
                "'spiped revoke {} {}' shuts that one out, too",
                socket.display(),
                other.name
            );
            say(&format!("{WARNING}{} is still in force", other.name), &hint);
        }
    }
    Ok(())
}

fn print_changes(changes: &[KeyChange]) -> Result<(), AnyError> {
    let lines: Vec<_> = changes.iter().map(|change| format!("{change}\n")).collect();
    print(&lines.concat())
}
