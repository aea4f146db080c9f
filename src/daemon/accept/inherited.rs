//! Listening sockets that systemd passes at the start (`LISTEN_FDS`,
//! `sd_listen_fds(3)`). systemd keeps them open when this process ends, so that clients
//! in their backlog wait for the next process.
//!
//! Sockets of a socket unit are systemd's own. Sockets that an earlier process of this
//! unit has left with systemd are described in [`super::fd_store`].

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};
use thiserror::Error;

use super::fd_store::{STORED, Stored};
use super::listener::Bound;
use crate::config::{Address, StatusConfig};
use crate::daemon::net::peer::bound_name;
use crate::report::{Report, exit};

/// The sockets that this process was started with.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Sockets of a socket unit.
    activated: Vec<Socket>,
    /// Sockets that the previous process has left with systemd.
    stored: Vec<Socket>,
    /// Sockets of a socket unit for the status over HTTP.
    status: Vec<Socket>,
}

/// The name of the sockets for the status over HTTP (`FileDescriptorName=`).
const STATUS: &str = "status";

/// Why inherited sockets are not served.
#[derive(Debug, Error)]
pub(crate) enum InheritedError {
    /// The environment and the open descriptors do not agree.
    #[error("cannot take the sockets of LISTEN_FDS: {0}")]
    Take(io::Error),
    /// Connections cannot be accepted on the descriptor.
    #[error("the inherited descriptor {0} is not a listening TCP or unix socket")]
    NotListening(RawFd),
    /// The option and the sockets say different things.
    #[error("the source is {given}, but the inherited socket listens on {inherited}")]
    Mismatch { given: Address, inherited: String },
    /// As [`Self::Mismatch`], for the status.
    #[error("--status is {given}, but the inherited socket listens on {inherited}")]
    StatusMismatch { given: Address, inherited: String },
    /// The socket for the status is not for this host alone.
    #[error("other hosts could read the status at the inherited socket {0}")]
    Exposed(String),
}

impl Report for InheritedError {
    fn hint(&self) -> &str {
        match self {
            Self::Take(_) => "only systemd should set LISTEN_FDS",
            Self::NotListening(_) => "use only ListenStream= and Accept=no in the .socket unit",
            Self::Mismatch { .. } => "leave -s out, or give the address of ListenStream=",
            Self::StatusMismatch { .. } => {
                "leave --status out, or give the address of ListenStream="
            }
            Self::Exposed(_) => "use 127.0.0.1, [::1] or a unix socket; --expose-status allows it",
        }
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

impl Inherited {
    /// Takes the inherited sockets, if there are any. To be called once, before anything
    /// else is opened, and before [`crate::process::background::detach`]: the sockets are
    /// meant for this process id.
    ///
    /// # Errors
    /// When an inherited descriptor is not a listening stream socket.
    pub(crate) fn take() -> Result<Self, InheritedError> {
        let mut inherited = Self::default();
        for (number, name) in sd_notify::listen_fds_with_names().map_err(InheritedError::Take)? {
            let socket = adopt(number)?;
            let of_its_kind = match &*name {
                STORED => &mut inherited.stored,
                STATUS => &mut inherited.status,
                _ => &mut inherited.activated,
            };
            of_its_kind.push(socket);
        }
        Ok(inherited)
    }

    /// The numbers of their descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.activated
            .iter()
            .chain(&self.stored)
            .chain(&self.status)
            .map(AsRawFd::as_raw_fd)
            .collect()
    }

    /// The sockets for the status, if they fit the options.
    pub(crate) fn take_status(
        &mut self,
        config: &StatusConfig,
    ) -> Result<Vec<Bound>, InheritedError> {
        let names: Vec<_> = self.status.iter().map(name).collect();
        if let Some(given) = &config.at
            && !names.is_empty()
            && !names.contains(&given.to_string())
        {
            let inherited = names.join(", ");
            return Err(InheritedError::StatusMismatch { given: given.clone(), inherited });
        }
        let is_exposed = |socket: &Socket| {
            let at = socket.local_addr().ok().and_then(|at| at.as_socket());
            at.is_some_and(|at| !config.may_listen_on(at))
        };
        if let Some(exposed) = self.status.iter().find(|socket| is_exposed(socket)) {
            return Err(InheritedError::Exposed(name(exposed)));
        }
        Ok(self.status.drain(..).map(Bound::inherited).collect())
    }

    /// The sockets of a socket unit, if one of them listens on the address after `-s`, and
    /// the stored sockets. A name after `-s` is refused beside a socket unit: it could be
    /// any address.
    pub(crate) fn into_sockets(
        self,
        source: Option<&Address>,
    ) -> Result<(Vec<Socket>, Stored), InheritedError> {
        let Self { activated, stored, status: _ } = self;
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
    // SAFETY: listen_fds has found the descriptor open and meant for this process, which
    // has just started and opened nothing of its own; the descriptor is adopted once.
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
