//! Why a pipe was not set up, not removed, or does not work.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::lock::LockError;
use super::unit::{Failure, Unit};
use crate::config::KeyName;
use crate::config::setup::PipeName;
use crate::daemon::control::client::ControlError;
use crate::daemon::proof::Fault;
use crate::keys::error::KeyFileError;
use crate::protocol::KeyId;
use crate::report::{Report, exit};

/// Why a pipe was not set up, not removed, or does not work.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error("only root can set up, change or remove a pipe")]
    NotRoot,
    /// Another init system runs, or a container has none.
    #[error("systemd, which would run the pipe, is not running here")]
    NoSystemd,
    #[error("{0} is not known to systemd: the units of spiped are not installed")]
    NotInstalled(Unit),
    /// The command that should print the key has failed.
    #[error("no key on standard input")]
    NoKeyCame,
    /// The given key, or the existing one, is refused.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another user could put a key there.
    #[error("users other than root can write to {}", .0.display())]
    WritableFolder(PathBuf),
    /// The key file is of another pipe, or of another state of this pipe.
    #[error("{} exists with another key, {there}, than the given one, {given}", path.display())]
    OtherKey { path: PathBuf, there: KeyId, given: KeyId, hint: String },
    /// The configuration, or the socket's drop-in, is of another pipe, or of another state of
    /// this pipe.
    #[error("{} exists, but lacks the line {line}", path.display())]
    OtherAddress { path: PathBuf, line: String, hint: String },
    /// There is nothing to remove.
    #[error("there is no pipe {name}")]
    NoPipe { name: PipeName, hint: String },
    /// Of this pipe, no unit is enabled or runs.
    #[error("neither end of {0} is in use")]
    NoUnitInUse(PipeName),
    /// No key of the receiver has this name.
    #[error("there is no key {name}")]
    NoKey { name: KeyName, hint: String },
    /// The name is taken by the key that the pipe was made with.
    #[error("{0} is the name of the pipe, whose own key has it")]
    NameOfPipe(KeyName),
    /// Keys are made and revoked where the receiver is.
    #[error("{0} is a sender here, and its receiver is on another host")]
    SenderHere(PipeName),
    /// The key of a sender is replaced where the sender is.
    #[error("{0} is a receiver here, and its sender is on another host")]
    ReceiverHere(PipeName),
    /// The unit of the pipe decrypts its keys.
    #[error("{} is encrypted, and a plain key beside it would not count", .0.display())]
    Encrypted(PathBuf),
    /// The configuration of a sender does not say where its receiver is.
    #[error("{} lacks a line SPIPED_TARGET=ADDRESS", .0.display())]
    NoTarget(PathBuf),
    /// The receiver does not take the new key.
    #[error("{name} keeps its key, since the pipe does not work with the new one: {fault}")]
    KeyStays { name: PipeName, fault: Fault },
    /// The running receiver was not reached, or refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The running process may have the keys, or not. The files stay.
    #[error("the files are in place, but it is not known whether {unit} has the keys: {error}")]
    Unanswered { unit: Unit, error: ControlError, hint: String },
    /// Another command is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The running receiver may have the key, whatever has become of its files.
    #[error("the running receiver may still have the key: {0}")]
    NotRevoked(ControlError),
    /// The end of a rotation that was to revoke the old key, too.
    #[error("the rotation is not finished, since the old key may still be in force: {0}")]
    OldNotRevoked(ControlError),
    /// A start may have the key again. Which files are left is in the text.
    #[error("not all files of the key {0} are removed")]
    FilesLeft(KeyName),
    /// The pipe is set up with a socket unit, and now wanted without one, or the reverse.
    #[error("{0} is in use already")]
    OtherActivation(Unit),
    /// A unit runs whose file is missing.
    #[error("{unit} is running, but {} is missing", missing.display())]
    Running { unit: Unit, missing: PathBuf },
    /// A start would refuse the configuration, or a key.
    #[error("the configuration {} would be refused: {}", path.display(), failure.reason)]
    Refused { path: PathBuf, failure: Failure },
    /// A file or folder cannot be read, made or removed.
    #[error("cannot {what} {}: {error}", path.display())]
    File { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{unit} does not start: {}", failure.reason)]
    Start { unit: Unit, failure: Failure },
    /// The pipe runs, but its proof has failed.
    #[error("{name} is set up and runs, but its proof has failed: {fault}")]
    Unproved { name: PipeName, fault: Fault },
    /// The name to be removed could mean either.
    #[error("{0} is a pipe, and a pair as well: {0}-in and {0}-out")]
    PipeAndPair(PipeName),
    /// A command of systemd failed; `said` is a line of its output.
    #[error("'{command}' failed: {said}")]
    Command { command: String, said: String },
    /// INT, TERM or HUP, by its number.
    #[error("interrupted by a signal before it was done")]
    Interrupted(i32),
    /// Signals or processes cannot be handled.
    #[error("cannot watch processes and signals: {0}")]
    System(io::Error),
    /// A step failed, and so did undoing the steps before it.
    #[error("{error}; and this could not be undone: {left}")]
    NotUndone { error: Box<SetupError>, left: String },
}

impl SetupError {
    /// The error of a running process that should have taken new keys.
    pub(super) fn of_rekey(unit: &Unit, error: ControlError) -> Self {
        let is_known = !matches!(
            error,
            ControlError::NoAnswer { .. }
                | ControlError::NotUnderstood { .. }
                | ControlError::NotDone { .. }
        );
        if is_known {
            return error.into();
        }
        let hint = format!(
            "'systemctl reload {unit}' has it take the files as they are, 'systemctl restart' \
             helps where it hangs; then run this again"
        );
        Self::Unanswered { unit: unit.clone(), error, hint }
    }

    /// Whether the running process may have taken the new keys.
    pub(super) const fn leaves_keys_unknown(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }
}

impl Report for SetupError {
    fn hint(&self) -> &str {
        match self {
            Self::NotRoot => "run it with sudo; --dry-run needs no root",
            Self::NoSystemd => "without systemd, run the two ends yourself: 'man spiped', Examples",
            Self::NotInstalled(_) => {
                "install the package, or the units to /usr/lib/systemd/system; then 'systemctl daemon-reload'"
            }
            Self::NoKeyCame => {
                "the command before the | has printed no key. Where sudo asks for a password, run 'sudo base64 FILE' there, and this command here without what stands before the |: it asks for the key"
            }
            Self::PipeAndPair(_) => {
                "--alone removes the pipe and leaves the pair, whose halves have names of their own"
            }
            Self::Key(error) => error.hint(),
            Self::WritableFolder(_) => "run 'chown root' and 'chmod 700' on it",
            Self::OtherKey { hint, .. }
            | Self::OtherAddress { hint, .. }
            | Self::NoKey { hint, .. }
            | Self::Unanswered { hint, .. }
            | Self::NoPipe { hint, .. } => hint,
            Self::NoUnitInUse(_) => "name the unit: spiped-receive@NAME or spiped-send@NAME",
            Self::Lock(error) => error.hint(),
            Self::NameOfPipe(_) => "give the client another name",
            Self::SenderHere(_) => {
                "run it there; here, 'spiped setup rotate PIPE --key FILE' changes the sender's key"
            }
            Self::ReceiverHere(_) => {
                "run it there; here, it is 'spiped setup rotate NAME --pipe PIPE'"
            }
            Self::Encrypted(_) => {
                "spiped.conf(5), 'Encrypted keys', tells how to make and change such keys"
            }
            Self::NoTarget(_) => "write that line there",
            Self::Unproved { fault, .. } | Self::KeyStays { fault, .. } => fault.hint(),
            Self::Control(error) | Self::OldNotRevoked(error) => error.hint(),
            Self::NotRevoked(_) => {
                "run it again; if it fails again, end all connections: KEYS in spiped.conf(5) has the command"
            }
            Self::FilesLeft(_) => {
                "remove them by hand, or mend what the line says, then run it again: a start has the keys that are there"
            }
            Self::OtherActivation(_) => {
                "'systemctl disable --now' it first; --socket is for pipes that were set up with it"
            }
            Self::Running { .. } => "put the file back, or 'systemctl stop' the unit first",
            Self::File { .. } => "check the folder, and that its file system can be written to",
            Self::Start { failure, .. } | Self::Refused { failure, .. } => &failure.hint,
            Self::Command { .. } => "'systemctl status' and 'journalctl' may say more",
            Self::Interrupted(_) => "all that it had made is removed; run it again",
            Self::System(_) => "the system lacks a resource, and its log may say which",
            Self::NotUndone { .. } => "undo that by hand, then run it again",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NotRoot | Self::WritableFolder(_) => exit::NO_PERMISSION,
            Self::NoKeyCame | Self::NoPipe { .. } | Self::NoUnitInUse(_) => exit::NO_INPUT,
            Self::NoKey { .. } => exit::NO_USER,
            Self::NoTarget(_) => exit::DATA,
            Self::Key(error) => error.exit_code(),
            Self::Control(error)
            | Self::NotRevoked(error)
            | Self::OldNotRevoked(error)
            | Self::Unanswered { error, .. } => error.exit_code(),
            Self::Lock(error) => error.exit_code(),
            Self::OtherKey { .. }
            | Self::OtherAddress { .. }
            | Self::OtherActivation(_)
            | Self::PipeAndPair { .. }
            | Self::NameOfPipe(_)
            | Self::SenderHere(_)
            | Self::ReceiverHere(_)
            | Self::Encrypted(_)
            | Self::FilesLeft(_)
            | Self::Running { .. }
            | Self::File { .. } => exit::CANNOT_CREATE,
            // The unit's own code, where it has one.
            Self::Start { failure, .. } | Self::Refused { failure, .. } => {
                failure.code.unwrap_or(exit::UNAVAILABLE)
            }
            Self::NoSystemd | Self::NotInstalled(_) | Self::Command { .. } => exit::UNAVAILABLE,
            Self::Unproved { fault, .. } | Self::KeyStays { fault, .. } => fault.exit_code(),
            Self::Interrupted(number) => u8::try_from(*number).map_or(exit::OS, exit::by_signal),
            Self::System(_) => exit::OS,
            Self::NotUndone { error, .. } => error.exit_code(),
        }
    }
}
