//! Why a handshake came to nothing, at either end.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::daemon::net::connect_error::ConnectError;
use crate::daemon::net::loops::LOOP;
use crate::protocol::{HandshakeError, LooksLike, MESSAGE_1, MESSAGE_2, OpenError};

/// What a receiver's peer did instead of proving that it holds the key.
#[derive(Debug, Error)]
pub(crate) enum PreAuthError {
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
    NoSlot,
}

/// Why a sender has no session with its receiver.
#[derive(Debug, Error)]
pub(crate) enum NoSession {
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

impl PreAuthError {
    /// The name that `reason=` has in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::NotOurs(_) | Self::Refused(HandshakeError::NotOurs) => "not-our-protocol",
            Self::Refused(HandshakeError::SuiteRefused(_)) => "cipher-refused",
            Self::Refused(HandshakeError::WrongKey) => "wrong-key",
            Self::Refused(HandshakeError::DegenerateKey) => "degenerate-key",
            Self::Refused(HandshakeError::Randomness) => "no-randomness",
            Self::Replayed => "replay",
            Self::Silent(_) => "silent",
            Self::Stalled { .. } => "stalled",
            Self::Cut(_) => "cut-short",
            Self::Failed(_) => "connection-failed",
            Self::Unproved(_) => "unproved",
            Self::GaveUp => "gave-up",
            Self::Record(_) => "wrong-first-record",
            Self::Evicted => "evicted",
            Self::NoSlot => "no-slot",
        }
    }

    /// What may help whoever reads the log.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
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
            Self::NoSlot => Some(
                "a flood from that address, or more senders behind it than there are places for",
            ),
            Self::Evicted | Self::Probe => None,
        }
    }
}

impl NoSession {
    /// The name that `reason=` has in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => match error {
                ConnectError::Unresolved(..) => "receiver-unresolved",
                ConnectError::Refused => "receiver-refused",
                ConnectError::TimedOut(_) => "receiver-timeout",
                ConnectError::Unreachable(_) => "receiver-unreachable",
                ConnectError::Bind(..) => "bind-failed",
                ConnectError::NoRoom(_) => "no-room",
            },
            Self::TimedOut(_) => "handshake-timeout",
            Self::Closed(_) => "handshake-refused",
            Self::Failed(_) => "handshake-failed",
            Self::NotOurs(_) => "not-a-receiver",
            Self::Refused(_) => "wrong-answer",
            Self::Loop => "loop",
        }
    }

    /// What may help whoever reads the log.
    pub(crate) fn hint(&self) -> &'static str {
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
