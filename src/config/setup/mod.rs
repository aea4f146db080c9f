//! The words of `spiped setup` become a [`Setup`] that cannot be wrong.

mod address;
mod args;
mod error;
mod keys;
mod name;
mod run;

use std::path::{Path, PathBuf};

pub(crate) use address::GAP;
pub(crate) use args::{EndArgs, SetupCommand};
pub(crate) use error::SetupConfigError;
pub(crate) use keys::{KeyNames, KeyTask, KeyWork, OldConnections};
pub(crate) use name::PipeName;
pub(crate) use run::Run;

use crate::config::address::Address;
use crate::config::role::Role;

/// What `spiped setup` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Make the ends of a pipe.
    Make(Setup),
    /// Add, change or remove a key of a pipe.
    Keys(KeyTask),
    /// Take the ends of a pipe away again.
    Remove(Removal),
}

/// What is to be removed from this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// The name of a pipe or of a pair.
    pub(crate) name: PipeName,
    /// Whether a pair of that name is removed.
    pub(crate) pair: Pair,
    /// Whether the keys are removed.
    pub(crate) keys: Keys,
    /// Whether anything is done.
    pub(crate) run: Run,
}

/// Whether a pair is removed that has the name to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// The pair is removed, if there is no pipe of that name.
    Goes,
    /// `--alone`: the pair stays.
    Stays,
}

/// Whether the keys of a pipe are removed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// The keys stay.
    Stay,
    /// `--keys`: the keys are removed.
    Go,
}

/// What is to be set up on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The pipe's name, without `-in` and `-out`.
    pub(crate) name: PipeName,
    /// The pipe's ends on this host.
    pub(crate) ends: Ends,
    /// Who holds the listening sockets.
    pub(crate) activation: Activation,
    /// How far plaintext may go.
    pub(crate) plaintext: Plaintext,
    /// Whether anything is done.
    pub(crate) run: Run,
}

/// The ends of a pipe that are on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
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
        /// The key of that receiver; the first run has none yet.
        key: Option<PathBuf>,
    },
}

/// An end of a pipe, which one unit runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Receiver or sender: a receiver makes its key, a sender is given one.
    pub(crate) role: Role,
    /// The name that its files have.
    pub(crate) name: PipeName,
    /// Where the end listens.
    pub(crate) source: Address,
    /// Where the end connects to.
    pub(crate) target: Address,
}

/// Who holds the listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// The service holds them.
    Service,
    /// `--socket`: systemd holds them, also while the service restarts.
    Socket,
}

/// How far plaintext may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// Plaintext stays on this host.
    Here,
    /// `--expose-plaintext`: plaintext goes wherever the addresses say.
    Anywhere,
}

impl Setup {
    /// The ends that are set up: all but the sender of a pair whose key is not here
    /// yet.
    #[must_use]
    pub(crate) fn ends(&self) -> Vec<End> {
        let end = |role, name: PipeName, source: &Address, target: &Address| End {
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

    /// Where the sender's key comes from, if there is a sender.
    #[must_use]
    pub(crate) fn key(&self) -> Option<&Path> {
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
                    name,
                    pair: if alone { Pair::Stays } else { Pair::Goes },
                    keys: if keys { Keys::Go } else { Keys::Stay },
                    run: dry_run.into(),
                }));
            }
            SetupCommand::Client(args) => return KeyTask::add(args).map(Self::Keys),
            SetupCommand::Revoke(args) => return Ok(Self::Keys(KeyTask::revoke(args))),
            SetupCommand::Rotate(args) => return KeyTask::rotate(args).map(Self::Keys),
            SetupCommand::Receive { end, how } => {
                let EndArgs { name, source, target } = end;
                (name, how, Ends::Receive { source, target })
            }
            SetupCommand::Send { end, key, how } => {
                let EndArgs { name, source, target } = end;
                (name, how, Ends::Send { source, target, key })
            }
            SetupCommand::Pair { end, local, peer, key, how } => {
                let EndArgs { name, source, target } = end;
                if !name.can_be_of_a_pair() {
                    return Err(SetupConfigError::LongNameOfPair(name));
                }
                (name, how, Ends::Pair { source, target, local, peer, key })
            }
        };
        let setup = Setup {
            name,
            ends,
            activation: if how.socket { Activation::Socket } else { Activation::Service },
            plaintext: if how.expose_plaintext { Plaintext::Anywhere } else { Plaintext::Here },
            run: how.dry_run.into(),
        };
        setup.lead_nowhere_back()?;
        setup.keep_plaintext_here()?;
        setup.check_who_listens()?;
        Ok(Self::Make(setup))
    }
}

impl Setup {
    /// Refuses an end that would connect to itself. The daemon, which knows all
    /// addresses of this host, refuses more.
    fn lead_nowhere_back(&self) -> Result<(), SetupConfigError> {
        let ends = match &self.ends {
            Ends::Receive { source, target } | Ends::Send { source, target, .. } => {
                vec![("--source", source, "--target", target)]
            }
            Ends::Pair { source, target, local, peer, .. } => {
                vec![("--source", source, "--target", target), ("--local", local, "--peer", peer)]
            }
        };
        match ends.into_iter().find(|(_, source, _, target)| target.leads_back_to(source)) {
            None => Ok(()),
            Some((source_option, _, option, target)) => {
                Err(SetupConfigError::Loop { option, target: target.clone(), source_option })
            }
        }
    }

    /// Refuses plaintext beyond this host: where a sender listens, and where a
    /// receiver sends.
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

    /// Refuses a source that cannot be listened on: systemd resolves no names, and
    /// the service's sandbox lets it make no unix socket.
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
