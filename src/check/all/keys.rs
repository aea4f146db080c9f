//! The files of the keys in force, and whether a sender's key opens its pipe.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::geteuid;

use super::facts::{Key, Proof};
use super::files::UnitFiles;
use crate::check;
use crate::config::{KeyName, TunnelConfig};
use crate::daemon::proof::prove;
use crate::keys::error::KeyFileError;
use crate::keys::file::{self, Owners};
use crate::protocol::SharedKey;
use crate::report::Report;
use crate::setup::plan::{read, value};
use crate::setup::prove::tunnel;
use crate::status::{self, Status, UnixTime};

/// The keys in force of a process, with their files.
pub(super) fn in_force(status: &Status, files: Option<&UnitFiles>) -> Vec<Key> {
    status.keys.iter().filter(|key| key.in_force).map(|key| with_file(key, files)).collect()
}

fn with_file(key: &status::Key, files: Option<&UnitFiles>) -> Key {
    let (name, id) = (key.name.clone(), key.id.clone());
    let paths = files.map(|files| files.of_key(&name)).unwrap_or_default();
    let found = paths.into_iter().find_map(|path| Some((written(&path)?, path)));
    let Some((written, path)) = found else {
        return Key { name, id, file: None, written: None, is_in_force: None };
    };
    // That systemd decrypts is not read here.
    let is_plain = path.extension().is_some_and(|it| it == "key");
    let read = is_plain.then(|| file::read(&path, Owners::Anybody).ok()).flatten();
    let is_in_force = read.map(|read| read.key.id().to_string() == id);
    let file = Some(path.display().to_string());
    Key { name, id, file, written: Some(written), is_in_force }
}

fn written(path: &Path) -> Option<UnixTime> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    Some(UnixTime::of(modified))
}

/// Goes the whole way of a sender of a unit, with its key.
pub(super) fn proof(status: &Status, files: Option<&UnitFiles>) -> Proof {
    let Some(files) = files else {
        return not_tried("it is no unit of spiped, so its key file is not known");
    };
    let key = match file::read(&files.key, Owners::Own) {
        Ok(read) => read.key,
        Err(KeyFileError::Read { error, .. })
            if error.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() =>
        {
            return not_tried("only root can read its key");
        }
        Err(KeyFileError::Read { error, .. })
            if error.kind() == ErrorKind::NotFound && is_credential(&files.key) =>
        {
            return not_tried("its key is encrypted for systemd");
        }
        Err(error) => return failed(&error),
    };
    let Some(name) = KeyName::of_file(&files.key) else {
        return not_tried("its key file has no name of a key");
    };
    match read(&files.conf).map(|conf| way_of(status, &conf)) {
        Ok(Some(tunnel)) => with_key(&tunnel, name, &key),
        Ok(None) => not_tried("it is of another version, and must be restarted"),
        Err(error) => failed(&error),
    }
}

fn is_credential(key: &Path) -> bool {
    Path::new(&format!("{}.cred", key.display())).exists()
}

/// The way of a sender: target and key exchange as it tells them, the rest as its
/// configuration has it. `None` where this version does not know what it tells.
fn way_of(status: &Status, conf: &str) -> Option<TunnelConfig> {
    let target = status.target.address.parse().ok()?;
    let tunnel = tunnel(target, value(conf, "SPIPED_BIND"), conf);
    Some(TunnelConfig { kex: status.kex.parse().ok()?, ..tunnel })
}

fn with_key(tunnel: &TunnelConfig, key: KeyName, secret: &SharedKey) -> Proof {
    match prove(tunnel, secret) {
        Ok(proof) => Proof::Works(Box::new(check::Pipe { key, key_id: secret.id(), proof })),
        Err(fault) => failed(&fault),
    }
}

fn failed(error: &dyn Report) -> Proof {
    Proof::Failed { error: error.to_string(), hint: error.hint().to_owned() }
}

fn not_tried(error: &str) -> Proof {
    Proof::NotTried { error: error.to_owned() }
}
