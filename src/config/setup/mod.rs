//! The words of `spiped setup` become a [`Setup`] that cannot be wrong.

mod args;
mod name;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use args::{EndArgs, HowArgs, SetupCommand};
pub use name::Name;

use super::{Address, AddressError, Role};

/// What is to be set up on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The pipe's name, without `-in` and `-out`.
    pub name: Name,
    /// Its ends on this host.
    pub ends: Ends,
    /// Who holds the listening sockets.
    pub activation: Activation,
    /// How far plaintext may go.
    pub plaintext: Plaintext,
    /// For real, or to be read only.
    pub run: Run,
}

/// The ends of a pipe that are on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// A receiver, with a key of its own.
    Receive {
        /// Where encrypted connections come in.
        source: Address,
        /// The server.
        target: Address,
    },
    /// A sender.
    Send {
        /// Where clients connect to.
        source: Address,
        /// The receiver.
        target: Address,
        /// The receiver's key.
        key: PathBuf,
    },
    /// A receiver for the other host, and a sender to it.
    Pair {
        /// Where the other host's connections come in.
        source: Address,
        /// The server.
        target: Address,
        /// Where the programs of this host reach the other's server.
        local: Address,
        /// The other host's receiver.
        peer: Address,
        /// That receiver's key; none yet at the first of the runs.
        key: Option<PathBuf>,
    },
}

/// One unit's worth of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Receiver or sender; the one makes its key, the other is given it.
    pub role: Role,
    /// The name of its files.
    pub name: Name,
    /// Where it listens.
    pub source: Address,
    /// Where it connects to.
    pub target: Address,
}

/// Who holds the listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The service.
    Service,
    /// `--socket`: systemd, also while the service restarts.
    Socket,
}

/// How far plaintext may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// It stays on this host.
    Here,
    /// `--expose-plaintext`: wherever the addresses say.
    Anywhere,
}

/// For real, or to be read only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It is done.
    Real,
    /// `--dry-run`: it is printed.
    Dry,
}

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

impl Setup {
    /// The units' worth of it; without the sender of a pair whose key is not
    /// here yet.
    #[must_use]
    pub fn ends(&self) -> Vec<End> {
        let end = |role, name: Name, source: &Address, target: &Address| End {
            role,
            name,
            source: source.clone(),
            target: target.clone(),
        };
        match &self.ends {
            Ends::Receive { source, target } => {
                vec![end(Role::Decrypt, self.name.clone(), source, target)]
            }
            Ends::Send { source, target, .. } => {
                vec![end(Role::Encrypt, self.name.clone(), source, target)]
            }
            Ends::Pair { source, target, local, peer, key } => {
                let mut ends = vec![end(Role::Decrypt, self.name.half("in"), source, target)];
                if key.is_some() {
                    ends.push(end(Role::Encrypt, self.name.half("out"), local, peer));
                }
                ends
            }
        }
    }

    /// Where the sender's key comes from, if it comes.
    #[must_use]
    pub fn key(&self) -> Option<&Path> {
        match &self.ends {
            Ends::Receive { .. } => None,
            Ends::Send { key, .. } => Some(key),
            Ends::Pair { key, .. } => key.as_deref(),
        }
    }
}

impl TryFrom<SetupCommand> for Setup {
    type Error = SetupConfigError;

    fn try_from(command: SetupCommand) -> Result<Self, SetupConfigError> {
        let (name, how, ends) = match command {
            SetupCommand::Receive { end, how } => {
                let (source, target) = source_and_target(&end)?;
                (end.name, how, Ends::Receive { source, target })
            }
            SetupCommand::Send { end, key, how } => {
                let (source, target) = source_and_target(&end)?;
                (end.name, how, Ends::Send { source, target, key })
            }
            SetupCommand::Pair { end, local, peer, key, how } => {
                let (source, target) = source_and_target(&end)?;
                let (local, peer) = (address("--local", &local)?, address("--peer", &peer)?);
                (end.name, how, Ends::Pair { source, target, local, peer, key })
            }
        };
        let setup = Self {
            name: name.parse()?,
            ends,
            activation: if how.socket { Activation::Socket } else { Activation::Service },
            plaintext: if how.expose_plaintext { Plaintext::Anywhere } else { Plaintext::Here },
            run: if how.dry_run { Run::Dry } else { Run::Real },
        };
        setup.keep_plaintext_here()?;
        setup.check_who_listens()?;
        Ok(setup)
    }
}

impl Setup {
    /// Plaintext is what a sender listens for, and what a receiver sends.
    fn keep_plaintext_here(&self) -> Result<(), SetupConfigError> {
        let plaintext = match &self.ends {
            Ends::Receive { target, .. } => vec![("--target", target)],
            Ends::Send { source, .. } => vec![("--source", source)],
            Ends::Pair { target, local, .. } => vec![("--target", target), ("--local", local)],
        };
        match plaintext.into_iter().find(|(_, address)| !is_of_this_host(address)) {
            Some((option, address)) if self.plaintext == Plaintext::Here => {
                Err(SetupConfigError::Exposed { option, address: address.clone() })
            }
            _ => Ok(()),
        }
    }

    /// systemd knows no names, and the service's sandbox no unix sockets.
    fn check_who_listens(&self) -> Result<(), SetupConfigError> {
        let sources = match &self.ends {
            Ends::Receive { source, .. } | Ends::Send { source, .. } => vec![("--source", source)],
            Ends::Pair { source, local, .. } => vec![("--source", source), ("--local", local)],
        };
        for (option, address) in sources {
            match (address, self.activation) {
                (Address::Host(..), Activation::Socket) => {
                    let address = address.clone();
                    return Err(SetupConfigError::NameOfSocket { option, address });
                }
                (Address::Unix(_), Activation::Service) => {
                    return Err(SetupConfigError::UnixOfService(option));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_of_this_host(address: &Address) -> bool {
    match address {
        Address::Inet(address) => address.ip().to_canonical().is_loopback(),
        Address::Host(name, _) => name.eq_ignore_ascii_case("localhost"),
        Address::Unix(_) => true,
    }
}

fn source_and_target(args: &EndArgs) -> Result<(Address, Address), SetupConfigError> {
    Ok((address("--source", &args.source)?, address("--target", &args.target)?))
}

/// An address that others can find, and that needs no quotes in any file.
fn address(option: &'static str, text: &str) -> Result<Address, SetupConfigError> {
    let address: Address =
        text.parse().map_err(|error| SetupConfigError::Address { option, error })?;
    if address.port() == Some(0) {
        return Err(SetupConfigError::NoPort(option));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._@:,+=~-".contains(&byte);
    if let Address::Unix(path) = &address
        && !text.bytes().all(is_plain)
    {
        return Err(SetupConfigError::Path { option, path: path.clone() });
    }
    Ok(address)
}
