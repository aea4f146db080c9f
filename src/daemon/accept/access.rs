//! Access: which users of this host may use a sender. A client is looked at once, before
//! it costs anything; whoever cannot be told is refused.

use std::io;

use socket2::Socket;
use thiserror::Error;

use super::listener::Listener;
use crate::daemon::connection::not_allowed::NotAllowed;
use crate::daemon::net::peer::Peer;
use crate::daemon::net::sock_diag::SockDiag;
use crate::daemon::net::unix_client::{UnixClient, supplementary_groups};
use crate::process::access::AllowedClients;
use crate::report::{Report, exit};

/// Who may use the sender; without anything in it, everybody.
pub(crate) struct Access(Option<Restricted>);

struct Restricted {
    allowed: AllowedClients,
    /// For TCP. A sandbox may forbid it where only unix sockets listen.
    sock_diag: io::Result<SockDiag>,
}

/// A listening socket on which clients cannot be told apart.
#[derive(Debug, Error)]
pub(crate) enum ListenerError {
    #[error("other hosts can connect to {0}, whose users are not known here")]
    OtherHosts(String),
    #[error("the groups of clients of {0} are not known")]
    Groups(String),
    #[error("cannot find out which users connect to {name}: {error}")]
    Unseen { name: String, error: io::Error },
}

impl Report for ListenerError {
    fn hint(&self) -> &str {
        match self {
            Self::OtherHosts(_) => {
                "with --allow-uid and --allow-gid, listen on 127.0.0.1, [::1] or a unix socket"
            }
            Self::Groups(_) => "use --allow-uid, or listen on a unix socket: TCP tells only users",
            Self::Unseen { .. } => {
                "a unit needs RestrictAddressFamilies=AF_NETLINK, see WHO MAY USE THE SENDER in man spiped.conf"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::OtherHosts(_) | Self::Groups(_) => exit::USAGE,
            Self::Unseen { .. } => exit::NO_PERMISSION,
        }
    }
}

impl Access {
    /// `None`: everybody may use the sender.
    pub(crate) fn of(allowed: Option<AllowedClients>) -> Self {
        Self(allowed.map(|allowed| Restricted { allowed, sock_diag: SockDiag::open() }))
    }

    /// Refuses a listening socket whose clients could not be told apart.
    pub(super) fn can_tell_clients_of(&self, listener: &Listener) -> Result<(), ListenerError> {
        let (Some(Restricted { allowed, sock_diag }), Some(at)) = (&self.0, listener.inet()) else {
            return Ok(());
        };
        let name = listener.name();
        if listener.is_reachable_by_others() {
            return Err(ListenerError::OtherHosts(name));
        }
        if !allowed.gids.is_empty() {
            return Err(ListenerError::Groups(name));
        }
        let proved = match sock_diag {
            Ok(sock_diag) => sock_diag.prove(listener.socket(), at),
            Err(error) => Err(copy(error)),
        };
        proved.map_err(|error| ListenerError::Unseen { name, error })
    }

    /// Refuses a client that may not use the sender.
    pub(super) fn check(&self, accepted: &Socket, peer: &Peer) -> Result<(), NotAllowed> {
        match &self.0 {
            None => Ok(()),
            Some(restricted) => restricted.check(accepted, peer),
        }
    }
}

impl Restricted {
    fn check(&self, accepted: &Socket, peer: &Peer) -> Result<(), NotAllowed> {
        let (uid, pid) = match *peer {
            Peer::Inet(from) => {
                let sock_diag = self.sock_diag.as_ref().map_err(copy);
                let uid = sock_diag.and_then(|diag| diag.user_of_client(accepted, from));
                (uid.map_err(NotAllowed::Unknown)?, None)
            }
            Peer::Unix => {
                let client = UnixClient::of(accepted).map_err(NotAllowed::Unknown)?;
                if self.allows_group(client.gid, accepted)? {
                    return Ok(());
                }
                (client.uid, client.pid)
            }
        };
        if self.allowed.uids.contains(&uid) { Ok(()) } else { Err(NotAllowed::User { uid, pid }) }
    }

    fn allows_group(&self, gid: u32, accepted: &Socket) -> Result<bool, NotAllowed> {
        let gids = &self.allowed.gids;
        if gids.is_empty() {
            return Ok(false);
        }
        let more = supplementary_groups(accepted).map_err(NotAllowed::Unknown)?;
        Ok(gids.contains(&gid) || more.iter().any(|gid| gids.contains(gid)))
    }
}

/// The same error of the system once more.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
