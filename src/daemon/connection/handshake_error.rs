//! Why a handshake failed, at either end.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::daemon::net::connect_error::ConnectError;
use crate::daemon::net::loops::LOOP;
use crate::protocol::{HandshakeError, LooksLike, MESSAGE_1, MESSAGE_2, OpenError};

/// What a receiver's peer did instead of proving that it holds the key.
#[derive(Debug, Error)]
pub(crate) enum PreAuthError {
    #[error("connected and closed without sending anything")]
    Probe,
    #[error("not our protocol, looks like {0}")]
    NotOurs(LooksLike),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("its first message is a replay")]
    Replayed,
    #[error("sent nothing for {0:?}")]
    Silent(Duration),
    #[error("sent only {got} of the {MESSAGE_1} bytes of its first message in {waited:?}")]
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
    #[error("evicted for newer peers before it proved the key")]
    Evicted,
    #[error("shutting down before it proved the key")]
    ShuttingDown,
    #[error("got no slot: too many peers of its address have not proved the key")]
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
    NotAReceiver(LooksLike),
    #[error("the receiver's answer is wrong: {0}")]
    WrongAnswer(HandshakeError),
    #[error("a loop: the target leads back to the source")]
    Loop,
}

impl PreAuthError {
    /// The name after `reason=` in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::NotOurs(_) | Self::Handshake(HandshakeError::NotOurs) => "not-our-protocol",
            Self::Handshake(HandshakeError::SuiteRefused(_)) => "cipher-refused",
            Self::Handshake(HandshakeError::WrongKey) => "wrong-key",
            Self::Handshake(HandshakeError::DegenerateKey) => "degenerate-key",
            Self::Handshake(HandshakeError::Randomness) => "no-randomness",
            Self::Replayed => "replay",
            Self::Silent(_) => "silent",
            Self::Stalled { .. } => "stalled",
            Self::Cut(_) => "cut-short",
            Self::Failed(_) => "connection-failed",
            Self::Unproved(_) => "unproved",
            Self::GaveUp => "gave-up",
            Self::Record(_) => "wrong-first-record",
            Self::Evicted => "evicted",
            Self::ShuttingDown => "unproved-shutting-down",
            Self::NoSlot => "no-slot",
        }
    }

    /// What may help the operator.
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
            Self::NotOurs(_) | Self::Handshake(HandshakeError::NotOurs) => {
                Some("only a sender ('spiped -e') connects to this port")
            }
            Self::Handshake(HandshakeError::WrongKey) => {
                Some("compare 'spiped keyid FILE' on both ends, they differ")
            }
            Self::Handshake(HandshakeError::SuiteRefused(_)) => {
                Some("--cipher here accepts only the other suite")
            }
            Self::Silent(_) => {
                Some("a health check, or a client that waits for the server to speak first")
            }
            Self::Stalled { .. } | Self::Cut(_) | Self::Failed(_) => {
                Some("the sender was stopped, or this is not a sender ('spiped -e')")
            }
            Self::Handshake(HandshakeError::Randomness) => {
                Some("the system has no random bytes yet: it may still be starting")
            }
            Self::Unproved(_)
            | Self::GaveUp
            | Self::Record(_)
            | Self::Handshake(HandshakeError::DegenerateKey) => {
                Some("a sender that was stopped, or a stranger who replays a recorded handshake")
            }
            Self::Replayed => Some("a stranger replays a recorded handshake, and gets no answer"),
            Self::NoSlot => {
                Some("a flood from that address, or more senders behind it than slots for it")
            }
            Self::Evicted | Self::ShuttingDown | Self::Probe => None,
        }
    }
}

impl NoSession {
    /// The name after `reason=` in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => match error {
                ConnectError::Unresolved(..) => "receiver-unresolved",
                ConnectError::Refused => "receiver-refused",
                ConnectError::Reset => "receiver-reset",
                ConnectError::TimedOut(_) => "receiver-timeout",
                ConnectError::Unreachable(_) => "receiver-unreachable",
                ConnectError::Bind(..) => "bind-failed",
                ConnectError::NoRoom(_) => "receiver-no-room",
            },
            Self::TimedOut(_) => "handshake-timeout",
            Self::Closed(0) => "handshake-refused",
            Self::Failed(_) => "handshake-failed",
            Self::NotAReceiver(_) => "not-a-receiver",
            // No receiver closes in the midst of its answer.
            Self::Closed(_) | Self::WrongAnswer(_) => "wrong-answer",
            Self::Loop => "loop",
        }
    }

    /// What may help the operator.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Refused) => {
                "is 'spiped -d' running there, and does it listen on the address after -t?"
            }
            Self::Connect(error) => error.hint(),
            Self::TimedOut(_) => {
                "does 'spiped -d' listen there, and not the server itself or another 'spiped -e'?"
            }
            Self::Closed(0) => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends; or --cipher there refuses this one"
            }
            Self::Closed(_) => "-t must name a receiver ('spiped -d'); or the connection was cut",
            Self::Failed(_) => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends, then read the receiver's log"
            }
            Self::NotAReceiver(_) => "-t must name a receiver ('spiped -d'), not the server itself",
            Self::WrongAnswer(_) => "the answer was altered, or comes from another program",
            Self::Loop => LOOP,
        }
    }
}
