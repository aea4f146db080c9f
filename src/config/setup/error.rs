//! What is wrong with the words of `spiped setup`.

use std::path::PathBuf;

use thiserror::Error;

use crate::report::{Report, exit};

use super::GAP;
use crate::config::{Address, AddressError};

/// What is wrong with a command line of `spiped setup`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetupConfigError {
    /// Not a name.
    #[error("'{0}' is no name for a pipe")]
    Name(String),
    /// Not an address.
    #[error("{option}: {error}")]
    Address {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        error: AddressError,
    },
    /// A port that the other side could not know.
    #[error("{0}: port 0 is no port to be found at")]
    NoPort(&'static str),
    /// What the first host of a pair prints for the second to fill in.
    #[error("{option}: {GAP} stands for an address that has to be put in its place")]
    Gap {
        /// The option.
        option: &'static str,
    },
    /// It would send to itself for ever.
    #[error("{option}: {target} leads back to {source_option}, which this end listens on")]
    Loop {
        /// Where it sends to.
        option: &'static str,
        /// What it says.
        target: Address,
        /// Where it listens.
        source_option: &'static str,
    },
    /// A path that would have to be quoted in the files.
    #[error("{option}: the path '{path}' has other characters than letters, digits and /._@:,+=~-")]
    Path {
        /// The option.
        option: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// Whoever reaches that address reaches the server.
    #[error("{option}: plaintext at {address} could be read and sent by other hosts")]
    Exposed {
        /// The option.
        option: &'static str,
        /// What it says.
        address: Address,
    },
    /// systemd resolves no names.
    #[error("{option}: with --socket '{address}' must be an IP address, systemd resolves no names")]
    NameOfSocket {
        /// The option.
        option: &'static str,
        /// What it says.
        address: Address,
    },
    /// The service can write nowhere.
    #[error("{0}: the service cannot make a unix socket, systemd can")]
    UnixOfService(&'static str),
}

impl Report for SetupConfigError {
    fn hint(&self) -> &str {
        Self::hint(self)
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

impl SetupConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(name) if name.contains('\\') => {
                "write it as it is, such as a-b: what systemd-escape makes of it names no file"
            }
            Self::Name(_) => {
                "up to 64 letters, digits, - _ and . that begin with neither - nor ., such as redis"
            }
            Self::Address { error, .. } => error.hint(),
            Self::Gap { .. } => {
                "it is where this host's own programs are to reach the other server, such as 127.0.0.1:8000"
            }
            Self::Loop { .. } => "a receiver's target is the server, a sender's is the receiver",
            Self::NoPort(_) => "name a port from 1 to 65535",
            Self::Path { .. } => "write /run/name.socket",
            Self::Exposed { .. } => {
                "use 127.0.0.1, [::1], localhost or a unix socket; --expose-plaintext allows it"
            }
            Self::NameOfSocket { .. } => "write [1.2.3.4]:port or [::1]:port",
            Self::UnixOfService(_) => "add --socket",
        }
    }
}
