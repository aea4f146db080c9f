//! What an error tells the operator: a text of one lower-case line, a hint, and an exit code
//! of `sysexits.h`. Each error has all three beside what fails.

use std::error::Error;
use std::io;

use nix::libc::{EAGAIN, EBADF, EISDIR, EMFILE, ENFILE, ENOMEM};
use thiserror::Error;

/// An error that can end the program.
pub(crate) trait Report: Error {
    /// What may help the operator.
    fn hint(&self) -> &str;

    /// The exit code, one of [`exit`].
    fn exit_code(&self) -> u8;
}

/// What stands before a warning on standard error, so that nobody takes it for the error.
pub(crate) const WARNING: &str = "warning: ";

/// Any error that can end the program.
pub(crate) type AnyError = Box<dyn Report>;

impl<E: Report + 'static> From<E> for AnyError {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}

/// Exit codes, by their names in `sysexits.h`.
pub(crate) mod exit {
    /// `EX_USAGE`: the command line or a variable is wrong.
    pub(crate) const USAGE: u8 = 64;
    /// `EX_DATAERR`: a key has the wrong length or form.
    pub(crate) const DATA: u8 = 65;
    /// `EX_NOINPUT`: a file cannot be read.
    pub(crate) const NO_INPUT: u8 = 66;
    /// `EX_NOUSER`: there is no such user, or the receiver refuses the key.
    pub(crate) const NO_USER: u8 = 67;
    /// `EX_NOHOST`: a host's name does not resolve.
    pub(crate) const NO_HOST: u8 = 68;
    /// `EX_UNAVAILABLE`: an address, another process or another host is not available.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// `EX_OSERR`: the system lacks a resource.
    pub(crate) const OS: u8 = 71;
    /// `EX_CANTCREAT`: a file cannot be made, or is in the way.
    pub(crate) const CANNOT_CREATE: u8 = 73;
    /// `EX_TEMPFAIL`: the server behind a receiver is not available now.
    pub(crate) const TRY_LATER: u8 = 75;
    /// `EX_PROTOCOL`: another program answers in the place of a receiver.
    pub(crate) const PROTOCOL: u8 = 76;
    /// `EX_NOPERM`: rights are missing, or a file is open to others.
    pub(crate) const NO_PERMISSION: u8 = 77;

    /// All exit codes.
    pub(crate) const ALL: [u8; 11] = [
        USAGE,
        DATA,
        NO_INPUT,
        NO_USER,
        NO_HOST,
        UNAVAILABLE,
        OS,
        CANNOT_CREATE,
        TRY_LATER,
        PROTOCOL,
        NO_PERMISSION,
    ];

    /// The exit code of a process that a signal of this number has ended, as a shell
    /// reports it.
    pub(crate) fn by_signal(number: u8) -> u8 {
        number.saturating_add(128)
    }
}

/// Whether the error is that the system lacks descriptors, memory or threads.
pub(crate) fn is_of_system(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EAGAIN))
}

/// An error of the operating system.
#[derive(Debug, Error)]
#[error("{what}: {error}")]
pub(crate) struct SystemError {
    /// What failed.
    what: &'static str,
    error: io::Error,
}

impl SystemError {
    /// Names what failed, for `map_err`.
    pub(crate) const fn of(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |error| Self { what, error }
    }
}

impl Report for SystemError {
    fn hint(&self) -> &str {
        match (self.error.kind(), self.error.raw_os_error()) {
            (io::ErrorKind::BrokenPipe, _) => "the program that read it has ended",
            (_, Some(EMFILE)) => "raise the limit of file descriptors (LimitNOFILE=, ulimit -n)",
            // The error of clone(2) at the limit of threads, or without room for a stack.
            (io::ErrorKind::WouldBlock, _) => {
                "raise the limit of threads (TasksMax=, the container's pids limit, ulimit -u), or of memory (ulimit -v)"
            }
            (io::ErrorKind::StorageFull, _) => "make room where it is written to",
            (_, Some(EBADF | EISDIR)) => {
                "it must be a file, a pipe, a socket or a terminal, open for that"
            }
            _ => "the system lacks a resource, and its log may say which",
        }
    }

    fn exit_code(&self) -> u8 {
        exit::OS
    }
}
