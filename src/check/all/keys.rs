//! The files of the keys in force, and whether a sender's key opens its pipe.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::geteuid;

use super::facts::{Key, Lack, Proof};
use crate::check;
use crate::config::environment_file::EnvironmentFile;
use crate::config::tunnel::Timeout;
use crate::config::{Address, KeyName, TunnelConfig};
use crate::daemon::proof::{FaultKind, prove};
use crate::keys::error::KeyFileError;
use crate::keys::file::{self, Owners};
use crate::protocol::SharedKey;
use crate::report::{Report, is_of_system};
use crate::setup::prove::tunnel;
use crate::status::{self, Status, UnixTime};
use crate::unit::check::UnitCheckError;
use crate::unit::configuration;
use crate::unit::files::{PLAIN_CONF, UnitFiles};

/// The keys in force of a process, with their files.
pub(super) fn in_force(status: &Status, files: Option<&UnitFiles>) -> Vec<Key> {
    status.keys.iter().filter(|key| key.in_force).map(|key| with_file(key, files)).collect()
}

fn with_file(key: &status::Key, files: Option<&UnitFiles>) -> Key {
    let (name, id) = (key.name.clone(), key.id.clone());
    // What is no name of a key is no part of a path.
    let of_key = |files: &UnitFiles| Some(files.of_key(&name.parse().ok()?));
    let paths = files.and_then(of_key).unwrap_or_default();
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

/// Goes the whole way of a sender of a unit, with its key, as its own files say. Without a
/// `timeout`, it has the one that they set.
///
/// # Errors
/// When the system lacks what that needs.
pub(super) fn proof(files: Option<&UnitFiles>, timeout: Option<Timeout>) -> Result<Proof, Lack> {
    let Some(files) = files else {
        return Ok(not_tried("it is no unit of spiped, so its key file is not known"));
    };
    let key = match file::read(&files.key, Owners::Own) {
        Ok(read) => read.key,
        Err(KeyFileError::Read { error, .. }) if is_of_system(&error) => {
            return Err(Lack::of(&error));
        }
        Err(KeyFileError::Memory(error)) => return Err(Lack::of(&error)),
        Err(KeyFileError::Read { error, .. })
            if error.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() =>
        {
            return Ok(not_tried("only root can read its key"));
        }
        Err(KeyFileError::Read { error, .. })
            if error.kind() == ErrorKind::NotFound && is_credential(&files.key) =>
        {
            return Ok(not_tried("its key is encrypted for systemd"));
        }
        Err(error) => return Ok(failed(&error)),
    };
    let Some(name) = KeyName::of_file(&files.key) else {
        return Ok(not_tried("its key file has no name of a key"));
    };
    let conf = match configuration::read(&files.conf) {
        Ok(conf) => conf,
        Err(UnitCheckError::Configuration { error, .. }) if is_of_system(&error) => {
            return Err(Lack::of(&error));
        }
        Err(error) => return Ok(failed(&error)),
    };
    match way_of(files, &conf, timeout) {
        Some(tunnel) => with_key(&tunnel, name, &key),
        None => Ok(not_tried("its file sets no target")),
    }
}

fn is_credential(key: &Path) -> bool {
    Path::new(&format!("{}.cred", key.display())).exists()
}

/// The way of a sender, as its file has it. `None` where that has no target.
fn way_of(
    files: &UnitFiles,
    conf: &EnvironmentFile,
    timeout: Option<Timeout>,
) -> Option<TunnelConfig> {
    let target: Address = if files.conf == Path::new(PLAIN_CONF) {
        // As the unit without a name has it in its ExecStart=.
        format!("[{}]:6379", conf.value("ADDR")?).parse().ok()?
    } else {
        conf.value("SPIPED_TARGET")?.parse().ok()?
    };
    let own = || conf.value("SPIPED_TIMEOUT").and_then(|text| text.parse().ok());
    let timeout = timeout.or_else(own).unwrap_or_default();
    Some(TunnelConfig { timeout, ..tunnel(target, conf.value("SPIPED_BIND"), conf) })
}

fn with_key(tunnel: &TunnelConfig, key: KeyName, secret: &SharedKey) -> Result<Proof, Lack> {
    match prove(tunnel, secret) {
        Ok(proof) => Ok(Proof::Works(Box::new(check::Pipe { key, key_id: secret.id(), proof }))),
        Err(fault) if fault.kind == FaultKind::System => Err(Lack::of(&fault)),
        Err(fault) => Ok(failed(&fault)),
    }
}

fn failed(error: &dyn Report) -> Proof {
    Proof::Failed { error: error.to_string(), hint: error.hint().to_owned() }
}

fn not_tried(error: &str) -> Proof {
    Proof::NotTried { error: error.to_owned() }
}
