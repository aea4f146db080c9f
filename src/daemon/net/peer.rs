//! Addresses of sockets, as the log shows them.

use std::fmt;
use std::net::SocketAddr;

use socket2::SockAddr;

use crate::config::Address;
use crate::protocol::Client;

/// The address that an accepted connection comes from.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Inet(SocketAddr),
    Unix,
}

impl Peer {
    /// The peer at an address that accept(2) has returned.
    pub(crate) fn of(address: &SockAddr) -> Self {
        address.as_socket().map_or(Self::Unix, Self::Inet)
    }

    /// The peer as a receiver is told of it.
    pub(crate) const fn as_client(&self) -> Client {
        match self {
            Self::Inet(address) => Client::Ip(*address),
            Self::Unix => Client::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix-socket"),
        }
    }
}

/// A bound address in the form of the log and of `-s`; `@name` is an abstract unix socket.
pub(crate) fn bound_name(address: &SockAddr) -> String {
    if let Some(inet) = address.as_socket() {
        return Address::Inet(inet).to_string();
    }
    if let Some(path) = address.as_pathname() {
        return path.display().to_string();
    }
    let name = address.as_abstract_namespace().unwrap_or_default();
    format!("@{}", String::from_utf8_lossy(name))
}
