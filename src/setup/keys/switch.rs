//! `spiped setup rotate --key`: the step of a rotation on a sender's host.

use std::path::Path;

use super::receiver::{control, id_of};
use crate::config::Role;
use crate::config::setup::{PipeName, Run};
use crate::daemon::control::client;
use crate::daemon::proof::FaultKind;
use crate::keys::file::{self as keys, Owners};
use crate::keys::new_key::NewKey;
use crate::process::new_file;
use crate::setup::error::SetupError;
use crate::setup::lock::lock;
use crate::setup::plan::file;
use crate::setup::prove;
use crate::setup::remove::names_here;
use crate::setup::systemd::{Activity, UnitState};
use crate::setup::unit::Unit;
use crate::setup::{SetupReport, given_key};
use crate::unit::configuration::FOLDER;

/// Puts a key in place of the one that a sender has, once the receiver has proved to take
/// it.
pub(super) fn switch(pipe: &PipeName, given: &Path, run: Run) -> Result<SetupReport, SetupError> {
    let path = file(pipe, "key");
    let encrypted = file(pipe, "key.cred");
    if encrypted.exists() {
        return Err(SetupError::Encrypted(encrypted));
    }
    if !path.exists() {
        return Err(SetupError::NoPipe { name: pipe.clone(), hint: names_here() });
    }
    let unit = Unit::both(Role::Encrypt, pipe).0;
    let state = UnitState::of(&unit)?;
    if !state.is_in_use() && UnitState::of(&Unit::both(Role::Decrypt, pipe).0)?.is_in_use() {
        return Err(SetupError::ReceiverHere(pipe.clone()));
    }
    let new = given_key(given)?;
    let (before, now) = (id_of(&path)?, new.id());
    let guessable = new.guessable(&path).into_iter().collect();
    let running = (state.activity == Activity::Running).then_some(&unit);
    if run == Run::Dry {
        let reload = running.map(|unit| format!("would reload the key of {unit}\n"));
        let text = format!(
            "would prove that the receiver takes the given key {now}\n\
             would replace {}, with the key {before}, by it\n{}",
            path.display(),
            reload.unwrap_or_default()
        );
        return Ok(SetupReport { text, guessable, failed: None });
    }
    let unproved = match prove::takes(pipe, &new.derive()?)? {
        Ok(()) => None,
        // The receiver has proved that it has the key.
        Err(fault) if matches!(fault.kind, FaultKind::ServerDown | FaultKind::Busy) => {
            Some(SetupError::Unproved { name: pipe.clone(), fault })
        }
        Err(fault) => return Err(SetupError::KeyStays { name: pipe.clone(), fault }),
    };
    let _lock = lock()?;
    // Another run may have changed it meanwhile.
    let before = id_of(&path)?;
    new_file::remove_unfinished(Path::new(FOLDER));
    replace(&path, &new, running)?;
    let had = if before == now { "as before".into() } else { format!("in place of {before}") };
    let runs = if running.is_some() {
        "Its open connections go on.\n".to_owned()
    } else {
        format!("It does not run: 'systemctl start {unit}'.\n")
    };
    let text = format!(
        "The sender {pipe} has the key {now}, {had}.\n  \
         The receiver takes the key.\n{runs}\
         If a rotation was begun on the receiver's host, finish it there.\n"
    );
    Ok(SetupReport { text, guessable, failed: unproved })
}

/// Replaces the key file, and has the running sender take it. Where the sender refuses, the
/// old file comes back.
fn replace(path: &Path, new: &NewKey, running: Option<&Unit>) -> Result<(), SetupError> {
    let old = keys::content(path, Owners::Own)?;
    new.replace(path)?;
    let Some(unit) = running else { return Ok(()) };
    let rekeyed = client::rekey(&control(unit), &[path.into()]);
    let Err(error) = rekeyed.map_err(|error| SetupError::of_rekey(unit, error)) else {
        return Ok(());
    };
    if !error.leaves_keys_unknown() {
        let back = new_file::replace(path, &old, 0o600);
        back.map_err(|error| SetupError::File { what: "put back", path: path.into(), error })?;
    }
    Err(error)
}
