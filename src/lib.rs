//! `spiped`: an encrypted, authenticated pipe between two sockets.
//!
//! ```text
//!             sender (-e)                                receiver (-d)
//! client ──▶ source   target ══ handshake, records ══▶ source   target ──▶ server
//!   plaintext                        encrypted                     plaintext
//! ```
//!
//! The folders are layers: code names only what stands below it here.
//!
//! ```text
//! program    reads the command line, runs a command or a pipe, prints an error
//! check      whether a pipe works and refuses plaintext; what an auditor asks of a host
//! setup      has systemd run an end of a pipe, by one command
//! daemon     sockets and time: accept ─ connection ─ relay ─ net
//! status     what a running spiped tells of itself
//! unit       what the systemd units need: check, keeper, handover, notifications
//! keys       key files, and the key in force
//! logging    the log, for which no connection waits
//! process    the process: background, pid file, user, signals, standard streams
//! config     the command line and environment become values that cannot be wrong
//! report     what an error tells the operator: text, hint, exit code
//! protocol   the handshake and the records: bytes in, bytes out
//! ```
//!
//! [`protocol`] knows no socket, clock or file, and is handed its randomness. It is the
//! only part that other programs may use.

#[cfg(not(any(feature = "aws-lc", feature = "rust-crypto")))]
compile_error!(
    "nothing to seal records with: build with --features aws-lc, the default, or rust-crypto"
);

mod check;
mod config;
mod daemon;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keys;
mod logging;
mod process;
mod program;
pub mod protocol;
mod report;
mod setup;
mod status;
mod unit;

pub use program::main;
