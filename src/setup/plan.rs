//! Making a plan: the steps to be done, given what is there already. Changes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::error::SetupError;
use super::systemd::{Activity, UnitState};
use super::unit::Unit;
use crate::config::environment_file::EnvironmentFile;
use crate::config::setup::{Activation, End, PipeName, Setup};
use crate::config::{Address, Role};
use crate::keys::entry::{self, KeyEntry};
use crate::keys::error::KeyFileError;
use crate::keys::file::{self as keys, Owners};
use crate::keys::folder::{self, Folders};
use crate::keys::guessable::GuessableKey;
use crate::keys::new_key::NewKey;
use crate::protocol::KeyId;
use crate::unit::configuration::FOLDER;

const UNITS: &str = "/etc/systemd/system";

/// The steps to be done, in order.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The ends on this host, and their keys.
    pub(super) ends: Vec<(End, KeyId)>,
    pub(super) sight: Sight,
    /// Warnings about keys.
    pub(super) guessable: Vec<GuessableKey>,
}

/// Whether the content of [`FOLDER`] can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Clear,
    /// This user is not root, which only `--dry-run` permits.
    Barred,
}

/// One change.
pub(super) enum Step {
    Folder {
        path: PathBuf,
        mode: u32,
    },
    Key {
        path: PathBuf,
        key: NewKey,
        role: Role,
    },
    File {
        path: PathBuf,
        content: String,
    },
    /// Has systemd read new files. To enable a unit does that, too.
    ReadUnits,
    Enable(Unit),
    Start(Unit, Activity),
}

/// Makes the plan.
///
/// # Errors
/// When something else is there already.
pub(super) fn make(setup: &Setup, mut given: Option<NewKey>) -> Result<Plan, SetupError> {
    let folder = Path::new(FOLDER);
    let sight = if is_barred() { Sight::Barred } else { Sight::Clear };
    let mut plan = Plan { steps: vec![], ends: vec![], sight, guessable: vec![] };
    if fs::metadata(folder).is_ok_and(|there| there.uid() != 0 || there.mode() & 0o022 != 0) {
        return Err(SetupError::WritableFolder(folder.into()));
    }
    plan.folder(folder, 0o700);
    for end in setup.ends() {
        let given = match end.role {
            Role::Decrypt => None,
            Role::Encrypt => given.take(),
        };
        let before = plan.steps.len();
        let id = plan.key(&end, given)?;
        plan.conf(&end)?;
        let missing = plan.steps.get(before).and_then(Step::path).map(Path::to_path_buf);
        plan.units(&end, setup.activation, missing)?;
        plan.ends.push((end, id));
    }
    Ok(plan)
}

/// Whether this user is not root, and cannot see the content of [`FOLDER`].
pub(super) fn is_barred() -> bool {
    let seen = fs::read_dir(FOLDER);
    seen.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) && !geteuid().is_root()
}

/// The path of a pipe's `conf` or `key`.
pub(super) fn file(name: &PipeName, kind: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.{kind}"))
}

/// The part of a hint that tells how to get rid of a file of another state of the pipe.
fn start_afresh(name: &PipeName, path: &Path) -> String {
    format!(
        "run 'spiped setup remove {name}', which leaves an edited file: then 'rm {}', too; or \
         choose another name",
        path.display()
    )
}

/// The content that setup writes to a pipe's configuration.
pub(super) fn conf_text(service: &Unit, source: &Address, target: &Address) -> String {
    format!(
        "# Read by {service}; spiped.conf(5) lists all that can stand here.\n\
         SPIPED_SOURCE={source}\nSPIPED_TARGET={target}\n"
    )
}

/// The path of the drop-in that says where a socket listens.
pub(super) fn drop_in(socket: &Unit) -> PathBuf {
    Path::new(UNITS).join(format!("{socket}.d/listen.conf"))
}

/// The content that setup writes to the drop-in. The empty value removes the template's own
/// address.
pub(super) fn drop_in_text(listen: &str) -> String {
    format!("[Socket]\nListenStream=\nListenStream={listen}\n")
}

impl Step {
    /// The file or folder that the step makes.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Folder { path, .. } | Self::Key { path, .. } | Self::File { path, .. } => {
                Some(path)
            }
            Self::ReadUnits | Self::Enable(_) | Self::Start(..) => None,
        }
    }
}

impl Plan {
    fn folder(&mut self, path: &Path, mode: u32) {
        if !path.exists() {
            self.steps.push(Step::Folder { path: path.into(), mode });
        }
    }

    fn key(&mut self, end: &End, given: Option<NewKey>) -> Result<KeyId, SetupError> {
        let path = file(&end.name, "key");
        let folder = file(&end.name, "keys");
        // Its clients have keys of their own, and the one that it was made with was revoked.
        if end.role == Role::Decrypt && !self.is_there(&path) && self.is_there(&folder) {
            let entries = match folder::read_all(&[folder], Owners::Own, Folders::Allowed) {
                Err(KeyFileError::NoKeys(_)) => vec![],
                entries => entries?,
            };
            self.guessable.extend(entries.iter().filter_map(KeyEntry::guessable));
            if let Some((_, id)) = entry::check(&entries)?.first() {
                return Ok(*id);
            }
        }
        if self.is_there(&path) {
            let keys::KeyFile { key, guessable } = keys::read(&path, Owners::Own)?;
            self.guessable.extend(guessable);
            let there = key.id();
            return match given.map(|key| key.id()) {
                Some(given) if given != there => {
                    let hint = format!(
                        "if the given one is right, 'spiped setup rotate {0}' with that --key takes \
                         it; where no receiver answers, run 'spiped setup remove {0} --keys', then \
                         this again",
                        end.name
                    );
                    Err(SetupError::OtherKey { path, there, given, hint })
                }
                _ => Ok(there),
            };
        }
        let key = given.map_or_else(NewKey::generate, Ok)?;
        let id = key.id();
        self.guessable.extend(key.guessable(&path));
        self.steps.push(Step::Key { path, key, role: end.role });
        Ok(id)
    }

    fn conf(&mut self, end: &End) -> Result<(), SetupError> {
        let path = file(&end.name, "conf");
        let wanted = [("SPIPED_SOURCE", &end.source), ("SPIPED_TARGET", &end.target)];
        let unit = Unit::service(end);
        if !self.is_there(&path) {
            let content = conf_text(&unit, &end.source, &end.target);
            self.steps.push(Step::File { path, content });
            return Ok(());
        }
        let content = read(&path)?;
        for (variable, address) in wanted {
            let there = value(&content, variable).and_then(|text| text.parse().ok());
            if there.as_ref() != Some(address) {
                let line = format!("{variable}={address}");
                let hint = format!(
                    "to change the address, write that line there, then \
                     'systemctl restart {unit}'; or {}",
                    start_afresh(&end.name, &path)
                );
                return Err(SetupError::OtherAddress { path, line, hint });
            }
        }
        Ok(())
    }

    /// The steps for units. `missing` is a file of the service that is yet to be made.
    fn units(
        &mut self,
        end: &End,
        activation: Activation,
        missing: Option<PathBuf>,
    ) -> Result<(), SetupError> {
        let (service, socket) = (Unit::service(end), Unit::socket(end));
        let (of_service, of_socket) = (UnitState::of(&service)?, UnitState::of(&socket)?);
        if let (Activity::Running, Some(missing)) = (of_service.activity, missing) {
            return Err(SetupError::Running { unit: service, missing });
        }
        match activation {
            Activation::Service if of_socket.is_in_use() => {
                return Err(SetupError::OtherActivation(socket));
            }
            Activation::Service => self.enable(&service, &of_service),
            // A service that runs without its socket listens by itself.
            Activation::Socket
                if of_service.is_enabled
                    || of_service.is_in_use() && of_socket.activity != Activity::Running =>
            {
                return Err(SetupError::OtherActivation(service));
            }
            Activation::Socket => {
                self.listen(&socket, end, &of_socket)?;
                self.enable(&socket, &of_socket);
                self.start(socket, of_socket.activity);
            }
        }
        self.start(service, of_service.activity);
        Ok(())
    }

    /// The steps for the drop-in that says where a socket listens.
    fn listen(&mut self, socket: &Unit, end: &End, state: &UnitState) -> Result<(), SetupError> {
        let path = drop_in(socket);
        let listen = match &end.source {
            Address::Inet(address) => address.to_string(),
            Address::Host(..) | Address::Unix(_) => end.source.to_string(),
        };
        let line = format!("ListenStream={listen}");
        if !path.exists() {
            if state.activity == Activity::Running {
                return Err(SetupError::Running { unit: socket.clone(), missing: path });
            }
            if let Some(folder) = path.parent() {
                self.folder(folder, 0o755);
            }
            self.steps.push(Step::File { path, content: drop_in_text(&listen) });
            if state.is_enabled {
                self.steps.push(Step::ReadUnits);
            }
        } else if read(&path)?.lines().all(|there| there.trim() != line) {
            let hint = format!(
                "to change the address, write that line there, then 'systemctl daemon-reload' and \
                 'systemctl restart {socket}'; or {}",
                start_afresh(&end.name, &path)
            );
            return Err(SetupError::OtherAddress { path, line, hint });
        }
        Ok(())
    }

    fn enable(&mut self, unit: &Unit, state: &UnitState) {
        if !state.is_enabled {
            self.steps.push(Step::Enable(unit.clone()));
        }
    }

    fn start(&mut self, unit: Unit, activity: Activity) {
        if activity != Activity::Running {
            self.steps.push(Step::Start(unit, activity));
        }
    }

    /// Whether something is at the path, which may be a dangling link.
    fn is_there(&self, path: &Path) -> bool {
        self.sight == Sight::Clear && path.symlink_metadata().is_ok()
    }
}

pub(crate) fn read(path: &Path) -> Result<String, SetupError> {
    let read = || {
        // To read a named pipe could wait for ever.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // A comment may be in any encoding.
        fs::read(path).map(|content| String::from_utf8_lossy(&content).into_owned())
    };
    read().map_err(|error| SetupError::File { what: "read", path: path.into(), error })
}

/// The value of a variable in a file of variables.
pub(crate) fn value(content: &str, variable: &str) -> Option<String> {
    EnvironmentFile::read(content).value(variable).map(str::to_owned)
}
