//! `spiped setup`: systemd runs an end of a pipe, by one command.
//!
//! ```text
//! words ──▶ config::setup ──▶ plan ──▶ apply ──▶ report
//!                              │ │       │ a step fails, or a signal comes
//!     refused: something else  │ │       └─▶ undo, in reverse order
//!     is there already      ◀──┘ └─▶ --dry-run: print
//! ```
//!
//! The steps of one end, each left out where it is done already:
//!
//! ```text
//! folder   /etc/spiped
//! key      /etc/spiped/NAME.key   made here by a receiver, given to a sender
//! conf     /etc/spiped/NAME.conf
//! drop-in  /etc/systemd/system/UNIT.socket.d/listen.conf   with --socket
//! enable   UNIT.service, or with --socket UNIT.socket
//! start    UNIT.socket with --socket, UNIT.service
//! ```
//!
//! A step is done as a whole or not at all. So a run that was killed, or cut
//! off by the power, is finished by running the same command again.

mod apply;
mod error;
mod plan;
mod report;
mod systemd;

use std::io::{self, IsTerminal};
use std::path::Path;

use nix::unistd::geteuid;

pub use error::SetupError;
pub use systemd::{Failure, Unit};

use crate::config::setup::{Run, Setup};
use crate::key_file::{KeyFileError, NewKey};

/// Sets it up, or with `--dry-run` only looks; what the operator is told.
///
/// # Errors
/// When it can't be done: nothing has changed then.
pub fn run(setup: &Setup) -> Result<String, SetupError> {
    if setup.run == Run::Real {
        if !geteuid().is_root() {
            return Err(SetupError::NotRoot);
        }
        if !systemd::is_running() {
            return Err(SetupError::NoSystemd);
        }
    }
    let given = setup.key().map(given_key).transpose()?;
    let plan = plan::make(setup, given)?;
    match setup.run {
        Run::Dry => Ok(report::what_would_be_done(&plan)),
        Run::Real => {
            let report = report::what_runs(setup, &plan);
            apply::all(plan.steps)?;
            Ok(report)
        }
    }
}

fn given_key(path: &Path) -> Result<NewKey, SetupError> {
    let is_input = path == Path::new("-");
    if is_input && io::stdin().is_terminal() {
        return Err(SetupError::KeyFromTerminal);
    }
    NewKey::copy_of(path).map_err(|error| {
        if matches!(error, KeyFileError::NoneCame) { SetupError::NoKeyCame } else { error.into() }
    })
}
