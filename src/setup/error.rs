//! Why a pipe was not set up, not removed, or does not work.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::unit::{Failure, Unit};
use crate::config::Address;
use crate::config::setup::PipeName;
use crate::daemon::check::Fault;
use crate::keys::file::KeyFileError;
use crate::protocol::KeyId;
use crate::report::{Report, exit};

/// Why a pipe was not set up, not removed, or does not work.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    /// The files are root's, and so is systemd.
    #[error("only root can set up a pipe, or remove one")]
    NotRoot,
    /// Another init system, or a container without any.
    #[error("systemd is not running here, and it is what would run the pipe")]
    NoSystemd,
    /// No such template.
    #[error("{0} is not known to systemd: the units of spiped are not installed")]
    NotInstalled(Unit),
    /// What was to print it has failed.
    #[error("no key on standard input")]
    NoKeyCame,
    /// The key that was given, or the one that is there, is refused.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Others could put keys of theirs there.
    #[error("{} can be written to by others than root", .0.display())]
    WritableFolder(PathBuf),
    /// A file that stands for another pipe, or another state of this one.
    #[error("{} is there with another key, {there}, than the one given, {given}", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// Its key.
        there: KeyId,
        /// The one on the command line.
        given: KeyId,
    },
    /// The same of its configuration.
    #[error("{} is there and does not say {variable}={wanted}", path.display())]
    OtherConf {
        /// The file.
        path: PathBuf,
        /// Of the environment.
        variable: &'static str,
        /// The address on the command line.
        wanted: Address,
    },
    /// The same of a socket's drop-in.
    #[error("{} is there and does not say {line}", path.display())]
    OtherDropIn {
        /// The file.
        path: PathBuf,
        /// The address on the command line.
        line: String,
    },
    /// It listens in the other of the two ways.
    #[error("{0} is in use already")]
    OtherActivation(Unit),
    /// Its files are gone.
    #[error("{unit} is running, but {} is not there", missing.display())]
    Running {
        /// What runs.
        unit: Unit,
        /// The file it was started with.
        missing: PathBuf,
    },
    /// A file or folder can't be read, made or removed.
    #[error("cannot {what} {}: {error}", path.display())]
    File {
        /// `read`, `make` or `remove`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// A unit does not start.
    #[error("{unit} does not start: {}", failure.reason)]
    Start {
        /// The unit.
        unit: Unit,
        /// What its log says.
        failure: Failure,
    },
    /// It runs, and does not work, or not yet.
    #[error("{name} is set up and runs, but is not proved: {fault}")]
    Unproved {
        /// The pipe.
        name: PipeName,
        /// What does not work.
        fault: Fault,
    },
    /// Either could be meant.
    #[error("{0} is a pipe, and a pair as well: {0}-in and {0}-out")]
    PipeAndPair(PipeName),
    /// A command of systemd's failed.
    #[error("'{command}' failed: {said}")]
    Command {
        /// The command.
        command: String,
        /// Its own last line.
        said: String,
    },
    /// INT, TERM or HUP.
    #[error("ended by a signal, before it was done")]
    Interrupted(i32),
    /// Handling signals, or processes.
    #[error("cannot watch processes and signals: {0}")]
    System(io::Error),
    /// It failed, and so did the way back.
    #[error("{error}; and this could not be undone: {left}")]
    NotUndone {
        /// Why it failed.
        error: Box<SetupError>,
        /// What is left.
        left: String,
    },
}

impl Report for SetupError {
    fn hint(&self) -> &str {
        match self {
            Self::NotRoot => "run it with sudo; --dry-run needs no root",
            Self::NoSystemd => "without systemd run the two ends yourself: 'man spiped', Examples",
            Self::NotInstalled(_) => {
                "install the package, or the units to /usr/lib/systemd/system; then 'systemctl daemon-reload'"
            }
            Self::NoKeyCame => {
                "the command before the pipe has printed none. Where sudo asks for a password, run 'sudo base64 FILE' there, and this command here without what stands before the pipe: it asks for the key"
            }
            Self::Unproved { fault, .. } => fault.hint(),
            Self::PipeAndPair(_) => {
                "--alone removes the pipe and leaves the pair, whose halves have names of their own"
            }
            Self::Key(error) => error.hint(),
            Self::WritableFolder(_) => "chown root it, and chmod 700 it",
            Self::OtherKey { .. } => {
                "a key is never overwritten: if the given one is right, move that file away, stop the unit and run this again"
            }
            Self::OtherConf { .. } => {
                "for other addresses run 'spiped setup remove' first, or edit the file and 'systemctl restart' the unit; or choose another name"
            }
            Self::OtherDropIn { .. } => {
                "edit it, then 'systemctl daemon-reload' and restart the socket; or move it away"
            }
            Self::OtherActivation(_) => {
                "'systemctl disable --now' it first; --socket is for pipes that were set up with it"
            }
            Self::Running { .. } => "put the file back, or 'systemctl stop' the unit first",
            Self::File { .. } => "check the folder, and that its file system can be written to",
            Self::Start { failure, .. } => &failure.hint,
            Self::Command { .. } => "'systemctl status' and 'journalctl' may say more",
            Self::Interrupted(_) => "all it had made is removed; run it again",
            Self::System(_) => "the system is short of something, its log may say of what",
            Self::NotUndone { .. } => "undo that by hand, then run it again",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NotRoot | Self::WritableFolder(_) => exit::NO_PERMISSION,
            Self::NoKeyCame => exit::NO_INPUT,
            Self::Key(error) => error.exit_code(),
            Self::OtherKey { .. }
            | Self::OtherConf { .. }
            | Self::OtherDropIn { .. }
            | Self::OtherActivation(_)
            | Self::PipeAndPair { .. }
            | Self::Running { .. }
            | Self::File { .. } => exit::CANNOT_CREATE,
            // The unit's own code, where it has one.
            Self::Start { failure, .. } => failure.code.unwrap_or(exit::UNAVAILABLE),
            Self::NoSystemd | Self::NotInstalled(_) | Self::Command { .. } => exit::UNAVAILABLE,
            Self::Unproved { fault, .. } => fault.exit_code(),
            Self::Interrupted(number) => u8::try_from(*number).map_or(exit::OS, exit::by_signal),
            Self::System(_) => exit::OS,
            Self::NotUndone { error, .. } => error.exit_code(),
        }
    }
}
