//! `spiped handover`: a unit runs it as root before it is stopped (`ExecStop=`).
//!
//! ```text
//! restart: a scope of systemd is made for the worker, which is moved there, with its
//!          open connections; the keeper is sent USR1, and ends
//! stop:    the scopes of earlier restarts are stopped; the unit waits for its own open
//!          connections
//! ```
//!
//! systemd kills the processes that are in the unit when the unit ends, so the worker must
//! leave it. The worker's scope does not depend on the next process, and ends with the
//! worker.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::config::DrainTimeout;
use crate::report::{Report, exit};

/// How long a worker may take to end once its drain timeout is over.
const GOODBYE: Duration = Duration::from_mins(1);

/// The folder of cgroups, in which systemd keeps the processes of its units.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Why a restart has to wait for the open connections.
#[derive(Debug, Error)]
pub(crate) enum HandoverError {
    /// A file of cgroups or of `/proc`.
    #[error("cannot hand over: {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    /// The unit has no process that its main process has started.
    #[error("cannot hand over: process {0} has started no process in this unit")]
    NoWorker(Pid),
    /// A command of systemd failed; `said` is its last line.
    #[error("cannot hand over: '{command}' failed: {said}")]
    Command { command: String, said: String },
    /// The keeper is gone, or belongs to another user.
    #[error("cannot hand over: process {keeper} takes no signal: {error}")]
    Signal { keeper: Pid, error: io::Error },
}

impl Report for HandoverError {
    fn hint(&self) -> &'static str {
        "the restart waits for the open connections, as a stop does: for 10 seconds at most"
    }

    fn exit_code(&self) -> u8 {
        exit::UNAVAILABLE
    }
}

/// Hands over, if `unit` is being restarted. If `unit` is being stopped, ends the workers
/// that earlier restarts have left. systemd names the main process in `MAINPID`; where that
/// has ended, there is nothing to hand over.
///
/// # Errors
/// When the handover fails. The worker is then still in the unit, and serves.
pub(crate) fn hand_over(unit: &str) -> Result<(), HandoverError> {
    match job_of(unit)?.as_deref() {
        Some("restart") => {}
        Some("stop") => return end_scopes(unit),
        _ => return Ok(()),
    }
    let Some(keeper) = main_process() else { return Ok(()) };
    let worker = worker_of(keeper)?;
    give_a_scope(unit, worker)?;
    kill(keeper, Signal::SIGUSR1)
        .map_err(|error| HandoverError::Signal { keeper, error: error.into() })?;
    // The restart may have become a stop meanwhile.
    match job_of(unit)?.as_deref() {
        Some("stop") => end_scopes(unit),
        _ => Ok(()),
    }
}

fn main_process() -> Option<Pid> {
    env::var("MAINPID").ok().and_then(|number| number.parse().ok()).map(Pid::from_raw)
}

/// Takes the worker into the scope that this process runs in.
///
/// # Errors
/// When the main process is no longer the worker's parent, or the system refuses.
pub(crate) fn adopt(worker: Pid) -> Result<(), HandoverError> {
    if let Some(keeper) = main_process()
        && parent_of(worker) != Some(keeper)
    {
        return Err(HandoverError::NoWorker(keeper));
    }
    let path = processes_of_own_cgroup()?;
    fs::write(&path, worker.to_string()).map_err(|error| HandoverError::File { path, error })
}

/// The kind of systemd's job for the unit, such as `restart`, which it is until the unit has
/// stopped.
fn job_of(unit: &str) -> Result<Option<String>, HandoverError> {
    let jobs = run("systemctl", &["list-jobs", "--plain", "--no-legend"])?;
    // The columns: number, unit, kind, state.
    let kind = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(unit)).then(|| words.next().map(str::to_owned))?
    };
    Ok(jobs.lines().find_map(kind))
}

/// Has systemd stop the scopes of earlier restarts, and does not wait for them: their
/// processes get a signal, and end by themselves.
fn end_scopes(unit: &str) -> Result<(), HandoverError> {
    let scopes = format!("{}*.scope", scope_prefix(unit));
    run("systemctl", &["stop", "--no-block", &scopes]).map(drop)
}

/// The process in this cgroup, which is the unit's, that the keeper has started.
fn worker_of(keeper: Pid) -> Result<Pid, HandoverError> {
    let processes = read(&processes_of_own_cgroup()?)?;
    let is_of_keeper = |process: &Pid| parent_of(*process) == Some(keeper);
    processes
        .lines()
        .filter_map(|line| line.parse().ok().map(Pid::from_raw))
        .find(is_of_keeper)
        .ok_or(HandoverError::NoWorker(keeper))
}

fn parent_of(process: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok().map(Pid::from_raw)
}

/// The file with the processes of this process's own cgroup.
fn processes_of_own_cgroup() -> Result<PathBuf, HandoverError> {
    let path = Path::new("/proc/self/cgroup");
    let own = read(path)?;
    let no_unified = || HandoverError::File {
        path: path.into(),
        error: io::Error::other("this host has no cgroups of version 2"),
    };
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(no_unified)?;
    Ok(Path::new(CGROUPS).join(own).join("cgroup.procs"))
}

fn read(path: &Path) -> Result<String, HandoverError> {
    fs::read_to_string(path).map_err(|error| HandoverError::File { path: path.into(), error })
}

/// Has systemd make a scope, and moves the worker there.
fn give_a_scope(unit: &str, worker: Pid) -> Result<(), HandoverError> {
    let program = Path::new("/proc/self/exe");
    let program = fs::read_link(program)
        .map_err(|error| HandoverError::File { path: program.into(), error })?;
    let slice = run("systemctl", &["show", "--property=Slice", "--value", unit])?;
    let name = scope_name(unit, worker);
    let description = format!("Open connections of {unit} from before a restart");
    run(
        "systemd-run",
        &[
            "--scope",
            "--quiet",
            "--collect",
            &format!("--unit={name}"),
            &format!("--slice={}", slice.trim()),
            &format!("--description={description}"),
            // A worker that is stuck must not stay for ever.
            &format!("--property=RuntimeMaxSec={}", longest_drain().as_secs()),
            // As in the unit, so that keys of connections are not swapped.
            "--property=MemorySwapMax=0",
            "--",
            &program.to_string_lossy(),
            "handover",
            unit,
            "--adopt",
            &worker.to_string(),
        ],
    )
    .map(drop)
}

/// How long a worker may take to drain and to end.
fn longest_drain() -> Duration {
    let drain = env::var("SPIPED_DRAIN_TIMEOUT").ok().and_then(|text| text.parse().ok());
    let drain: DrainTimeout = drain.unwrap_or_default();
    drain.get().saturating_add(GOODBYE)
}

fn scope_name(unit: &str, worker: Pid) -> String {
    format!("{}{worker}.scope", scope_prefix(unit))
}

/// The prefix of the names of a unit's scopes, before a number. A scope has no instances,
/// so its name cannot have an @.
pub(crate) fn scope_prefix(unit: &str) -> String {
    let unit = unit.strip_suffix(".service").unwrap_or(unit).replace('@', "-");
    format!("{unit}-draining-")
}

fn run(program: &str, words: &[&str]) -> Result<String, HandoverError> {
    let failed =
        |said| HandoverError::Command { command: format!("{program} {}", words.join(" ")), said };
    let output = Command::new(program)
        .args(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.lines().last().map_or_else(|| output.status.to_string(), Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_named_after_its_unit() {
        let name = |unit| scope_name(unit, Pid::from_raw(12));
        assert_eq!(name("spiped-send.service"), "spiped-send-draining-12.scope");
        assert_eq!(name("spiped-receive@redis.service"), "spiped-receive-redis-draining-12.scope");
    }
}
