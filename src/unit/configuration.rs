//! The configuration of a unit: what its file says, and a check of that by a process that has
//! the words and variables of the unit's own.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::check::{UnitCheckError, read_configuration};
use super::systemd::version;
use crate::config::environment_file::{Comments, EnvironmentFile, Skipped};
use crate::config::{Role, UNIT, unit_name};

/// The folder of all configurations and keys.
pub(crate) const FOLDER: &str = "/etc/spiped";
/// The version of systemd from which on a backslash at the end of a comment means nothing.
const COMMENTS_END_WITH_THEIR_LINE: u32 = 254;

/// What the names of the units of a role begin with.
pub(crate) const fn prefix(role: Role) -> &'static str {
    match role {
        Role::Decrypt => "spiped-receive@",
        Role::Encrypt => "spiped-send@",
    }
}

/// A unit of a pipe with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PipeUnit {
    role: Role,
    pipe: String,
}

impl PipeUnit {
    pub(crate) fn new(role: Role, pipe: &dyn ToString) -> Self {
        Self { role, pipe: pipe.to_string() }
    }

    /// The unit of this name without `.service`, if it is of a pipe with a name.
    pub(crate) fn named(unit: &str) -> Option<Self> {
        let of = |role| Some(Self::new(role, &unit.strip_prefix(prefix(role))?));
        of(Role::Decrypt).or_else(|| of(Role::Encrypt))
    }

    /// The name without `.service`.
    pub(crate) fn name(&self) -> String {
        format!("{}{}", prefix(self.role), self.pipe)
    }

    /// The file of its variables.
    pub(crate) fn configuration(&self) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.conf", self.pipe))
    }

    /// The key file, and for a receiver the folder of keys.
    pub(crate) fn keys(&self) -> Vec<PathBuf> {
        let path = |kind| Path::new(FOLDER).join(format!("{}.{kind}", self.pipe));
        match self.role {
            Role::Decrypt => vec![path("key"), path("keys")],
            Role::Encrypt => vec![path("key")],
        }
    }

    /// Reads the file of its variables.
    ///
    /// # Errors
    /// When users other than root can write to it, or it cannot be read: systemd would take it
    /// for empty, silently.
    pub(crate) fn read(&self) -> Result<EnvironmentFile, UnitCheckError> {
        read(&self.configuration())
    }

    /// The command that checks the variables, and keys at these paths, as `ExecReload=`
    /// of the unit does.
    pub(crate) fn check(&self, variables: &EnvironmentFile, keys: &[PathBuf]) -> Command {
        let role = if self.role == Role::Decrypt { "-d" } else { "-e" };
        let mut command = Command::new("/proc/self/exe");
        // Without the variables of this process; and the file must not choose the libraries.
        command.arg0("spiped").args(["config-check", "-F", "--handover", role]).env_clear();
        command.env("SPIPED_UNIT", format!("{}.service", self.name()));
        for key in keys {
            command.arg("-k").arg(key);
        }
        if variables.value("SPIPED_CONTROL").is_none() {
            command.args(["--control", &format!("/run/{}/control", self.name())]);
        }
        // A unit's check needs the name of the unit, which the file may have changed.
        let is_ours = |name: &str| name.starts_with("SPIPED_") && name != UNIT;
        let ours = variables.variables.iter().filter(|(name, _)| is_ours(name));
        command.envs(ours.map(|(name, value)| (name, value)));
        command
    }
}

/// Reads a file of variables as the running systemd does.
///
/// # Errors
/// As [`PipeUnit::read`]; or when it depends on the version of systemd, which is not known.
pub(crate) fn read(path: &Path) -> Result<EnvironmentFile, UnitCheckError> {
    let file = read_configuration(path, Comments::OneLine)?;
    let is_joined = |it: &Skipped| match it {
        Skipped::JoinedComment(line) => Some(*line),
        Skipped::NoValue(_) | Skipped::NoName(_) | Skipped::OpenQuote(_) => None,
    };
    let Some(line) = file.skipped.iter().find_map(is_joined) else { return Ok(file) };
    match version() {
        None => Err(UnitCheckError::JoinedComment { path: path.into(), line }),
        Some(..COMMENTS_END_WITH_THEIR_LINE) => read_configuration(path, Comments::Joined),
        Some(_) => {
            let skipped = file.skipped.iter().filter(|it| is_joined(it).is_none());
            Ok(EnvironmentFile { skipped: skipped.cloned().collect(), ..file })
        }
    }
}

/// The variables of the process that runs in this unit, where this one reloads it, that are
/// not as they are here.
#[must_use]
pub(crate) fn changed_since_start() -> Vec<String> {
    let main = env::var("MAINPID").ok().and_then(|pid| pid.parse::<u32>().ok());
    let running = main.and_then(|pid| fs::read(format!("/proc/{pid}/environ")).ok());
    let Some(running) = running else { return vec![] };
    let is_ours = |line: &String| line.starts_with("SPIPED_");
    let running = running.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let running: Vec<_> = running.map(String::from).filter(is_ours).collect();
    let line = |(name, value): (OsString, OsString)| {
        format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
    };
    let here: Vec<_> = env::vars_os().map(line).filter(is_ours).collect();
    let only = |those: &[String], others: &[String]| {
        let differ = those.iter().filter(|line| !others.contains(line));
        let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
        differ.map(name).collect::<Vec<_>>()
    };
    let mut names = [only(&running, &here), only(&here, &running)].concat();
    names.sort();
    names.dedup();
    names
}

/// Whether this process reloads a unit.
#[must_use]
pub(crate) fn is_reload() -> bool {
    unit_name().is_some() && env::var_os("MAINPID").is_some()
}
