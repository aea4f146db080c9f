//! Loops: connections of this process to itself. With a target that leads back to the
//! source, a single client would cause connections until the limit is reached.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::process;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::stat;
use socket2::{SockAddr, Socket};

use super::peer::Peer;
use crate::config::Address;

/// The hint of a loop.
pub(crate) const LOOP: &str = "-t must name the other end or the server, not what -s listens on";

/// The connections of this process to addresses of this host, and whether this process
/// has accepted them.
static OUTGOING: Mutex<BTreeMap<NonZeroU64, bool>> = Mutex::new(BTreeMap::new());
/// Hashes a connection's endpoints into a number, which is smaller.
static NUMBERS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Both endpoints of a TCP connection; IPv4 addresses are never in their IPv6 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoints {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

/// Guard: a connection counts as one of this process until dropped.
pub(crate) struct Outgoing(NonZeroU64);

impl Endpoints {
    /// The endpoints of a socket that connects to `address`; a unix socket has none.
    pub(crate) fn of(socket: &Socket, address: &SockAddr) -> io::Result<Option<Self>> {
        let Some(to) = address.as_socket() else { return Ok(None) };
        let from = socket.local_addr()?.as_socket();
        Ok(from.map(|from| Self::new(from, to)))
    }

    fn new(from: SocketAddr, to: SocketAddr) -> Self {
        let from = (from.ip().to_canonical(), from.port());
        let ip = to.ip().to_canonical();
        // Linux takes an unspecified address for the address that it connects from.
        let ip = if ip.is_unspecified() { from.0 } else { ip };
        Self { from, to: (ip, to.port()) }
    }

    /// Whether the connection goes from a socket to itself.
    pub(crate) fn are_equal(self) -> bool {
        self.from == self.to
    }

    fn are_on_this_host(self) -> bool {
        self.to.0.is_loopback() || self.to.0 == self.from.0
    }

    fn number(self) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(NUMBERS.hash_one(self))
    }
}

impl Outgoing {
    /// Notes a connection, if its target is on this host.
    pub(crate) fn note(ends: Endpoints) -> Option<Self> {
        ends.are_on_this_host().then(|| {
            let number = ends.number();
            outgoing().insert(number, false);
            Self(number)
        })
    }

    /// Whether this process has accepted the connection.
    pub(crate) fn has_come_back(&self) -> bool {
        outgoing().get(&self.0).copied().unwrap_or_default()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        outgoing().remove(&self.0);
    }
}

fn outgoing() -> MutexGuard<'static, BTreeMap<NonZeroU64, bool>> {
    OUTGOING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process has made the connection that it accepted. Notes that it came back.
pub(crate) fn is_own(accepted: &Socket, peer: &Peer) -> io::Result<bool> {
    match *peer {
        Peer::Inet(from) => {
            let to = accepted.local_addr()?.as_socket();
            let Some(to) = to else { return Ok(false) };
            let mut outgoing = outgoing();
            let own = outgoing.get_mut(&Endpoints::new(from, to).number());
            Ok(own.map(|has_come_back| *has_come_back = true).is_some())
        }
        Peer::Unix => peer_is_this_process(accepted),
    }
}

/// Whether the peer of a unix socket is this process.
pub(crate) fn peer_is_this_process(socket: &Socket) -> io::Result<bool> {
    let pid = getsockopt(socket, PeerCredentials)?.pid();
    Ok(u32::try_from(pid) == Ok(process::id()))
}

/// Whether a connection to `target` would be accepted by a socket that listens at
/// `source`, as far as that can be seen without resolving a name.
pub(crate) fn leads_back(target: &Address, listening: &Socket, source: &SockAddr) -> bool {
    match target {
        Address::Inet(target) => source
            .as_socket()
            .filter(|source| source.port() == target.port())
            .is_some_and(|source| {
                let is_only_v6 = || listening.only_v6().unwrap_or(true);
                listens_on(source.ip(), target.ip(), is_only_v6)
            }),
        Address::Unix(path) => source.as_pathname().is_some_and(|source| {
            let identity = |path| stat(path).map(|file| (file.st_dev, file.st_ino));
            path.as_path() == source || identity(source).is_ok_and(|it| identity(path) == Ok(it))
        }),
        Address::Host(..) => false,
    }
}

/// As [`leads_back`], of a socket that is not there yet.
pub(crate) fn would_lead_back(target: SocketAddr, source: SocketAddr) -> bool {
    source.port() == target.port() && listens_on(source.ip(), target.ip(), || false)
}

fn listens_on(source: IpAddr, target: IpAddr, is_only_v6: impl FnOnce() -> bool) -> bool {
    let (source, target) = (source.to_canonical(), target.to_canonical());
    // A connect to the unspecified address goes to loopback.
    let target = match target {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => target,
    };
    let accepts_family = match source {
        IpAddr::V4(_) => target.is_ipv4(),
        IpAddr::V6(_) => target.is_ipv6() || !is_only_v6(),
    };
    source == target || source.is_unspecified() && accepts_family && is_of_this_host(target)
}

/// Whether an interface of this host has the address.
pub(crate) fn is_of_this_host(ip: IpAddr) -> bool {
    let of = |address: nix::sys::socket::SockaddrStorage| {
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    };
    ip.is_loopback()
        || getifaddrs().is_ok_and(|mut all| all.any(|one| one.address.and_then(of) == Some(ip)))
}
