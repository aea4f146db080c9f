//! What is asked of systemd, and what it answers.

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;

use super::SetupError;
use crate::config::Role;
use crate::config::setup::{End, Name};
use crate::report::exit;
use crate::unit::handover::scope_prefix;

/// Whether systemd is what runs this host.
pub(super) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The name of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit(String);

impl Unit {
    pub(super) fn service(end: &End) -> Self {
        Self::both(end.role, &end.name).0
    }

    pub(super) fn socket(end: &End) -> Self {
        Self::both(end.role, &end.name).1
    }

    /// The service of an end, and its socket.
    pub(super) fn both(role: Role, name: &Name) -> (Self, Self) {
        let prefix = prefix(role);
        (Self(format!("{prefix}{name}.service")), Self(format!("{prefix}{name}.socket")))
    }

    /// The service that a socket starts.
    pub(super) fn started_by_it(&self) -> Option<Self> {
        Some(Self(format!("{}.service", self.0.strip_suffix(".socket")?)))
    }
}

/// What the names of the units of one end begin with.
const fn prefix(role: Role) -> &'static str {
    match role {
        Role::Decrypt => "spiped-receive@",
        Role::Encrypt => "spiped-send@",
    }
}

/// The pipe that a unit is of, if it is one of setup's.
pub(super) fn pipe_of(unit: &str) -> Option<&str> {
    let of = |role| unit.strip_prefix(prefix(role));
    Some(of(Role::Decrypt).or_else(|| of(Role::Encrypt))?.rsplit_once('.')?.0)
}

/// The scopes in which the old connections of a service live on after a restart. The
/// name of another pipe may begin as these do; its scopes have one dash more.
pub(super) fn scopes_of(unit: &Unit) -> Vec<String> {
    let begin = scope_prefix(&unit.0);
    let pattern = format!("{begin}*.scope");
    let listed = ask("systemctl", &["list-units", "--all", "--plain", "--no-legend", &pattern]);
    let units = listed.lines().filter_map(|line| line.split_whitespace().next());
    let is_own = |unit: &&str| unit.strip_prefix(&begin).is_some_and(|rest| !rest.contains('-'));
    units.filter(is_own).map(str::to_owned).collect()
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a unit is.
pub(super) struct State {
    pub(super) is_enabled: bool,
    pub(super) activity: Activity,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Stopped,
    /// It has failed, and is started again and again.
    Retrying,
    Running,
}

impl State {
    pub(super) fn of(unit: &Unit) -> Result<Self, SetupError> {
        // Only --dry-run comes without systemd, or without root to ask it: then
        // it is how it would be on a fresh host.
        if !is_running() {
            return Ok(Self { is_enabled: false, activity: Activity::Stopped });
        }
        let properties = "LoadState,UnitFileState,ActiveState";
        let said = match run(&mut command("systemctl", &["show", "-p", properties, &unit.0])) {
            Err(_) if !geteuid().is_root() => String::new(),
            said => said?,
        };
        let has = |property: &str| said.lines().any(|line| line == property);
        if has("LoadState=not-found") {
            return Err(SetupError::NotInstalled(unit.clone()));
        }
        let activity = if has("ActiveState=active") || has("ActiveState=reloading") {
            Activity::Running
        } else if has("ActiveState=activating") {
            Activity::Retrying
        } else {
            Activity::Stopped
        };
        Ok(Self { is_enabled: has("UnitFileState=enabled"), activity })
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.is_enabled || self.activity != Activity::Stopped
    }
}

/// Why a unit does not start.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The line of its log that says so.
    pub(crate) reason: String,
    /// What may help.
    pub(crate) hint: String,
    /// Its exit code, where that tells something.
    pub(crate) code: Option<u8>,
}

impl Failure {
    /// What the log of a unit says since it was started, in seconds of the
    /// clock; where it says nothing, what systemctl said.
    pub(super) fn of(unit: &Unit, since: Duration, error: &SetupError) -> Self {
        let more = format!("'journalctl -u {unit}' says more");
        let _synced = ask("journalctl", &["--sync"]);
        // Not of the last start only: by now it may have been started again.
        let since = format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros());
        // Not -u, which misses what a child of systemd said just before it ended.
        let (by_it, of_it) = (format!("_SYSTEMD_UNIT={unit}"), format!("UNIT={unit}"));
        let which = [by_it.as_str(), "+", "_UID=0", &of_it];
        let words = [["--quiet", "--output=cat", &since].as_slice(), &which].concat();
        let log = ask("journalctl", &words);
        let code = log
            .lines()
            .find_map(|line| line.split_once("Main process exited, code=exited, status="))
            .and_then(|(_, status)| status.split('/').next()?.parse().ok())
            // Ours; those of systemd tell nothing here.
            .filter(|code| exit::ALL.contains(code));
        let after = |prefix: &str| log.lines().find_map(|line| line.strip_prefix(prefix));
        if let Some(reason) = after("spiped: ") {
            let hint = after("hint: ").unwrap_or(&more).into();
            return Self { reason: reason.into(), hint, code };
        }
        let prefix = format!("{unit}: ");
        let reason = log
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .find(|line| !EPILOGUE.iter().any(|known| line.starts_with(known)))
            .map_or_else(|| error.to_string(), Into::into);
        Self { reason, hint: more, code }
    }
}

/// What systemd says once a unit has failed, whatever the reason.
const EPILOGUE: [&str; 7] = [
    "Failed to listen on sockets",
    "Failed to receive listening socket",
    "Failed with result",
    "Main process exited",
    "Control process exited",
    "Scheduled restart job",
    "Consumed ",
];

/// A command that a Ctrl-C is not for, nor this process's standard input.
pub(super) fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
    command
}

/// What a command prints that must succeed.
pub(super) fn run(command: &mut Command) -> Result<String, SetupError> {
    let output = command.output();
    judge(command, output)
}

/// The same of a command that has ended.
pub(super) fn judge(command: &Command, output: io::Result<Output>) -> Result<String, SetupError> {
    let failed = |said| SetupError::Command { command: words(command), said };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.lines().next().map_or_else(|| output.status.to_string(), Into::into)))
}

/// What it prints, be that nothing.
pub(super) fn ask(program: &str, words: &[&str]) -> String {
    run(&mut command(program, words)).unwrap_or_default()
}

fn words(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    words.join(" ".as_ref()).to_string_lossy().into_owned()
}
