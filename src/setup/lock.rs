//! The lock on the configuration: one command at a time changes its files, or reads them and
//! hands them over. A slower one would bring a removed key back that it has read before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::report::{Report, exit};
use crate::unit::configuration::FOLDER;

/// How long another command may take.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Guard: no other command has the lock until this is dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "unlocks when dropped")] Option<Flock<File>>);

/// Why the lock is not to be had.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    #[error("another command is at work on {FOLDER}")]
    Busy,
    #[error("cannot lock {FOLDER}: {0}")]
    System(io::Error),
}

impl Report for LockError {
    fn hint(&self) -> &str {
        match self {
            Self::Busy => "run it again once that one is done; 'lslocks' names it",
            Self::System(_) => "check the file system of that folder",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            // A reload of a unit fails by it, which 75 would not have it do.
            Self::Busy => exit::UNAVAILABLE,
            Self::System(_) => exit::OS,
        }
    }
}

/// Locks the configuration. A folder that is missing, or that this user cannot read, needs no
/// lock: nothing can be read there.
///
/// # Errors
/// When another command has the lock for more than a few seconds.
pub(super) fn lock() -> Result<Lock, LockError> {
    let Ok(mut folder) = File::open(FOLDER) else { return Ok(Lock(None)) };
    let started = Instant::now();
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(Lock(Some(locked))),
            Err((_, Errno::EWOULDBLOCK)) if started.elapsed() > PATIENCE => {
                return Err(LockError::Busy);
            }
            Err((unlocked, Errno::EWOULDBLOCK)) => folder = unlocked,
            Err((_, error)) => return Err(LockError::System(error.into())),
        }
        thread::sleep(PAUSE);
    }
}

/// Locks the configuration if one of these keys is in it.
///
/// # Errors
/// As [`lock`].
pub(crate) fn lock_for(keys: &[PathBuf]) -> Result<Lock, LockError> {
    let is_there = |key: &PathBuf| key.parent() == Some(Path::new(FOLDER));
    if keys.iter().any(is_there) { lock() } else { Ok(Lock(None)) }
}
