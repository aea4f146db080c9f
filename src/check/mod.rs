//! `spiped check`: whether a pipe works, and whether plaintext gets nowhere.
//!
//! ```text
//! options ─▶ config::check ─┬▶ daemon::proof   connect, handshake, target ─┐
//!                           └▶ plaintext       what a port answers       ──┴▶ form ─▶ lines
//! ```
//!
//! Both halves return values, and print nothing. [`all`] uses them for each pipe of a host.

pub(crate) mod all;
pub(crate) mod form;
pub(crate) mod plaintext;

use thiserror::Error;

use self::plaintext::{Accepted, Refused, refuses};
use crate::config::{Address, CheckConfig, KeyName};
use crate::daemon::proof::{Fault, Proof, prove};
use crate::protocol::{KeyId, SharedKey};
use crate::report::Report;

/// What was found, where all is as it must be.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The address after `-t`.
    pub(crate) receiver: Address,
    pub(crate) pipe: Pipe,
    /// With `--refuses-plaintext`: the proof.
    pub(crate) plaintext: Option<Refused>,
}

/// A pipe that works.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) key: KeyName,
    pub(crate) key_id: KeyId,
    pub(crate) proof: Proof,
}

/// What is not as it must be.
#[derive(Debug, Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Pipe(#[from] Fault),
    #[error(transparent)]
    Plaintext(#[from] Accepted),
}

impl Report for CheckError {
    fn hint(&self) -> &str {
        match self {
            Self::Pipe(fault) => fault.hint(),
            Self::Plaintext(accepted) => accepted.hint(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Pipe(fault) => fault.exit_code(),
            Self::Plaintext(accepted) => accepted.exit_code(),
        }
    }
}

/// Checks the pipe, and then plaintext, if that is asked for. Without a receiver, plaintext
/// that is refused proves nothing: a proxy may close on one client, and serve another.
///
/// # Errors
/// The first that is not as it must be.
pub(crate) fn check(
    config: &CheckConfig,
    (name, key): (KeyName, SharedKey),
) -> Result<Checked, CheckError> {
    let pipe = Pipe { key: name, key_id: key.id(), proof: prove(&config.tunnel, &key)? };
    // Of the same address, if the name has several.
    let address = pipe.proof.address;
    let plaintext =
        config.refuses_plaintext.map(|protocol| refuses(&config.tunnel, address, protocol));
    let receiver = config.tunnel.target.clone();
    Ok(Checked { receiver, pipe, plaintext: plaintext.transpose()? })
}
