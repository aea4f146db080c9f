//! What is asked of systemd, and what it answers.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;

use super::error::SetupError;
use super::unit::{Failure, Unit};
use crate::report::exit;
use crate::unit::handover::scope_prefix;

/// Whether systemd is what runs this host.
pub(super) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
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
