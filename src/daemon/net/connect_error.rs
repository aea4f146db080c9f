//! Why a connection to the target was not made.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::libc::{EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, ECONNREFUSED, ECONNRESET, ENOENT, EPERM};
use thiserror::Error;

use super::{NO_ROOM, is_shortage};
use crate::protocol::AbortReason;

/// Why a connection to the target was not made.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the name {0} does not resolve: {1}")]
    Unresolved(String, String),
    #[error("target refused the connection")]
    Refused,
    #[error("target accepted the connection and reset it")]
    Reset,
    #[error("target did not answer in {0:?}")]
    TimedOut(Duration),
    #[error("target cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the address after -b, {0}, cannot be used: {1}")]
    Bind(IpAddr, io::Error),
    #[error("the system has no room for a connection to the target: {0}")]
    NoRoom(io::Error),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(ECONNREFUSED) => Self::Refused,
            Some(ECONNRESET) => Self::Reset,
            _ if is_shortage(&error) => Self::NoRoom(error),
            _ => Self::Unreachable(error),
        }
    }
}

impl ConnectError {
    /// What may help the operator.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Unresolved(..) => "check the name after -t and the resolver",
            Self::Refused => "is the server running, and does it listen on the address after -t?",
            Self::Reset => {
                "what listens at -t has dropped the connection: has it a limit of clients, or an access list?"
            }
            Self::Bind(..) => {
                "-b must be an address of this host, IPv4 or IPv6 as the target's is; leave out its port, which only one connection can have"
            }
            Self::TimedOut(_) => {
                "is that host up, and the address after -t right? otherwise a firewall may drop packets"
            }
            Self::Unreachable(error) => unreachable_hint(error),
            Self::NoRoom(_) => NO_ROOM,
        }
    }

    /// The reason that an ABORT tells the sender, where this end is the receiver.
    pub(crate) const fn abort_reason(&self) -> AbortReason {
        match self {
            Self::Refused => AbortReason::TargetRefused,
            Self::TimedOut(_) => AbortReason::TargetTimedOut,
            Self::Reset => AbortReason::LocalPeerReset,
            Self::Unresolved(..) | Self::Unreachable(_) | Self::Bind(..) | Self::NoRoom(_) => {
                AbortReason::TargetUnreachable
            }
        }
    }
}

fn unreachable_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(EADDRNOTAVAIL) => {
            "no local port is free (net.ipv4.ip_local_port_range; an address after -b has ports of its own), or IPv6 is off here"
        }
        Some(EAFNOSUPPORT) => {
            "this kernel, or the unit's sandbox, has no IPv6: name an IPv4 address after -t"
        }
        Some(ENOENT) => "nothing is at the path after -t: is what should listen there running?",
        Some(EACCES | EPERM) => {
            "this user is not allowed to: check the mode of the socket after -t, and this host's firewall"
        }
        _ => "check the address after -t, the route and the firewall",
    }
}
