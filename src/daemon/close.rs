//! How a connection ends: what the log says of it, what may help, and what
//! the other end is told.

use std::io;
use std::time::Duration;

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
    /// A record was wrong.
    #[error("truncated: {0}")]
    Record(#[from] OpenError),
    /// No further record can be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// This process is ending.
    #[error("shutting down")]
    ShuttingDown,
}

/// What a receiver's peer did instead of proving that it holds the key.
#[derive(Debug, Error)]
pub(super) enum Stranger {
    #[error("connected and closed without a word")]
    Probe,
    #[error("not our protocol, looks like {0}")]
    NotOurs(LooksLike),
    #[error("{0}")]
    Refused(HandshakeError),
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
}

impl Close {
    /// Whether both directions ended as they should.
    pub(super) const fn is_clean(&self) -> bool {
        matches!(self, Self::Finished)
    }

    /// At which level the log says it.
    pub(super) const fn level(&self) -> Level {
        match self {
            Self::Stranger(Stranger::Probe) | Self::Unused(_) => Level::DEBUG,
            Self::Finished
            | Self::ShuttingDown
            | Self::Local(_)
            | Self::Aborted(
                AbortReason::LocalPeerReset | AbortReason::ShuttingDown | AbortReason::KeyReplaced,
            ) => Level::INFO,
            Self::Stranger(_)
            | Self::NoSession(_)
            | Self::Target(_)
            | Self::Limit(_)
            | Self::Aborted(_)
            | Self::Truncated
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Seal(_) => Level::WARN,
        }
    }

    /// What may help whoever reads the log.
    pub(super) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Stranger(error) => error.hint(),
            Self::NoSession(error) => Some(error.hint()),
            Self::Target(error) => Some(error.hint()),
            Self::Aborted(reason) => abort_hint(*reason),
            Self::Limit(_) => Some("raise -n or the limit of file descriptors"),
            Self::Truncated | Self::Tunnel(_) | Self::Unused(Unused::Closed) => {
                Some("the other end was stopped, or something between the two cut the connection")
            }
            Self::Record(_) => Some("something between the two ends altered the stream"),
            Self::Local(_) => Some("a client that gave up or a server that restarted does this"),
            Self::Finished
            | Self::Seal(_)
            | Self::ShuttingDown
            | Self::Unused(Unused::KeyReplaced | Unused::ShuttingDown) => None,
        }
    }

    /// What the other end is told, where there is a session to tell it in.
    pub(super) const fn abort_reason(&self) -> Option<AbortReason> {
        match self {
            Self::Target(error) => Some(match error {
                ConnectError::Refused => AbortReason::TargetRefused,
                ConnectError::TimedOut(_) => AbortReason::TargetTimedOut,
                ConnectError::Unresolved(..) | ConnectError::Unreachable(_) => {
                    AbortReason::TargetUnreachable
                }
            }),
            Self::Limit(_) => Some(AbortReason::ConnectionLimit),
            Self::Local(_) => Some(AbortReason::LocalPeerReset),
            Self::ShuttingDown | Self::Unused(Unused::ShuttingDown) => {
                Some(AbortReason::ShuttingDown)
            }
            Self::Unused(Unused::KeyReplaced) => Some(AbortReason::KeyReplaced),
            Self::Finished
            | Self::Stranger(_)
            | Self::NoSession(_)
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
            Self::Evicted | Self::Probe => None,
        }
    }
}

impl NoSession {
    const fn hint(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Unresolved(..)) => {
                "check the name after -t and the resolver"
            }
            Self::Connect(_) => "is 'spiped -d' running there, and does no firewall stand between?",
            Self::TimedOut(_) => {
                "is it 'spiped -d' that listens there, and not another 'spiped -e'?"
            }
            Self::Closed(_) => "usually the keys differ: compare 'spiped keyid FILE' on both ends",
            Self::Failed(_) => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends, then its log"
            }
            Self::NotOurs(_) => "-t must name a receiver ('spiped -d'), not the server itself",
            Self::Refused(_) => "the answer was altered, or comes from another program",
        }
    }
}

impl ConnectError {
    const fn hint(&self) -> &'static str {
        match self {
            Self::Unresolved(..) => "check the name after -t and the resolver",
            Self::Refused => "is the server running, and does it listen on the address after -t?",
            Self::TimedOut(_) | Self::Unreachable(_) => {
                "check the address after -t, the route and the firewall"
            }
        }
    }
}

const fn abort_hint(reason: AbortReason) -> Option<&'static str> {
    match reason {
        AbortReason::TargetRefused | AbortReason::TargetTimedOut => {
            Some("is the server behind the receiver running? the receiver's log names its address")
        }
        AbortReason::TargetUnreachable => Some("check the receiver's -t; its log says more"),
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
