//! Sockets that listen already and are handed over at the start, by systemd
//! (`LISTEN_FDS`, `sd_listen_fds(3)`). They stay open there when this process
//! ends: whoever waits in their backlog then waits for the next one.
//!
//! Those of a socket unit are systemd's own. Those that a process of this unit has
//! left with systemd are ours, see [`super::fd_store`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};
use thiserror::Error;

use super::fd_store::{STORED, Stored};
use crate::config::Address;
use crate::daemon::net::peer::bound_name;
use crate::report::{Report, exit};

/// The sockets that this process was started with.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Those of a socket unit.
    activated: Vec<Socket>,
    /// Those that the process before has left.
    stored: Vec<Socket>,
}

/// Why inherited sockets are not served.
#[derive(Debug, Error)]
pub(crate) enum InheritedError {
    /// The environment and the open descriptors do not agree.
    #[error("the sockets of LISTEN_FDS cannot be had: {0}")]
    Take(io::Error),
    /// Anything else than what connections can be accepted on.
    #[error("the inherited descriptor {0} is not a TCP or unix socket that listens")]
    NotListening(RawFd),
    /// The option and the sockets say different things.
    #[error("the source is {given}, but the inherited socket listens on {inherited}")]
    Mismatch {
        /// What -s, or its variable, says.
        given: Address,
        /// Where the sockets listen.
        inherited: String,
    },
}

impl Report for InheritedError {
    fn hint(&self) -> &str {
        match self {
            Self::Take(_) => "LISTEN_FDS is to be set by systemd alone",
            Self::NotListening(_) => "in the .socket unit have ListenStream= only, and Accept=no",
            Self::Mismatch { .. } => {
                "leave -s out, or let it be the address that ListenStream= says"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

impl Inherited {
    /// Takes them, if there are any. To be called once, before anything else
    /// is opened, and before [`crate::process::background::detach`]: they are meant for
    /// this process id.
    ///
    /// # Errors
    /// When one of them is no listening stream socket.
    pub(crate) fn take() -> Result<Self, InheritedError> {
        let mut inherited = Self::default();
        for (number, name) in sd_notify::listen_fds_with_names().map_err(InheritedError::Take)? {
            let socket = adopt(number)?;
            let of_its_kind =
                if name == STORED { &mut inherited.stored } else { &mut inherited.activated };
            of_its_kind.push(socket);
        }
        Ok(inherited)
    }

    /// The sockets of a socket unit, where they listen on what `-s` says, and those
    /// that the process before has left. A name could be any address, so none is taken
    /// beside them.
    pub(crate) fn into_sockets(
        self,
        source: Option<&Address>,
    ) -> Result<(Vec<Socket>, Stored), InheritedError> {
        let Self { activated, stored } = self;
        let names: Vec<_> = activated.iter().map(name).collect();
        match source {
            Some(source) if !names.is_empty() && !names.contains(&source.to_string()) => {
                let inherited = names.join(", ");
                Err(InheritedError::Mismatch { given: source.clone(), inherited })
            }
            _ => Ok((activated, Stored(stored))),
        }
    }
}

fn adopt(number: RawFd) -> Result<Socket, InheritedError> {
    #[expect(unsafe_code, reason = "there is no safe way to adopt a descriptor")]
    // SAFETY: listen_fds has found it open and meant for this process, which
    // has just started and opened nothing of its own; it is adopted once.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(number) });
    let listens = || -> io::Result<bool> {
        let is_known = [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&socket.domain()?);
        Ok(is_known && socket.r#type()? == Type::STREAM && socket.is_listener()?)
    };
    if !listens().unwrap_or(false) {
        return Err(InheritedError::NotListening(number));
    }
    socket.set_nonblocking(true).map_err(InheritedError::Take)?;
    Ok(socket)
}

fn name(socket: &Socket) -> String {
    socket.local_addr().map_or_else(|error| error.to_string(), |address| bound_name(&address))
}
