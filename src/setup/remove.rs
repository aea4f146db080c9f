//! `spiped setup remove`: stops and removes what setup has made.
//!
//! ```text
//! disable  the services and sockets, so that no boot starts them
//! stop     the sockets first, since they would start their services again
//! files    listen.conf, NAME.conf; with --keys NAME.key, NAME.keys
//! ```
//!
//! A run that was cut off is finished by the same command. A file that setup has made and
//! somebody has edited stays.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;

use super::SetupReport;
use super::error::SetupError;
use super::plan::{conf_text, drop_in, drop_in_text, file, is_barred, value};
use super::report::left;
use super::systemd::{Activity, UnitState, command, run, scopes_of};
use super::unit::Unit;
use crate::config::setup::{Keys, Pair, PipeName, Removal, Run};
use crate::config::{Address, Role};
use crate::process::new_file;
use crate::unit::configuration::FOLDER;
use crate::unit::files::PLAIN_CONF;

/// One change.
enum RemovalStep {
    Systemctl(&'static str, Vec<String>),
    /// Stops scopes that restarts have left, unless they have ended meanwhile.
    Scopes(Vec<String>),
    File(PathBuf),
    /// Removes a folder, which is empty then.
    Folder(PathBuf),
}

#[derive(Default)]
struct RemovalPlan {
    steps: Vec<RemovalStep>,
    /// The files that stay, and why.
    left: Vec<String>,
    /// The units that systemd may remember as failed.
    units: Vec<String>,
}

/// Removes a pipe, or with `--dry-run` only looks. A file that cannot be removed keeps no other
/// one there.
///
/// # Errors
/// When a step of systemd fails; the steps before it stay done.
pub(super) fn remove(removal: &Removal) -> Result<SetupReport, SetupError> {
    let name = &removal.name;
    let mut plan = RemovalPlan::default();
    let halves = [name.half("in"), name.half("out")];
    let is_pair = removal.pair == Pair::Goes && is_pair(&halves)?;
    match (is_there(name)?, is_pair) {
        (true, true) => return Err(SetupError::PipeAndPair(name.clone())),
        (false, true) => plan.pipes(&halves, removal.keys)?,
        (false, false) if !is_barred() => {
            return Err(SetupError::NoPipe { name: name.clone(), hint: names_here() });
        }
        (_, false) => plan.pipes(slice::from_ref(name), removal.keys)?,
    }
    let mut told = Vec::new();
    if is_barred() {
        told.push("only root sees which files there are".to_owned());
    } else if plan.steps.is_empty() {
        told.push(format!("nothing to do: only what is named below is left of {name}"));
    }
    let is_changed = removal.run == Run::Real && !plan.steps.is_empty();
    let mut failed = None;
    for step in plan.steps {
        if removal.run == Run::Dry {
            told.push(format!("would {}", step.says("run", "remove")));
            continue;
        }
        told.push(match step.take() {
            Ok(()) => step.says("ran", "removed"),
            Err(SetupError::File { what, path, error }) => {
                let line = left(&path, &error.to_string());
                failed = Some(SetupError::File { what, path, error });
                line
            }
            Err(error) => return Err(error),
        });
    }
    if is_changed && removal.keys == Keys::Go {
        new_file::remove_unfinished(Path::new(FOLDER));
    }
    if is_changed {
        // Fails where no unit has failed.
        let units: Vec<_> = plan.units.iter().map(String::as_str).collect();
        let _nothing = run(&mut command("systemctl", &[&["reset-failed"], &*units].concat()));
    }
    told.extend(plan.left);
    Ok(SetupReport { failed, ..SetupReport::of(told.join("\n") + "\n") })
}

/// Whether one of them is a half of a pair, whose first half receives and whose second half
/// sends. Other pipes may have such names, too.
fn is_pair([receiver, sender]: &[PipeName; 2]) -> Result<bool, SetupError> {
    for (half, other_role) in [(receiver, Role::Encrypt), (sender, Role::Decrypt)] {
        let (service, socket) = Unit::both(other_role, half);
        let is_other = state(&service)?.is_in_use() || state(&socket)?.is_in_use();
        if is_there(half)? && !is_other {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The hint for a name that no pipe has: the names that pipes have.
pub(super) fn names_here() -> String {
    let files = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let name = |path: PathBuf| {
        let is_of_pipe = path
            .extension()
            .is_some_and(|kind| ["conf", "key", "keys"].iter().any(|it| kind == *it));
        is_of_pipe.then(|| Some(path.file_stem()?.to_str()?.to_owned()))?
    };
    let names: BTreeSet<_> = files.filter_map(|file| name(file.path())).collect();
    if names.is_empty() {
        return "no pipe is set up on this host".to_owned();
    }
    format!("these are on this host: {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

/// Whether anything of a pipe of this name exists.
fn is_there(name: &PipeName) -> Result<bool, SetupError> {
    for role in [Role::Decrypt, Role::Encrypt] {
        let (service, socket) = Unit::both(role, name);
        if state(&service)?.is_in_use() || state(&socket)?.is_in_use() {
            return Ok(true);
        }
        if drop_in(&socket).exists() || !scopes_of(&service).is_empty() {
            return Ok(true);
        }
    }
    Ok(["conf", "key", "keys"].iter().any(|kind| file(name, kind).symlink_metadata().is_ok()))
}

/// The state of a unit. A unit that is not installed does not run.
fn state(unit: &Unit) -> Result<UnitState, SetupError> {
    match UnitState::of(unit) {
        Err(SetupError::NotInstalled(_)) => {
            Ok(UnitState { is_enabled: false, activity: Activity::Stopped })
        }
        state => state,
    }
}

impl RemovalPlan {
    fn pipes(&mut self, names: &[PipeName], keys: Keys) -> Result<(), SetupError> {
        let ends: Vec<_> = names
            .iter()
            .flat_map(|name| [Role::Decrypt, Role::Encrypt].map(|role| (role, name)))
            .collect();
        self.units(&ends, keys)?;
        let before = self.steps.len();
        for (role, name) in &ends {
            self.drop_ins(*role, name)?;
        }
        if self.steps.len() > before {
            self.steps.push(RemovalStep::Systemctl("daemon-reload", vec![]));
        }
        for name in names {
            self.conf(name)?;
            self.keys(name, keys);
        }
        Ok(())
    }

    fn units(&mut self, ends: &[(Role, &PipeName)], keys: Keys) -> Result<(), SetupError> {
        let (mut enabled, mut sockets, mut rest) = (vec![], vec![], vec![]);
        // Scopes with open connections from before a restart.
        let mut scopes = vec![];
        for (role, name) in ends {
            let (service, socket) = Unit::both(*role, name);
            let (of_service, of_socket) = (state(&service)?, state(&socket)?);
            scopes.extend(scopes_of(&service));
            for (unit, state, running) in
                [(socket, of_socket, &mut sockets), (service, of_service, &mut rest)]
            {
                self.units.push(unit.to_string());
                if state.is_enabled {
                    enabled.push(unit.to_string());
                }
                if state.activity != Activity::Stopped {
                    running.push(unit.to_string());
                }
            }
        }
        for (verb, units) in [("disable", enabled), ("stop", sockets)] {
            if !units.is_empty() {
                self.steps.push(RemovalStep::Systemctl(verb, units));
            }
        }
        // With the key removed, its holders' connections end at once.
        if keys == Keys::Go && !rest.is_empty() {
            self.steps.push(RemovalStep::Systemctl("kill --signal=KILL", rest.clone()));
        }
        if !scopes.is_empty() {
            self.steps.push(RemovalStep::Scopes(scopes));
        }
        if !rest.is_empty() {
            self.steps.push(RemovalStep::Systemctl("stop", rest));
        }
        Ok(())
    }

    /// The steps for a socket's drop-in. Other files in its folder are the operator's.
    fn drop_ins(&mut self, role: Role, name: &PipeName) -> Result<(), SetupError> {
        let (service, socket) = Unit::both(role, name);
        let path = drop_in(&socket);
        let is_made_here = |content: &str| {
            let listen = content.lines().last().and_then(|line| line.strip_prefix("ListenStream="));
            listen.is_some_and(|listen| content == drop_in_text(listen))
        };
        let is_gone = self.file(path.clone(), is_made_here)?;
        for folder in [path.parent(), drop_in(&service).parent()].into_iter().flatten() {
            let others = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut others = others.map(|entry| entry.path()).filter(|there| *there != path);
            match others.next() {
                Some(other) => self.left.push(left(&other, "setup has not made it")),
                None if is_gone && path.starts_with(folder) => {
                    self.steps.push(RemovalStep::Folder(folder.into()));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn conf(&mut self, name: &PipeName) -> Result<(), SetupError> {
        let is_made_here = |content: &str| {
            let address = |variable| -> Option<Address> { value(content, variable)?.parse().ok() };
            let addresses = (address("SPIPED_SOURCE"), address("SPIPED_TARGET"));
            let (Some(source), Some(target)) = addresses else { return false };
            let made = |role| conf_text(&Unit::both(role, name).0, &source, &target);
            [Role::Decrypt, Role::Encrypt].into_iter().any(|role| content == made(role))
        };
        self.file(file(name, "conf"), is_made_here).map(drop)
    }

    /// The step for a file, if setup has made it. Returns whether there is such a step.
    fn file(
        &mut self,
        path: PathBuf,
        is_made_here: impl Fn(&str) -> bool,
    ) -> Result<bool, SetupError> {
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_barred() => {
                return Ok(false);
            }
            Err(error) => return Err(SetupError::File { what: "read", path, error }),
        };
        let is_made_here = str::from_utf8(&content).is_ok_and(is_made_here);
        if is_made_here {
            self.steps.push(RemovalStep::File(path));
        } else {
            self.left.push(left(&path, "it was edited; remove it by hand if nothing needs it"));
        }
        Ok(is_made_here)
    }

    fn keys(&mut self, name: &PipeName, keys: Keys) {
        for encrypted in ["key.cred", "keys.cred"].map(|kind| file(name, kind)) {
            if encrypted.exists() {
                self.left.push(left(&encrypted, "setup has not made it"));
            }
        }
        let (key, folder) = (file(name, "key"), file(name, "keys"));
        let is_of_plain_units = key == Path::new("/etc/spiped/redis.key");
        for path in [key, folder.clone()] {
            if path.symlink_metadata().is_err() {
                continue;
            }
            if keys == Keys::Stay {
                let why = format!("'spiped setup remove {name} --keys' removes it");
                self.left.push(left(&path, &why));
            } else if is_of_plain_units && Path::new(PLAIN_CONF).exists() {
                let why = "spiped-receive.service and spiped-send.service use it, too";
                self.left.push(left(&path, why));
            } else if path == folder {
                self.folder_of_keys(path);
            } else {
                self.steps.push(RemovalStep::File(path));
            }
        }
    }

    /// The steps for the clients' keys, and their settings. Other files are the operator's.
    fn folder_of_keys(&mut self, folder: PathBuf) {
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let files = files.map(|file| file.path());
        let mut files: Vec<_> = files.filter(|file| !new_file::is_unfinished(file)).collect();
        files.sort();
        let has_kind = |path: &Path, kind: &str| path.extension().is_some_and(|it| it == kind);
        let is_of_key = |path: &PathBuf| has_kind(path, "key") || has_kind(path, "conf");
        let (mut gone, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_of_key);
        // A run that is cut off leaves no key without its settings.
        gone.sort_by_key(|path| has_kind(path, "conf"));
        self.steps.extend(gone.into_iter().map(RemovalStep::File));
        if others.is_empty() {
            self.steps.push(RemovalStep::Folder(folder));
        }
        self.left.extend(others.iter().map(|other| left(other, "setup has not made it")));
    }
}

impl RemovalStep {
    fn says(&self, run: &str, remove: &str) -> String {
        match self {
            Self::Systemctl(verb, units) => {
                [&[run, "systemctl", verb], &*units.iter().map(String::as_str).collect::<Vec<_>>()]
                    .concat()
                    .join(" ")
            }
            Self::Scopes(units) => format!("{run} systemctl stop {}", units.join(" ")),
            Self::File(path) | Self::Folder(path) => format!("{remove} {}", path.display()),
        }
    }

    fn take(&self) -> Result<(), SetupError> {
        let removed = |path: &Path, result| match result {
            Err(error) => Err(SetupError::File { what: "remove", path: path.into(), error }),
            Ok(()) => Ok(()),
        };
        match self {
            Self::Systemctl(verb, units) => {
                let words = verb.split(' ').chain(units.iter().map(String::as_str));
                let words: Vec<_> = words.collect();
                run(&mut command("systemctl", &words)).map(drop)
            }
            Self::Scopes(units) => {
                let units: Vec<_> = units.iter().map(String::as_str).collect();
                // Fails where a scope has ended meanwhile.
                let _ended =
                    run(&mut command("systemctl", &[&["stop"], units.as_slice()].concat()));
                Ok(())
            }
            Self::File(path) => removed(path, fs::remove_file(path)),
            Self::Folder(path) => {
                new_file::remove_unfinished(path);
                removed(path, fs::remove_dir(path))
            }
        }
    }
}
