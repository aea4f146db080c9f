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
//! program    the command line is read, a command or a pipe is run, an error is told
//! setup      systemd is made to run an end of a pipe, by one command
//! daemon     sockets and time: accept ─ connection ─ relay ─ net
//! unit       what a systemd unit of ours needs: its check, its restart, what it tells
//! keys       key files are read, checked and wiped; the keys in force
//! logging    the log, which nobody waits for
//! process    the process: background, pid file, user, signals, standard streams
//! config     words of the command line become values that cannot be wrong
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
mod unit;

pub use program::main;
