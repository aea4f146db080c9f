//! A receiver on this host: its key files, and the running process that has the keys.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::key_name::KEY_ENDING;
use crate::config::setup::PipeName;
use crate::config::{Address, KeyName, Role};
use crate::daemon::control::client::{self, ControlError};
use crate::keys::change::KeyChange;
use crate::keys::file::{self as keys, Owners};
use crate::keys::folder::existing;
use crate::keys::new_key::NewKey;
use crate::protocol::KeyId;
use crate::setup::apply;
use crate::setup::error::SetupError;
use crate::setup::plan::{Step, file, read, value};
use crate::setup::remove::names_here;
use crate::setup::report::line_of;
use crate::setup::systemd::{Activity, UnitStart, UnitState, scopes_of};
use crate::setup::unit::Unit;
use crate::status::{self, Detail};

/// A receiver on this host.
pub(super) struct Receiver<'a> {
    pub(super) pipe: &'a PipeName,
    pub(super) unit: Unit,
    pub(super) is_running: bool,
    /// Where it listens, if its configuration says so.
    pub(super) source: Option<Address>,
}

impl<'a> Receiver<'a> {
    /// Finds the receiver of a pipe.
    ///
    /// # Errors
    /// When there is none, or its keys are not for this program to make.
    pub(super) fn find(pipe: &'a PipeName) -> Result<Self, SetupError> {
        let unit = Unit::both(Role::Decrypt, pipe).0;
        let state = UnitState::of(&unit)?;
        if !state.is_in_use() && UnitState::of(&Unit::both(Role::Encrypt, pipe).0)?.is_in_use() {
            return Err(SetupError::SenderHere(pipe.clone()));
        }
        let conf = file(pipe, "conf");
        if !conf.exists() {
            return Err(SetupError::NoPipe { name: pipe.clone(), hint: names_here() });
        }
        let source = value(&read(&conf)?, "SPIPED_SOURCE").and_then(|text| text.parse().ok());
        Ok(Self { pipe, unit, is_running: state.activity == Activity::Running, source })
    }

    /// The folder of the clients' keys.
    pub(super) fn folder(&self) -> PathBuf {
        file(self.pipe, "keys")
    }

    /// The key file of this name.
    pub(super) fn key_file(&self, name: &KeyName) -> PathBuf {
        if *self.pipe == *name {
            file(self.pipe, "key")
        } else {
            self.folder().join(format!("{name}{KEY_ENDING}"))
        }
    }

    /// The names of all keys.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let folders = [self.folder(), file(self.pipe, "keys.cred")];
        let files = folders.iter().flat_map(fs::read_dir).flatten().flatten();
        let files = files.map(|file| file.path());
        let own = ["key", "key.cred"].map(|kind| file(self.pipe, kind));
        let files = files.chain(own.into_iter().filter(|path| path.exists()));
        let name = |path: PathBuf| {
            let file = path.file_name()?.to_str()?;
            let file = file.strip_suffix(".cred").unwrap_or(file);
            Some(file.strip_suffix(KEY_ENDING)?.to_owned())
        };
        files.filter_map(name).collect()
    }

    /// The error for a key that does not exist.
    pub(super) fn no_key(&self, name: &KeyName) -> SetupError {
        let names: Vec<_> = self.names().into_iter().collect();
        let hint = if names.is_empty() {
            format!("{} has no keys; 'spiped setup client' makes one", self.pipe)
        } else {
            format!("{} has these keys: {}", self.pipe, names.join(", "))
        };
        SetupError::NoKey { name: name.clone(), hint }
    }

    /// Refuses encrypted keys, beside which a plain one would not count.
    pub(super) fn has_plain_keys(&self) -> Result<(), SetupError> {
        let encrypted = ["key.cred", "keys.cred"].map(|kind| file(self.pipe, kind));
        match encrypted.into_iter().find(|path| path.exists()) {
            Some(path) => Err(SetupError::Encrypted(path)),
            None => Ok(()),
        }
    }

    /// What the dry run says of a new key file and of the reload after it.
    pub(super) fn would_put_in_force(&self, path: &Path) -> Result<String, SetupError> {
        let steps: String = steps_for(path)?.iter().map(line_of).collect();
        Ok(steps + &self.would_reload())
    }

    pub(super) fn would_reload(&self) -> String {
        if self.is_running {
            format!("would reload the keys of {}\n", self.unit)
        } else {
            String::new()
        }
    }

    /// Makes the key file, unless it is there, and has the running receiver take it. A new
    /// key that the receiver refuses is removed again.
    pub(super) fn put_in_force(&self, path: &Path) -> Result<Vec<KeyChange>, SetupError> {
        apply::all(steps_for(path)?, || self.reload())
    }

    /// Has the receiver, if it runs, take the keys that its files have now.
    pub(super) fn reload(&self) -> Result<Vec<KeyChange>, SetupError> {
        if !self.is_running {
            return Ok(vec![]);
        }
        let paths = existing(&[file(self.pipe, "key"), self.folder()]);
        match client::rekey(&control(&self.unit), &paths) {
            Ok((changes, _)) => Ok(changes),
            Err(error) => Err(SetupError::of_rekey(&self.unit, error)),
        }
    }

    /// The keys of the running receiver, with their use; none where it does not answer.
    pub(super) fn keys(&self) -> Vec<status::Key> {
        let status = client::status(&control(&self.unit), Detail::Summary);
        status.map_or(vec![], |status| status.keys)
    }

    /// What the dry run says of a revocation.
    pub(super) fn would_end(&self, name: &KeyName) -> String {
        format!("would end the connections of {name} at {}", self.unit)
    }

    /// Has the receiver take this key out of force, and end its connections, also those
    /// from before a restart. Nothing where no process has a key of this name.
    pub(super) fn revoke(&self, name: &KeyName) -> Result<Vec<KeyChange>, ControlError> {
        let mut revoked = Vec::new();
        let mut start = UnitStart::settled(&self.unit);
        loop {
            if !start.has_process() && scopes_of(&self.unit).is_empty() {
                return Ok(revoked);
            }
            match client::revoke(&control(&self.unit), name) {
                Err(ControlError::NoKey { .. }) => {}
                changes => revoked.extend(changes?),
            }
            // The process of a start that had begun before the files were removed has the key.
            let now = UnitStart::settled(&self.unit);
            if now == start {
                return Ok(revoked);
            }
            start = now;
        }
    }

    /// What the operator is told if the receiver does not run.
    pub(super) fn unless_running(&self) -> String {
        if self.is_running {
            return String::new();
        }
        format!(
            "The receiver {} does not run; it has the key once it is started: \
             'systemctl start {}'.\n",
            self.pipe, self.unit
        )
    }
}

/// The steps that make a new key file, as far as it is not there.
fn steps_for(path: &Path) -> Result<Vec<Step>, SetupError> {
    let mut steps = Vec::new();
    if let Some(folder) = path.parent() {
        match fs::metadata(folder) {
            Ok(there) if there.uid() != 0 || there.mode() & 0o022 != 0 => {
                return Err(SetupError::WritableFolder(folder.into()));
            }
            Ok(_) => {}
            Err(_) => steps.push(Step::Folder { path: folder.into(), mode: 0o700 }),
        }
    }
    if path.symlink_metadata().is_err() {
        let key = NewKey::generate()?;
        steps.push(Step::Key { path: path.into(), key, role: Role::Decrypt });
    }
    Ok(steps)
}

/// The id of the key in a file.
pub(super) fn id_of(path: &Path) -> Result<KeyId, SetupError> {
    Ok(keys::read(path, Owners::Own)?.key.id())
}

/// The control socket of a unit.
pub(super) fn control(unit: &Unit) -> PathBuf {
    let name = unit.0.strip_suffix(".service").unwrap_or(&unit.0);
    Path::new("/run").join(name).join("control")
}
