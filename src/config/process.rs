//! The options for the process itself.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueHint};

use super::address::{Address, AddressError};
use super::user::RunAs;
use super::value::{ValueError, flag, seconds};

/// How the process of a daemon runs. `spipe` has none of this.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct ProcessConfig {
    /// Stay in the foreground; log to stderr
    #[arg(short = 'F', long)]
    foreground: bool,

    /// Become this user once the source is bound
    #[arg(short = 'u', long = "user", value_name = "USER")]
    pub(crate) run_as: Option<RunAs>,

    /// File for the process id, else SOURCE.pid
    #[arg(short = 'p', long = "pidfile", value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Wait until the source's name resolves
    #[arg(short = 'D', long = "wait-for-dns", action = ArgAction::SetTrue,
          value_parser = flag(Dns::AtStart, Dns::Wait))]
    pub(crate) dns: Dns,

    /// Time to end connections at TERM
    #[arg(long, value_name = "SECONDS", default_value_t)]
    pub(crate) drain_timeout: DrainTimeout,

    /// With -F: hand over when a unit restarts
    #[arg(long)]
    pub(super) handover: bool,

    /// Unix socket for rekey, revoke and status
    #[arg(long, value_name = "PATH", value_parser = control, value_hint = ValueHint::FilePath)]
    pub(crate) control: Option<PathBuf>,

    /// Threads; auto is one per core
    #[arg(long, value_name = "NUMBER", default_value_t)]
    pub(crate) threads: Threads,
}

impl ProcessConfig {
    /// Where the process runs.
    #[must_use]
    pub(crate) const fn run_mode(&self) -> RunMode {
        match (self.foreground, self.handover) {
            (true, true) => RunMode::Handover,
            (true, false) => RunMode::Foreground,
            (false, _) => RunMode::Background,
        }
    }
}

/// `-F`, `--handover`: where the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunMode {
    /// The process stays where it was started, and serves.
    Foreground,
    /// The process stays where it was started, and has another one serve.
    Handover,
    /// The process detaches itself once it is ready.
    Background,
}

/// `-D`: what becomes of a source whose name does not resolve at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    /// The start fails.
    AtStart,
    /// The name is tried again until it resolves.
    Wait,
}

/// `--drain-timeout`: how long open connections have to end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainTimeout(Duration);

impl DrainTimeout {
    /// The time.
    #[must_use]
    pub(crate) const fn get(self) -> Duration {
        self.0
    }
}

impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl fmt::Display for DrainTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}

impl FromStr for DrainTimeout {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let time = seconds(text).map(Self);
        time.ok_or_else(|| ValueError::not(text, "a time in seconds, at most 86400"))
    }
}

/// `--threads`: how many one-thread runtimes share the connections; `None` for one
/// for each core that this process may use (written auto).
///
/// Measured on two cores: with half as many, requests of 50 Redis clients cost a
/// tenth less CPU, since each thread is woken for itself; but there are a twentieth
/// fewer of them in a second, four bulk flows are a fifth to a third slower, and a
/// thousand clients cost no less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Threads(Option<NonZeroUsize>);

impl Threads {
    const MAX: usize = 1024;

    /// The number of threads.
    #[must_use]
    pub(crate) fn get(self) -> usize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.0.unwrap_or_else(cores).get()
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl FromStr for Threads {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= Self::MAX);
        let wanted = "a number of threads from 1 to 1024 (auto: one for each core)";
        number.map(|number| Self(Some(number))).ok_or_else(|| ValueError::not(text, wanted))
    }
}

/// Reads the path of `--control`, for the commands that use it, too: they look for the processes
/// that have had it, by this name.
pub(super) fn control(text: &str) -> Result<PathBuf, ValueError> {
    match text.parse() {
        Ok(Address::Unix(path)) => Ok(path),
        Err(error @ (AddressError::PathTooLong(_) | AddressError::Scheme { .. })) => {
            Err(error.into())
        }
        _ => {
            let reason = format!("'{text}' is not the path of a unix socket");
            Err(ValueError::new(
                reason,
                "a path begins with /, such as /run/spiped-receive@NAME/control",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_outside_their_bounds_are_refused() {
        assert_eq!("auto".parse(), Ok(Threads::default()));
        assert_eq!("1024".parse().map(Threads::get), Ok(1024));
        assert!("0".parse::<Threads>().is_err() && "1025".parse::<Threads>().is_err());
    }
}
