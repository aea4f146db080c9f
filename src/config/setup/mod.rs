//! The words of `spiped setup` become a [`Setup`] that cannot be wrong.

mod args;
mod error;
mod name;

use std::path::{Path, PathBuf};

pub use args::{EndArgs, HowArgs, SetupCommand};
pub use error::SetupConfigError;
pub use name::Name;

use super::{Address, Role};

/// Stands, in what is printed for the other host, for an address that only its
/// operator can know.
pub const GAP: &str = "LOCAL";

/// What `spiped setup` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Make a pipe's ends.
    Make(Setup),
    /// Take them away again.
    Remove(Removal),
}

/// What is to be removed from this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// A pipe's name, or a pair's.
    pub name: Name,
    /// What becomes of a pair of that name.
    pub pair: Pair,
    /// What becomes of the keys.
    pub keys: Keys,
    /// For real, or to be read only.
    pub run: Run,
}

/// What becomes of a pair that has the name of what is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// It is what is removed, if there is no pipe of that name.
    Goes,
    /// `--alone`: it is not meant.
    Stays,
}

/// What becomes of the keys of what is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// They stay.
    Stay,
    /// `--keys`: they are removed.
    Go,
}

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

impl TryFrom<SetupCommand> for Task {
    type Error = SetupConfigError;

    fn try_from(command: SetupCommand) -> Result<Self, SetupConfigError> {
        let (name, how, ends) = match command {
            SetupCommand::Remove { name, keys, alone, dry_run } => {
                return Ok(Self::Remove(Removal {
                    name: name.parse()?,
                    pair: if alone { Pair::Stays } else { Pair::Goes },
                    keys: if keys { Keys::Go } else { Keys::Stay },
                    run: if dry_run { Run::Dry } else { Run::Real },
                }));
            }
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
        let setup = Setup {
            name: name.parse()?,
            ends,
            activation: if how.socket { Activation::Socket } else { Activation::Service },
            plaintext: if how.expose_plaintext { Plaintext::Anywhere } else { Plaintext::Here },
            run: if how.dry_run { Run::Dry } else { Run::Real },
        };
        setup.lead_nowhere_back()?;
        setup.keep_plaintext_here()?;
        setup.check_who_listens()?;
        Ok(Self::Make(setup))
    }
}

impl Setup {
    /// As the daemon would, which knows more addresses of this host.
    fn lead_nowhere_back(&self) -> Result<(), SetupConfigError> {
        let ends = match &self.ends {
            Ends::Receive { source, target } | Ends::Send { source, target, .. } => {
                vec![("--source", source, "--target", target)]
            }
            Ends::Pair { source, target, local, peer, .. } => {
                vec![("--source", source, "--target", target), ("--local", local, "--peer", peer)]
            }
        };
        match ends.into_iter().find(|(_, source, _, target)| leads_back(source, target)) {
            None => Ok(()),
            Some((source_option, _, option, target)) => {
                Err(SetupConfigError::Loop { option, target: target.clone(), source_option })
            }
        }
    }

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

/// Whether whoever listens at `source` is who is found at `target`.
fn leads_back(source: &Address, target: &Address) -> bool {
    match (source, target) {
        (Address::Inet(source), Address::Inet(target)) if source.ip().is_unspecified() => {
            let ip = target.ip().to_canonical();
            // Who listens on all of IPv6 does so on all of IPv4, too.
            let is_heard = source.is_ipv6() || ip.is_ipv4();
            source.port() == target.port() && ip.is_loopback() && is_heard
        }
        _ => source == target,
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
    if text == GAP {
        return Err(SetupConfigError::Gap { option });
    }
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
