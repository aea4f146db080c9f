//! `spiped setup`: one command has systemd run an end of a pipe.
//!
//! ```text
//! words ──▶ config::setup ──▶ plan ──▶ check ──▶ apply ──▶ prove ──▶ report
//!                              │        │ │       │ a step fails, or a signal comes
//!     refused: something else  │        │ │       └─▶ undo, in reverse order
//!     is there already      ◀──┘        │ └─▶ --dry-run: print
//!     refused: no start would work   ◀──┘
//! ```
//!
//! The steps of one end; a step that is done already is left out:
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
//! One command at a time changes files: see [`lock`].
//!
//! A step is done as a whole or not at all. So a run that was cut off, by KILL or by a power
//! cut, is finished by the same command. A pipe whose proof fails stays, since the other
//! host may come later.
//!
//! `remove` takes away what setup has made; [`keys`] adds, changes and removes keys.

mod apply;
mod check;
mod error;
mod keys;
mod listener;
pub(crate) mod lock;
pub(crate) mod plan;
pub(crate) mod prove;
mod remove;
mod report;
mod systemd;
mod unit;
mod units;

use std::io::{self, IsTerminal};
use std::path::Path;

use nix::unistd::geteuid;

use self::unit::Unit;
pub(crate) use check::{check_source, check_source_of, refusal};
pub(crate) use error::SetupError;
pub(crate) use units::{Idle, SeenUnit, has_drop_ins, seen_units};

use self::plan::Plan;
use self::systemd::UnitState;
use crate::config::Role;
use crate::config::setup::{End, PipeName, Run, Setup, Task};
use crate::keys::error::KeyFileError;
use crate::keys::guessable::GuessableKey;
use crate::keys::new_key::NewKey;
use crate::process::signals;
use crate::protocol::KeyId;
use crate::unit::configuration::PipeUnit;

/// What the operator is told.
#[derive(Debug)]
pub(crate) struct SetupReport {
    /// What was done, and what to do next.
    pub(crate) text: String,
    /// Warnings about the keys.
    pub(crate) guessable: Vec<GuessableKey>,
    /// What is not as it should be in spite of that: a proof has failed, for instance.
    pub(crate) failed: Option<SetupError>,
}

impl SetupReport {
    fn of(text: String) -> Self {
        Self { text, guessable: vec![], failed: None }
    }
}

/// Sets a pipe up, or removes it; with `--dry-run` only looks.
///
/// # Errors
/// When a pipe cannot be set up, nothing of it is left. A removal may be done in part.
pub(crate) fn run(task: &Task) -> Result<SetupReport, SetupError> {
    let run = match task {
        Task::Make(setup) => setup.run,
        Task::Keys(task) => task.run,
        Task::Remove(removal) => removal.run,
    };
    if run == Run::Real {
        if !geteuid().is_root() {
            return Err(SetupError::NotRoot);
        }
        if !systemd::is_running() {
            return Err(SetupError::NoSystemd);
        }
    }
    match task {
        Task::Make(setup) => make(setup),
        Task::Keys(task) => keys::run(task),
        Task::Remove(removal) => {
            let _lock = (run == Run::Real).then(lock::lock).transpose()?;
            remove::remove(removal)
        }
    }
}

/// The units of a pipe that are enabled or run, by themselves or by their sockets.
///
/// # Errors
/// When there is none.
pub(crate) fn units_in_use(name: &PipeName) -> Result<Vec<PipeUnit>, SetupError> {
    let mut found = Vec::new();
    for role in [Role::Decrypt, Role::Encrypt] {
        let (service, socket) = Unit::both(role, name);
        if UnitState::of(&service)?.is_in_use() || UnitState::of(&socket)?.is_in_use() {
            found.push(PipeUnit::new(role, name));
        }
    }
    if found.is_empty() { Err(SetupError::NoUnitInUse(name.clone())) } else { Ok(found) }
}

fn make(setup: &Setup) -> Result<SetupReport, SetupError> {
    let given = setup.key().map(given_key).transpose()?;
    let lock = (setup.run == Run::Real).then(lock::lock).transpose()?;
    let plan = plan::make(setup, given)?;
    check::check(&plan)?;
    if setup.run == Run::Dry {
        let text = report::what_would_be_done(&plan);
        return Ok(SetupReport { text, guessable: plan.guessable, failed: None });
    }
    let Plan { steps, ends, guessable, .. } = plan;
    apply::all(steps, || Ok(())).map_err(|error| name_who_listens(error, &ends))?;
    drop(lock);
    // From here on nothing is undone, and signals may end the proof.
    signals::no_longer_handled().map_err(SetupError::System)?;
    let proofs: Vec<_> = ends.iter().map(|(end, _)| prove::works(end)).collect();
    let text = report::what_runs(setup, &ends, &proofs);
    Ok(SetupReport { text, guessable, failed: proofs.into_iter().find_map(Result::err) })
}

/// Replaces the hint of a unit whose address is in use: the unit, in its sandbox, cannot see
/// which process uses it.
fn name_who_listens(mut error: SetupError, ends: &[(End, KeyId)]) -> SetupError {
    if let SetupError::Start { unit, failure } = &mut error
        && failure.reason.contains("Address already in use")
    {
        let mut ends = ends.iter().map(|(end, _)| end);
        let end = ends.find(|end| [Unit::service(end), Unit::socket(end)].contains(unit));
        if let Some(hint) = end.and_then(|end| listener::hint(&end.source)) {
            failure.hint = hint;
        }
    }
    error
}

fn given_key(path: &Path) -> Result<NewKey, SetupError> {
    let is_input = path == Path::new("-");
    let key = if is_input && io::stdin().is_terminal() {
        NewKey::pasted()
    } else {
        NewKey::copy_of(path)
    };
    key.map_err(|error| {
        if matches!(error, KeyFileError::NoneCame) { SetupError::NoKeyCame } else { error.into() }
    })
}
