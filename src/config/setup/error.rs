//! What is wrong with the words of `spiped setup`.

use thiserror::Error;

use super::name::PipeName;
use crate::config::address::Address;
use crate::config::key_name::KeyName;
use crate::report::{Report, exit};

/// What is wrong with a command line of `spiped setup`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SetupConfigError {
    /// An end would connect to itself.
    #[error("{option}: {target} leads back to {source_option}, which this end listens on")]
    Loop {
        /// The option that says where it connects to.
        option: &'static str,
        /// The address given by that option.
        target: Address,
        /// The option that says where it listens.
        source_option: &'static str,
    },
    /// Other hosts could reach the plaintext.
    #[error("{option}: plaintext at {address} could be read and sent by other hosts")]
    Exposed {
        /// The option that names the address.
        option: &'static str,
        /// The address given by that option.
        address: Address,
    },
    /// A host name for a socket unit, which resolves no names.
    #[error("{option}: with --socket '{address}' must be an IP address, systemd resolves no names")]
    NameOfSocket {
        /// The option that names the address.
        option: &'static str,
        /// The address given by that option.
        address: Address,
    },
    /// The names of the two halves would be too long.
    #[error("NAME: '{0}' is too long for a pair, whose halves are {0}-in and {0}-out")]
    LongNameOfPair(PipeName),
    /// There is no room for `.new`, or it is there already.
    #[error("NAME: '{0}' is no name for a key that is to be rotated")]
    NoNameToRotate(KeyName),
    /// The name of a key's file, and not of the key.
    #[error("NAME: '{0}' is the name of a file, and no name for a key")]
    NameOfFile(KeyName),
    /// A rotation of which nobody knows on which host.
    #[error("--pipe or --key is missing")]
    NoSide,
    /// A unix socket for a service, which can make no file.
    #[error("{0}: the service cannot make a unix socket, systemd can")]
    UnixOfService(&'static str),
}

impl Report for SetupConfigError {
    fn hint(&self) -> &str {
        match self {
            Self::Loop { .. } => "a receiver's target is the server, a sender's is the receiver",
            Self::Exposed { .. } => {
                "use 127.0.0.1, [::1], localhost or a unix socket; --expose-plaintext allows it"
            }
            Self::NameOfSocket { .. } => "write [1.2.3.4]:port or [::1]:port",
            Self::LongNameOfPair(_) => "a pair's name has up to 60 characters",
            Self::NoNameToRotate(_) => {
                "it has up to 60 characters, and does not end in .new as a new key does"
            }
            Self::NameOfFile(_) => "a key is named after its file, without .key",
            Self::NoSide => "--pipe PIPE is for the server's side, --key FILE for the client's",
            Self::UnixOfService(_) => "add --socket",
        }
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}
