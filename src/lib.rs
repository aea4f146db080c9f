//! `spiped`: an encrypted, authenticated pipe between two sockets.
//!
//! ```text
//!             sender (-e)                                receiver (-d)
//! client ──▶ source   target ══ handshake, records ══▶ source   target ──▶ server
//!   plaintext                        encrypted                     plaintext
//! ```
//!
//! The files stand in the order the data travels:
//!
//! 1. [`config`]: words of the command line become values that cannot be wrong.
//! 2. [`key_file`]: the key both ends share is read, checked and wiped.
//! 3. [`daemon`]: listener → connection → handshake → relay → close. The only
//!    folder that knows sockets and time.
//! 4. [`protocol`]: the handshake and the records. Bytes in, bytes out; knows
//!    no socket, clock or file, and is handed its randomness.
//!
//! [`rekey`] hands a running daemon another key; [`memory`] is where keys are kept.
//!
//! [`keeper`] and [`handover`] have a unit restart beside its open connections.
//!
//! [`setup`] has systemd run an end, with one command; the pipe knows nothing of it.
//!
//! [`unit_check`] is what a unit of it begins with.
//!
//! [`error`] is what the operator reads when the program cannot start,
//! [`logging`] what it says afterwards; [`background`], [`privileges`] and
//! [`signals`] are the process as a daemon of the old kind; [`stdio`] is what it
//! was handed, [`terminal`] where a key is pasted.

#[cfg(not(any(feature = "aws-lc", feature = "rust-crypto")))]
compile_error!(
    "nothing to seal records with: build with --features aws-lc, the default, or rust-crypto"
);

pub mod background;

pub mod config;
pub mod daemon;
pub mod error;
pub mod handover;
pub mod keeper;
pub mod key_file;
pub mod logging;
pub mod memory;
pub mod new_file;
pub mod privileges;
pub mod protocol;
pub mod rekey;
pub mod setup;
pub mod signals;
pub mod stdio;
pub mod terminal;
pub mod unit_check;
