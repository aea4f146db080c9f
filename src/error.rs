//! What the operator reads when the program cannot start: one lower-case
//! line, a hint, and an exit code of `sysexits.h`.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EBADF, EISDIR, EMFILE, ENOENT, EPERM,
};
use thiserror::Error;

use crate::background::PidFileError;
use crate::config::setup::SetupConfigError;
use crate::config::{Address, ConfigError};
use crate::daemon::{ActivationError, FaultKind};
use crate::handover::HandoverError;
use crate::key_file::KeyFileError;
use crate::privileges::PrivilegesError;
use crate::rekey::RekeyError;
use crate::setup::SetupError;

/// Why the program ended before or while serving.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line cannot be read.
    #[error("{reason}")]
    Usage {
        /// The first line of what is wrong.
        reason: String,
        /// What was meant, where that can be guessed.
        meant: Option<String>,
    },
    /// Caused by the value of a variable.
    #[error("{variable}: {error}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        error: Box<Self>,
    },
    /// A file of a unit is not there, or not readable.
    #[error("cannot read {}: {error}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// Whoever can write it tells what root runs, and where a pipe leads.
    #[error("{} can be written to by others than root", .0.display())]
    OpenConfiguration(PathBuf),
    /// The command line can be read but says something that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The same of `setup`.
    #[error(transparent)]
    SetupConfig(#[from] SetupConfigError),
    /// `setup` can't be done.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The source socket can't be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The source.
        address: Address,
        /// The system's word.
        error: io::Error,
    },
    /// The sockets that systemd hands over.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// `rekey`.
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    /// `handover`.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// `spipe`'s connection was not made, or did not end cleanly.
    #[error("{reason}")]
    Pipe {
        /// What happened.
        reason: String,
        /// What may help.
        hint: &'static str,
    },
    /// Whom `-u` names.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The pid file.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// Listening failed for good, or the runtime could not start.
    #[error("{what}: {error}")]
    System {
        /// What failed.
        what: &'static str,
        /// The system's word.
        error: io::Error,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Usage { meant, .. } => meant.as_deref().unwrap_or("'--help' lists the options"),
            Self::Variable { error, .. } => error.hint(),
            Self::Configuration { path, .. } => configuration_hint(path),
            Self::OpenConfiguration(_) => "chown root the file, and chmod 644 it",
            Self::Config(error) => error.hint(),
            Self::SetupConfig(error) => error.hint(),
            Self::Setup(error) => error.hint(),
            Self::KeyFile(error) => error.hint(),
            Self::Listen { address, error } => listen_hint(address, error),
            Self::Activation(error) => error.hint(),
            Self::Rekey(error) => error.hint(),
            Self::Handover(error) => error.hint(),
            Self::Pipe { hint, .. } => hint,
            Self::Privileges(error) => privileges_hint(error),
            Self::PidFile(PidFileError::Held { .. }) => {
                "end that process first, or name another file with -p"
            }
            Self::PidFile(PidFileError::Foreign(_)) => {
                "name another file with -p; if nobody needs this one, remove it first"
            }
            Self::PidFile(PidFileError::Write { .. }) => {
                "name a file this user may write with -p, or stay in the foreground with -F"
            }
            Self::System { error, .. } if error.kind() == io::ErrorKind::BrokenPipe => {
                "whoever read it has ended"
            }
            Self::System { error, .. } if error.raw_os_error() == Some(EMFILE) => {
                "raise the limit of file descriptors (LimitNOFILE=, ulimit -n)"
            }
            // What clone(2) says where there may be no further task.
            Self::System { error, .. } if error.kind() == io::ErrorKind::WouldBlock => {
                "raise the limit of threads (TasksMax=, the container's pids limit, ulimit -u)"
            }
            Self::System { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
                "make room where it is written to"
            }
            Self::System { error, .. } if matches!(error.raw_os_error(), Some(EBADF | EISDIR)) => {
                "it must be a file, a pipe, a socket or a terminal, open for that"
            }
            Self::System { .. } => "the system is short of something, its log may say of what",
        }
    }

    /// The exit code, as in `sysexits.h`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Variable { error, .. } => error.exit_code(),
            Self::Configuration { .. } => NO_INPUT,
            Self::Usage { .. } | Self::Config(_) | Self::SetupConfig(_) | Self::Activation(_) => {
                USAGE
            }
            Self::Setup(error) => setup_code(error),
            Self::KeyFile(error) => key_file_code(error),
            Self::Rekey(RekeyError::Refused(_)) => DATA,
            Self::Privileges(
                PrivilegesError::NoUser(_)
                | PrivilegesError::NoGroup(_)
                | PrivilegesError::NoGroupOf(_),
            ) => NO_USER,
            Self::OpenConfiguration(_) | Self::Privileges(_) => NO_PERMISSION,
            Self::Listen { .. }
            | Self::Handover(_)
            | Self::Pipe { .. }
            | Self::Rekey(RekeyError::Connect { .. } | RekeyError::NoAnswer { .. })
            | Self::PidFile(PidFileError::Held { .. }) => UNAVAILABLE,
            Self::PidFile(PidFileError::Foreign(_) | PidFileError::Write { .. }) => CANNOT_CREATE,
            Self::System { .. } => OS,
        }
    }
}

const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;
const NO_USER: u8 = 67;
const NO_HOST: u8 = 68;
const UNAVAILABLE: u8 = 69;
const OS: u8 = 71;
const CANNOT_CREATE: u8 = 73;
const TRY_LATER: u8 = 75;
const PROTOCOL: u8 = 76;
const NO_PERMISSION: u8 = 77;

const fn key_file_code(error: &KeyFileError) -> u8 {
    match error {
        KeyFileError::Read { .. } | KeyFileError::NoneCame => NO_INPUT,
        KeyFileError::Length { .. } | KeyFileError::NotBase64 => DATA,
        KeyFileError::NotRegular(_) | KeyFileError::Mode { .. } | KeyFileError::Owner { .. } => {
            NO_PERMISSION
        }
        KeyFileError::Exists(_) | KeyFileError::Write { .. } => CANNOT_CREATE,
        KeyFileError::Randomness(_) | KeyFileError::Memory(_) => OS,
    }
}

fn setup_code(error: &SetupError) -> u8 {
    match error {
        SetupError::NotRoot | SetupError::OpenFolder(_) => NO_PERMISSION,
        SetupError::NoKeyCame => NO_INPUT,
        SetupError::Key(error) => key_file_code(error),
        SetupError::OtherKey { .. }
        | SetupError::OtherConf { .. }
        | SetupError::OtherDropIn { .. }
        | SetupError::OtherActivation(_)
        | SetupError::PipeAndPair { .. }
        | SetupError::Running { .. }
        | SetupError::File { .. } => CANNOT_CREATE,
        // The unit's own code, where it has one.
        SetupError::Start { failure, .. } => failure.code.unwrap_or(UNAVAILABLE),
        SetupError::NoSystemd | SetupError::NotInstalled(_) | SetupError::Command { .. } => {
            UNAVAILABLE
        }
        SetupError::Unproved { fault, .. } => fault_code(fault.kind),
        // As a shell has it.
        SetupError::Interrupted(number) => u8::try_from(number.saturating_add(128)).unwrap_or(OS),
        SetupError::System(_) => OS,
        SetupError::NotUndone { error, .. } => setup_code(error),
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

/// How far a pipe works, as an exit code.
const fn fault_code(kind: FaultKind) -> u8 {
    match kind {
        FaultKind::Refused => NO_USER,
        FaultKind::Unresolved => NO_HOST,
        FaultKind::Unreachable => UNAVAILABLE,
        FaultKind::System => OS,
        FaultKind::ServerDown => TRY_LATER,
        FaultKind::NotOurs => PROTOCOL,
    }
}

const fn privileges_hint(error: &PrivilegesError) -> &'static str {
    match error {
        PrivilegesError::NoUser(_) => "name a user of this system, or its number",
        PrivilegesError::NoGroupOf(_) => "name its group as well: USER:GROUP",
        PrivilegesError::NoGroup(_) => "name a group of this system, or its number",
        PrivilegesError::Refused { .. } => "only root can become another user",
        PrivilegesError::WayBack => "a fault of the system; nothing is served like this",
    }
}

fn listen_hint(address: &Address, error: &io::Error) -> &'static str {
    let is_ipv6 = matches!(address, Address::Inet(inet) if inet.is_ipv6());
    match error.raw_os_error() {
        Some(EADDRINUSE) if matches!(address, Address::Unix(_)) => {
            "something listens there, or what is there is no socket: 'ls -l' and 'ss -lxp' tell"
        }
        Some(EADDRINUSE) => "something listens there, perhaps another pipe: 'ss -lntxp' names it",
        Some(EADDRNOTAVAIL) if is_ipv6 => {
            "no interface of this host has that address, or IPv6 is off here: [0.0.0.0] is all of IPv4"
        }
        Some(EADDRNOTAVAIL) => "no interface of this host has that address",
        Some(EAFNOSUPPORT) => {
            "this kernel, or the unit's sandbox, has no IPv6: [0.0.0.0] is all of IPv4"
        }
        Some(EACCES | EPERM) => {
            "ports below 1024, and folders of others, need rights this user has not; a socket unit of systemd has them"
        }
        Some(ENOENT) => "the folder of that path is not there: make it first",
        None if matches!(address, Address::Host(..)) => {
            "check the name after -s and the resolver; with -D it is waited for"
        }
        _ => "name another address after -s, or another path after --control",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_ipv6_is_told_so() {
        let hint = |address: &str, number| {
            let error = io::Error::from_raw_os_error(number);
            let address = address.parse().unwrap();
            Error::Listen { address, error }.hint().to_owned()
        };
        assert!(hint("[::]:1", EAFNOSUPPORT).contains("no IPv6"));
        assert!(hint("[::1]:1", EADDRNOTAVAIL).contains("IPv6 is off here"));
        assert!(!hint("127.0.0.9:1", EADDRNOTAVAIL).contains("IPv6"));
    }
}
