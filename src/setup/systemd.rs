//! Commands to systemd, and their answers.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::error::SetupError;
use super::unit::{Failure, Unit};
use crate::report::{WARNING, exit};
use crate::unit::handover::scope_prefix;
pub(super) use crate::unit::systemd::is_running;

/// How long systemd may take to start or to stop a unit. A unit that takes longer waits for
/// an address, and can be told something.
const SETTLING: Duration = Duration::from_secs(10);

/// The scopes with a service's open connections from before a restart. Scopes of another
/// pipe, whose name begins with this one's, have one dash more.
pub(super) fn scopes_of(unit: &Unit) -> Vec<String> {
    let begin = scope_prefix(&unit.0);
    let pattern = format!("{begin}*.scope");
    let listed = ask("systemctl", &["list-units", "--all", "--plain", "--no-legend", &pattern]);
    let units = listed.lines().filter_map(|line| line.split_whitespace().next());
    let is_own = |unit: &&str| unit.strip_prefix(&begin).is_some_and(|rest| !rest.contains('-'));
    units.filter(is_own).map(str::to_owned).collect()
}

/// One start of a unit, and the main process of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnitStart {
    invocation: String,
    main_process: String,
}

impl UnitStart {
    /// The start that a unit is in. Waits for a while until systemd has ended what it does
    /// with the unit: a process that is being started has its keys already, and cannot be
    /// told anything yet.
    pub(super) fn settled(unit: &Unit) -> Self {
        let began = Instant::now();
        loop {
            let properties = "InvocationID,MainPID,ActiveState,SubState,Job";
            let said = ask("systemctl", &["show", "-p", properties, &unit.0]);
            let value = |name: &str| {
                let is_it =
                    |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
                said.lines().find_map(is_it).unwrap_or_default()
            };
            let is_changing = matches!(
                (&*value("ActiveState"), &*value("SubState")),
                ("activating" | "deactivating" | "reloading", state) if state != "auto-restart"
            );
            let has_job = !matches!(&*value("Job"), "" | "0");
            if !is_changing && !has_job || began.elapsed() >= SETTLING {
                let (invocation, main_process) = (value("InvocationID"), value("MainPID"));
                return Self { invocation, main_process };
            }
            sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn has_process(&self) -> bool {
        self.main_process != "0"
    }
}

/// The state of a unit.
pub(super) struct UnitState {
    pub(super) is_enabled: bool,
    pub(super) activity: Activity,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Stopped,
    /// The unit has failed, and systemd starts it again and again.
    Retrying,
    Running,
}

impl UnitState {
    pub(super) fn of(unit: &Unit) -> Result<Self, SetupError> {
        // Only --dry-run gets here without systemd, or without root. The state is that of a
        // fresh host then.
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
    /// Why a unit does not start: from its log since this time, else from the error of
    /// systemctl.
    pub(super) fn of(unit: &Unit, since: Duration, error: &SetupError) -> Self {
        let more = format!("'journalctl -u {unit}' says more");
        let _synced = ask("journalctl", &["--sync"]);
        // Not only of the last start: systemd may have started the unit again by now.
        let since = format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros());
        // -u would miss lines that a process of the unit wrote just before it ended.
        let (by_it, of_it) = (format!("_SYSTEMD_UNIT={unit}"), format!("UNIT={unit}"));
        let which = [by_it.as_str(), "+", "_UID=0", &of_it];
        let words = [["--quiet", "--output=cat", &since].as_slice(), &which].concat();
        let log = ask("journalctl", &words);
        let code = log
            .lines()
            .find_map(|line| line.split_once("Main process exited, code=exited, status="))
            .and_then(|(_, status)| status.split('/').next()?.parse().ok())
            // Only codes of spiped; the codes of systemd tell nothing here.
            .filter(|code| exit::ALL.contains(code));
        if let Some(failure) = Self::told(&log, code, &more) {
            return failure;
        }
        let prefix = format!("{unit}: ");
        let reason = log
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .find(|line| !EPILOGUE.iter().any(|known| line.starts_with(known)))
            .map_or_else(|| error.to_string(), Into::into);
        Self { reason, hint: more, code }
    }

    /// The first error among lines that spiped has written, if there is one; `more` is its
    /// hint where it has none.
    pub(super) fn told(text: &str, code: Option<u8>, more: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut errors = lines.by_ref().filter_map(|line| line.strip_prefix("spiped: "));
        let reason = errors.find(|error| !error.starts_with(WARNING))?;
        let hint = lines.find_map(|line| line.strip_prefix("hint: ")).unwrap_or(more);
        Some(Self { reason: reason.into(), hint: hint.into(), code })
    }
}

/// Lines that systemd writes once a unit has failed, whatever the reason.
const EPILOGUE: [&str; 7] = [
    "Failed to listen on sockets",
    "Failed to receive listening socket",
    "Failed with result",
    "Main process exited",
    "Control process exited",
    "Scheduled restart job",
    "Consumed ",
];

/// A command in a process group of its own, which Ctrl-C does not reach, and without
/// standard input.
pub(super) fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
    command
}

/// Runs a command that must succeed. Returns its output.
pub(super) fn run(command: &mut Command) -> Result<String, SetupError> {
    let output = command.output();
    judge(command, output)
}

/// The result of a command that has ended and must succeed.
pub(super) fn judge(command: &Command, output: io::Result<Output>) -> Result<String, SetupError> {
    let failed = |said| SetupError::Command { command: words(command), said };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.lines().next().map_or_else(|| output.status.to_string(), Into::into)))
}

/// Runs a command that may fail. Returns its output, which may be empty.
pub(super) fn ask(program: &str, words: &[&str]) -> String {
    run(&mut command(program, words)).unwrap_or_default()
}

fn words(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    words.join(" ".as_ref()).to_string_lossy().into_owned()
}
