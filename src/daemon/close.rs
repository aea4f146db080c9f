//! How a connection ends: what the log says of it, what may help, and what
//! the other end is told.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::libc::{
    EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, ECONNREFUSED, EMFILE, ENFILE, ENOBUFS, ENOENT, ENOMEM,
    ENOSPC, EPERM,
};
use thiserror::Error;
use tokio::task::yield_now;
use tracing::Level;

use super::buffer::{Buffer, Size};
use super::deadline::Deadline;
use super::stream::Stream;
use crate::protocol::{
    AbortReason, HandshakeError, LooksLike, MESSAGE_1, MESSAGE_2, OVERHEAD, OpenError, SealError,
};

/// How long to wait until the other end has read why we gave up.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum Close {
    /// Both directions ended cleanly.
    #[error("closed")]
    Finished,
    /// The peer of a receiver did not get to prove that it holds the key.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// The sender got no session with its receiver.
    #[error(transparent)]
    NoSession(#[from] NoSession),
    /// The receiver could not reach its target.
    #[error(transparent)]
    Target(#[from] ConnectError),
    /// The receiver has as many connections as it may.
    #[error("the connection limit of {0} is reached")]
    Limit(usize),
    /// The key that the peer of a receiver has proved is not in force any more.
    #[error("the key was replaced before the target was connected to")]
    KeyReplaced,
    /// A session that was made ready ahead of need was never opened.
    #[error(transparent)]
    Unused(#[from] Unused),
    /// The other end said why it gave up.
    #[error("{0}")]
    Aborted(AbortReason),
    /// The tunnel ended without the authenticated end of the stream.
    #[error("truncated: the tunnel ended before the stream did")]
    Truncated,
    /// The tunnel's connection failed.
    #[error("truncated: the tunnel failed: {0}")]
    Tunnel(io::Error),
    /// The connection on this side's plaintext socket failed.
    #[error("the local peer's connection failed: {0}")]
    Local(io::Error),
    /// The system has no room for a connection that was accepted.
    #[error("the system has no room for a further connection: {0}")]
    NoRoom(io::Error),
    /// A record was wrong.
    #[error("truncated: {0}")]
    Record(#[from] OpenError),
    /// No further record can be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// This process is ending.
    #[error("shutting down")]
    ShuttingDown,
    /// This process has connected to itself.
    #[error("a loop: the target leads back to the source")]
    Loop,
}

/// What a receiver's peer did instead of proving that it holds the key.
#[derive(Debug, Error)]
pub(super) enum Stranger {
    #[error("connected and closed without a word")]
    Probe,
    #[error("not our protocol, looks like {0}")]
    NotOurs(LooksLike),
    #[error("{0}")]
    Refused(#[from] HandshakeError),
    #[error("its first message came before: a replay")]
    Replayed,
    #[error("said nothing for {0:?}")]
    Silent(Duration),
    #[error(
        "stopped after {got} of the {MESSAGE_1} bytes of its first message, {waited:?} are over"
    )]
    Stalled { got: usize, waited: Duration },
    #[error("closed after {0} of the {MESSAGE_1} bytes of its first message")]
    Cut(usize),
    #[error("did not prove the key live in {0:?}")]
    Unproved(Duration),
    #[error("closed before it proved the key live")]
    GaveUp,
    #[error("its first record is wrong: {0}")]
    Record(OpenError),
    #[error("its connection failed: {0}")]
    Failed(io::Error),
    #[error("gave its place to newer peers that have not proved the key either")]
    Evicted,
    #[error("got no place: too many peers of its address have not proved the key")]
    NoPlace,
}

/// Why a session that was made ready ahead of need was never opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Unused {
    #[error("closed unused by the other end")]
    Closed,
    #[error("closed unused: the key has been replaced")]
    KeyReplaced,
    #[error("closed unused: shutting down")]
    ShuttingDown,
}

/// Why a sender has no session with its receiver.
#[derive(Debug, Error)]
pub(super) enum NoSession {
    #[error("cannot reach the receiver: {0}")]
    Connect(ConnectError),
    #[error("the receiver did not answer the handshake in {0:?}")]
    TimedOut(Duration),
    #[error("the receiver closed the connection in the handshake after {0} of {MESSAGE_2} bytes")]
    Closed(usize),
    #[error("the connection failed in the handshake: {0}")]
    Failed(io::Error),
    #[error("the answer is not our protocol, looks like {0}")]
    NotOurs(LooksLike),
    #[error("the receiver's answer is wrong: {0}")]
    Refused(HandshakeError),
    #[error("a loop: the target leads back to the source")]
    Loop,
}

/// Why a connection to the target was not made.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("the name {0} does not resolve: {1}")]
    Unresolved(String, String),
    #[error("target refused the connection")]
    Refused,
    #[error("target did not answer in {0:?}")]
    TimedOut(Duration),
    #[error("target cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the address after -b, {0}, cannot be used: {1}")]
    Bind(IpAddr, io::Error),
    #[error("the system has no room for a connection to the target: {0}")]
    NoRoom(io::Error),
}

/// Whether the system is short of what another socket takes: descriptors, memory,
/// or room in epoll.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | ENOSPC))
}

impl Close {
    /// Why a socket that was accepted cannot be served.
    pub(super) fn of_accepted(error: io::Error) -> Self {
        if is_shortage(&error) { Self::NoRoom(error) } else { Self::Local(error) }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(ECONNREFUSED) => Self::Refused,
            _ if is_shortage(&error) => Self::NoRoom(error),
            _ => Self::Unreachable(error),
        }
    }
}

impl Close {
    /// Whether both directions ended as they should.
    pub(super) const fn is_clean(&self) -> bool {
        matches!(self, Self::Finished)
    }

    /// Whether somebody should look into it.
    pub(super) fn is_failure(&self) -> bool {
        self.level() <= Level::WARN
    }

    /// At which level the log says it.
    pub(super) const fn level(&self) -> Level {
        match self {
            Self::Stranger(Stranger::Probe) | Self::Unused(_) => Level::DEBUG,
            Self::Finished
            | Self::ShuttingDown
            | Self::KeyReplaced
            | Self::Local(_)
            | Self::Aborted(
                AbortReason::LocalPeerReset | AbortReason::ShuttingDown | AbortReason::KeyReplaced,
            ) => Level::INFO,
            Self::Stranger(_)
            | Self::NoSession(_)
            | Self::Target(_)
            | Self::Loop
            | Self::Limit(_)
            | Self::NoRoom(_)
            | Self::Aborted(_)
            | Self::Truncated
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Seal(_) => Level::WARN,
        }
    }

    /// What may help whoever reads the log.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Stranger(error) => error.hint(),
            Self::NoSession(error) => Some(error.hint()),
            Self::Target(error) => Some(error.hint()),
            Self::Aborted(reason) => abort_hint(*reason),
            Self::Limit(_) => Some("raise -n or the limit of file descriptors"),
            Self::NoRoom(_) => Some(NO_ROOM),
            Self::Truncated | Self::Tunnel(_) | Self::Unused(Unused::Closed) => {
                Some("the other end was stopped, or something between the two cut the connection")
            }
            Self::Record(_) => Some("something between the two ends altered the stream"),
            Self::Local(_) => Some("a client that gave up or a server that restarted does this"),
            Self::Loop => Some(LOOP),
            Self::Finished
            | Self::Seal(_)
            | Self::ShuttingDown
            | Self::KeyReplaced
            | Self::Unused(Unused::KeyReplaced | Unused::ShuttingDown) => None,
        }
    }

    /// What the other end is told, where there is a session to tell it in.
    pub(super) const fn abort_reason(&self) -> Option<AbortReason> {
        match self {
            Self::Target(error) => Some(match error {
                ConnectError::Refused => AbortReason::TargetRefused,
                ConnectError::TimedOut(_) => AbortReason::TargetTimedOut,
                ConnectError::Unresolved(..)
                | ConnectError::Unreachable(_)
                | ConnectError::Bind(..)
                | ConnectError::NoRoom(_) => AbortReason::TargetUnreachable,
            }),
            Self::Limit(_) => Some(AbortReason::ConnectionLimit),
            Self::Local(_) => Some(AbortReason::LocalPeerReset),
            Self::ShuttingDown | Self::Unused(Unused::ShuttingDown) => {
                Some(AbortReason::ShuttingDown)
            }
            Self::KeyReplaced | Self::Unused(Unused::KeyReplaced) => Some(AbortReason::KeyReplaced),
            Self::Finished
            | Self::Stranger(_)
            | Self::NoSession(_)
            | Self::NoRoom(_)
            | Self::Loop
            | Self::Unused(Unused::Closed)
            | Self::Aborted(_)
            | Self::Truncated
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Seal(_) => None,
        }
    }
}

impl Stranger {
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotOurs(LooksLike::Redis) => {
                Some("redis clients connect to a sender ('spiped -e') on their own host")
            }
            Self::NotOurs(LooksLike::Spiped1) => {
                Some("spiped 1.x speaks another protocol, both ends must be of this version")
            }
            Self::NotOurs(LooksLike::ProxyProtocol) => Some(
                "turn it off before this port: haproxy send-proxy, nginx proxy_protocol, AWS proxy_protocol_v2.enabled",
            ),
            Self::NotOurs(_) => Some("only a sender ('spiped -e') connects to this port"),
            Self::Refused(HandshakeError::WrongKey) => {
                Some("compare 'spiped keyid FILE' on both ends, they differ")
            }
            Self::Refused(HandshakeError::SuiteRefused(_)) => {
                Some("--cipher here accepts only the other suite")
            }
            Self::Silent(_) => {
                Some("a health check, or a client that waits for the server to speak first")
            }
            Self::Stalled { .. } | Self::Cut(_) | Self::Failed(_) => {
                Some("the sender was stopped, or this is not a sender ('spiped -e')")
            }
            Self::Unproved(_) | Self::GaveUp | Self::Record(_) | Self::Refused(_) => {
                Some("a sender that was stopped, or a stranger who replays a recorded handshake")
            }
            Self::Replayed => {
                Some("somebody sends again what was recorded on the way; it gets no answer")
            }
            Self::NoPlace => Some(
                "a flood from that address, or more senders behind it than there are places for",
            ),
            Self::Evicted | Self::Probe => None,
        }
    }
}

impl NoSession {
    fn hint(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Refused) => {
                "is 'spiped -d' running there, and does it listen on the address after -t?"
            }
            Self::Connect(error) => error.hint(),
            Self::TimedOut(_) => {
                "is it 'spiped -d' that listens there, not the server itself, nor another 'spiped -e'?"
            }
            Self::Closed(_) => "usually the keys differ: compare 'spiped keyid FILE' on both ends",
            Self::Failed(_) => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends, then read the receiver's log"
            }
            Self::NotOurs(_) => "-t must name a receiver ('spiped -d'), not the server itself",
            Self::Refused(_) => "the answer was altered, or comes from another program",
            Self::Loop => LOOP,
        }
    }
}

const LOOP: &str = "-t must name the other end or the server, not what -s listens on";

const NO_ROOM: &str =
    "raise LimitNOFILE= (ulimit -n), the sysctl fs.epoll.max_user_watches, or the memory there is";

impl ConnectError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Unresolved(..) => "check the name after -t and the resolver",
            Self::Refused => "is the server running, and does it listen on the address after -t?",
            Self::Bind(..) => {
                "-b must be an address of this host, IPv4 or IPv6 as the target's is; leave out its port, which only one connection can have"
            }
            Self::TimedOut(_) => {
                "is that host up, and its address after -t right? else a firewall drops what is sent"
            }
            Self::Unreachable(error) => unreachable_hint(error),
            Self::NoRoom(_) => NO_ROOM,
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
        Some(ENOENT) => "nothing is at the path after -t: is the server running?",
        Some(EACCES | EPERM) => {
            "this user may not: the mode of the socket after -t, or this host's own firewall, says so"
        }
        _ => "check the address after -t, the route and the firewall",
    }
}

const fn abort_hint(reason: AbortReason) -> Option<&'static str> {
    match reason {
        AbortReason::TargetRefused => {
            Some("start that server, on the address of the receiver's -t; the receiver is well")
        }
        AbortReason::TargetTimedOut => {
            Some("that server hangs, or a firewall between the two drops what is sent")
        }
        AbortReason::TargetUnreachable => {
            Some("check the receiver's -t and -b, its resolver and its route; its log says more")
        }
        AbortReason::ConnectionLimit => Some("raise -n at the receiver"),
        AbortReason::KeyReplaced => {
            Some("the client that connects again gets the new key's session")
        }
        AbortReason::LocalPeerReset | AbortReason::ShuttingDown => None,
        AbortReason::Other(_) => Some("the other end is of a later version; its log says more"),
    }
}

/// Sends ABORT, if there is one to be sent, and closes the tunnel such that it
/// arrives: closed with unread input, the kernel would send a reset that may
/// overtake it.
pub(super) async fn abort(tunnel: Stream, record: Option<[u8; OVERHEAD + 1]>) {
    if let Some(record) = record {
        let told = async {
            tunnel.write_all(&record).await?;
            tunnel.shutdown_write()?;
            loop {
                let ready = tunnel.readable().await?;
                if ready.read(Buffer::lend(Size::Small).bytes_mut())? == Some(0) {
                    return Ok::<(), io::Error>(());
                }
                yield_now().await;
            }
        };
        // Whether it arrived or not, the connection is over.
        let _told = Deadline::after(LINGER).bound(told).await;
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::{EHOSTUNREACH, ENOTCONN};

    use super::*;

    /// No room in epoll (`fs.epoll.max_user_watches`) is no fault of a peer's.
    #[test]
    fn a_system_without_room_is_told_apart_from_peers() {
        let error = io::Error::from_raw_os_error;
        for shortage in [ENOSPC, ENOMEM, EMFILE] {
            let accepted = Close::of_accepted(error(shortage));
            assert!(matches!(accepted, Close::NoRoom(_)), "{accepted}");
            assert_eq!((accepted.level(), accepted.hint()), (Level::WARN, Some(NO_ROOM)));
            let connected = Close::Target(error(shortage).into());
            assert!(connected.to_string().contains("no room"), "{connected}");
            assert_eq!(connected.hint(), Some(NO_ROOM));
        }
        assert!(matches!(Close::of_accepted(error(ENOTCONN)), Close::Local(_)));
    }

    #[test]
    fn what_cannot_be_reached_has_the_hint_of_its_cause() {
        let hint = |number| {
            let error = || ConnectError::from(io::Error::from_raw_os_error(number));
            let sender = NoSession::Connect(error()).hint();
            (sender == error().hint()).then_some(sender)
        };
        let cases = [
            (EADDRNOTAVAIL, "no local port is free"),
            (EAFNOSUPPORT, "has no IPv6"),
            (ENOENT, "nothing is at the path"),
            (EACCES, "this user may not"),
            (EHOSTUNREACH, "the route and the firewall"),
        ];
        for (number, part) in cases {
            assert!(hint(number).is_some_and(|hint| hint.contains(part)), "{number}");
        }
        // For the sender, nobody there is no server but no receiver.
        assert_eq!(hint(ECONNREFUSED), None);
    }
}
