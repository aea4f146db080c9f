//! Words become values that cannot be wrong: raw [`Args`], checked [`Config`].

mod address;
mod args;
mod limits;
mod role;

use std::path::PathBuf;

use thiserror::Error;

pub use address::{Address, AddressError};
pub use args::{Args, Command};
pub use limits::{CipherChoice, LimitError, MaxConnections, Threads, Timeout, parse_padding};
pub use role::Role;

use crate::protocol::Padding;

/// All that one end of a pipe needs to know, but the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sender or receiver.
    pub role: Role,
    /// Where to listen.
    pub source: Address,
    /// Where to connect to.
    pub target: Address,
    /// The key file; `-` is standard input.
    pub key: PathBuf,
    /// How many connections there may be at once.
    pub connections: MaxConnections,
    /// How long a handshake, and how long a connect, may take.
    pub timeout: Timeout,
    /// The suite to use, or the only one to accept.
    pub cipher: CipherChoice,
    /// To what multiple of bytes records are padded, if at all.
    pub padding: Option<Padding>,
    /// How many one-thread runtimes share the connections.
    pub threads: Threads,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Neither -e nor -d.
    #[error("neither -e nor -d is given")]
    NoRole,
    /// An option without which nothing can be done is not there.
    #[error("{0} is not given")]
    Missing(&'static str),
    /// An option's value is no address.
    #[error("{option}: {error}")]
    Address {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        error: AddressError,
    },
    /// An option's value is out of bounds.
    #[error("{option}: {error}")]
    Limit {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        error: LimitError,
    },
    /// Port 0 as a target.
    #[error("-t: port 0 cannot be connected to")]
    TargetPort,
}

impl ConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoRole => "-e on the side of the clients, -d on the side of the server",
            Self::Missing("-k") => {
                "make a key with 'spiped keygen PATH' and copy it to the other end"
            }
            Self::Address { error, .. } => error.hint(),
            Self::TargetPort => "name the port the server listens on",
            Self::Missing(_) | Self::Limit { .. } => "'spiped --help' lists the options",
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let role = match (args.encrypt, args.decrypt) {
            (true, _) => Role::Encrypt,
            (_, true) => Role::Decrypt,
            (false, false) => return Err(ConfigError::NoRole),
        };
        let target = address("-t", args.target)?;
        if matches!(&target, Address::Inet(at) if at.port() == 0)
            || matches!(&target, Address::Host(_, 0))
        {
            return Err(ConfigError::TargetPort);
        }
        Ok(Self {
            role,
            source: address("-s", args.source)?,
            target,
            key: args.key.ok_or(ConfigError::Missing("-k"))?,
            connections: limit("-n", args.connections, str::parse)?.unwrap_or_default(),
            timeout: limit("-o", args.timeout, str::parse)?.unwrap_or_default(),
            cipher: limit("--cipher", args.cipher, str::parse)?.unwrap_or_default(),
            padding: limit("--pad", args.pad, parse_padding)?,
            threads: limit("--threads", args.threads, str::parse)?.unwrap_or_default(),
        })
    }
}

fn address(option: &'static str, text: Option<String>) -> Result<Address, ConfigError> {
    text.ok_or(ConfigError::Missing(option))?
        .parse()
        .map_err(|error| ConfigError::Address { option, error })
}

fn limit<T>(
    option: &'static str,
    text: Option<String>,
    parse: impl Fn(&str) -> Result<T, LimitError>,
) -> Result<Option<T>, ConfigError> {
    text.map(|text| parse(&text).map_err(|error| ConfigError::Limit { option, error })).transpose()
}
