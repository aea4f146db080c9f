//! What is wrong with a command line, or with the environment behind it.

use thiserror::Error;

use crate::report::{Report, exit};

use super::unknown_variable::UnknownVariable;
use super::value::ValueError;

/// What is wrong with a command line, or with the environment behind it. An option
/// is named as the operator gave it: `-s`, `--source` or `SPIPED_SOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConfigError {
    /// Neither -e nor -d.
    #[error("neither -e nor -d is given")]
    NoRole,
    /// Two options that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Conflict(String, String),
    /// `--handover` without `-F`.
    #[error("--handover is given without -F: a process in the background hands nothing over")]
    HandoverInBackground,
    /// `--refuses-plaintext` without `-k`.
    #[error(
        "--refuses-plaintext is given without -k: only the key proves that a receiver is there"
    )]
    PlaintextWithoutKey,
    /// `-f`.
    #[error("-f is refused: every handshake has forward secrecy, there is no faster one without")]
    Fast,
    /// A variable that no option has.
    #[error("{0}")]
    Unknown(UnknownVariable),
    /// An option without which nothing can be done is not there.
    #[error("{0} is not given")]
    Missing(String),
    /// The same, of `spiped check`.
    #[error("{0} is not given")]
    MissingInCheck(String),
    /// A value that an option does not take.
    #[error("{by}: {error}")]
    Value {
        /// The option, or the variable.
        by: String,
        /// What is wrong with the value.
        error: ValueError,
    },
}

impl Report for ConfigError {
    fn hint(&self) -> &str {
        match self {
            Self::NoRole => "-e on the side of the clients, -d on the side of the server",
            Self::Missing(option) => missing_hint(option),
            Self::MissingInCheck(option) => match option.as_str() {
                "-t" => "-t ADDRESS names a receiver; --all checks all pipes of this host",
                "-k" => "-k FILE: the key that the receiver has",
                _ => missing_hint(option),
            },
            Self::HandoverInBackground => "add -F",
            Self::PlaintextWithoutKey => {
                "-k FILE is the key: a proxy may close on one client, and serve the next one in plaintext"
            }
            Self::Fast => "leave it out; a connection costs one round trip and 0.2 ms of CPU",
            Self::Value { error, .. } => error.hint(),
            Self::Unknown(unknown) => unknown.hint(),
            Self::Conflict(one, other) => conflict_hint([one, other]),
        }
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

/// The hint where two options exclude each other: many are for one end only.
fn conflict_hint(both: [&str; 2]) -> &'static str {
    let has = |role: [&str; 3]| both.iter().any(|option| role.contains(option));
    let sender = has(["-e", "--encrypt", "SPIPED_ENCRYPT"]);
    let receiver = has(["-d", "--decrypt", "SPIPED_DECRYPT"]);
    match (sender, receiver) {
        (true, false) => "the other one is for a receiver (-d)",
        (false, true) => "the other one is for a sender (-e)",
        _ => "'--help' lists the options",
    }
}

/// The hint where an option, or its value, is missing.
pub(super) fn missing_hint(option: &str) -> &'static str {
    match option {
        "-k" => {
            "make a key with 'spiped keygen PATH' and copy it to the other end; an empty SPIPED_KEY gives none"
        }
        "-s" => {
            "-s ADDRESS says where to listen, or SPIPED_SOURCE, which gives none if it is empty"
        }
        "-t" => {
            "-t ADDRESS says where to connect to, or SPIPED_TARGET, which gives none if it is empty"
        }
        _ => "'--help' lists the options",
    }
}
