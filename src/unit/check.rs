//! `spiped unit-check`: what a unit begins with, as root. It says what is missing, or open
//! to others, before the daemon is started without it; and it tells the daemon
//! whether it was systemd that started the unit again.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use thiserror::Error;

use crate::config::unit_name;
use crate::keys::file::{self, KeyFileError, Owners};
use crate::report::{Report, exit};

/// Why a unit cannot be started with its files.
#[derive(Debug, Error)]
pub(crate) enum UnitCheckError {
    /// The configuration is not there, or not readable.
    #[error("cannot read {}: {error}", path.display())]
    Configuration { path: PathBuf, error: io::Error },
    /// Whoever can write it tells what root runs, and where a pipe leads.
    #[error("{} can be written to by others than root", .0.display())]
    WritableConfiguration(PathBuf),
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

impl Report for UnitCheckError {
    fn hint(&self) -> &str {
        match self {
            Self::Configuration { path, .. } => configuration_hint(path),
            Self::WritableConfiguration(_) => "chown root the file, and chmod 644 it",
            Self::Key(error) => error.hint(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { .. } => exit::NO_INPUT,
            Self::WritableConfiguration(_) => exit::NO_PERMISSION,
            Self::Key(error) => error.exit_code(),
        }
    }
}

/// systemd-escape makes `a\x2db` of `a-b`, which systemd takes for a pattern.
fn configuration_hint(path: &Path) -> &'static str {
    if path.to_string_lossy().contains('\\') {
        "the unit has the name of the file as it is: not by systemd-escape"
    } else if path.extension().is_some_and(|kind| kind == "addr") {
        "write one line, ADDR= and the server's IP address; then 'systemctl start' the unit"
    } else {
        "'spiped setup' writes it, or see spiped.conf(5); then 'systemctl start' the unit"
    }
}

/// Refuses files that a unit cannot be started with.
///
/// # Errors
/// When the configuration cannot be read, or others than root can write it; or when the
/// key file is missing or not fit. It
/// may be missing where systemd decrypts the one with `.cred` behind its name.
pub(crate) fn check(configuration: &Path, key: &Path) -> Result<(), UnitCheckError> {
    let unread = |error| UnitCheckError::Configuration { path: configuration.into(), error };
    let metadata = fs::metadata(configuration).map_err(unread)?;
    if !metadata.is_file() {
        return Err(unread(io::Error::other("it is no regular file")));
    }
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(UnitCheckError::WritableConfiguration(configuration.into()));
    }
    match file::read(key, Owners::User(0)) {
        Err(KeyFileError::Read { error, .. })
            if error.kind() == io::ErrorKind::NotFound && encrypted(key).exists() => {}
        result => drop(result?),
    }
    if let Some((note, unit)) = note().zip(unit_name())
        && is_restarted_by_systemd(&unit)
    {
        // Never what a link leads to. Without it the daemon fails where it could wait.
        let _written = File::create_new(note);
    }
    Ok(())
}

fn encrypted(key: &Path) -> PathBuf {
    let mut path = OsString::from(key);
    path.push(".cred");
    path.into()
}

/// Whether a check has found that it was systemd that started this unit again, and
/// nobody waits to be told of it.
#[must_use]
pub(crate) fn is_restarted() -> bool {
    note().is_some_and(|note| note.exists())
}

/// In the runtime directory of a unit of ours, which is a new one with each start.
fn note() -> Option<PathBuf> {
    let _of_ours = unit_name()?;
    Some(PathBuf::from(env::var_os("RUNTIME_DIRECTORY")?).join("restarted"))
}

fn is_restarted_by_systemd(unit: &str) -> bool {
    let mut systemctl = Command::new("systemctl");
    let asked = systemctl.args(["show", "--property=NRestarts", "--value", unit]).output();
    let count = |said: Output| str::from_utf8(&said.stdout).ok()?.trim().parse::<u64>().ok();
    asked.ok().and_then(count).is_some_and(|restarts| restarts > 0)
}
