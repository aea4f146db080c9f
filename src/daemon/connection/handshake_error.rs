//! Why a handshake failed, at either end.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::daemon::net::connect_error::ConnectError;
use crate::daemon::net::loops::LOOP;
use crate::daemon::relay::error::BREAKS_RULES;
use crate::protocol::{HandshakeError, Kex, LooksLike, OpenError, Suite};

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
    #[error("its address has left too many answers unproved")]
    TooManyUnproved,
    #[error("sent nothing for {0:?}")]
    Silent(Duration),
    #[error("sent only {0} of its first message in {1:?}")]
    Stalled(Part, Duration),
    #[error("closed after {0} of its first message")]
    Cut(Part),
    #[error("did not prove the key live in {0:?}")]
    Unproved(Duration),
    #[error("withdrawn by the sender before it was open")]
    Withdrawn,
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

/// How much of a first message has come, such as `20 of 57 bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    got: usize,
    of: usize,
}

impl Part {
    /// The part that `seen` is; its first byte says of how many.
    pub(super) fn of(seen: &[u8]) -> Self {
        let suite = seen.first().and_then(|byte| Suite::from_byte(*byte));
        Self { got: seen.len(), of: suite.map_or(0, Suite::message_1) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.got, self.of)
    }
}

/// Why a sender has no session with its receiver.
#[derive(Debug, Error)]
pub(crate) enum NoSession {
    #[error("cannot reach the receiver: {0}")]
    Connect(ConnectError),
    #[error("the receiver did not answer the handshake in {0:?}")]
    TimedOut(Duration),
    #[error("the receiver closed the connection in the handshake after {got} of {of} bytes")]
    Closed { got: usize, of: usize },
    #[error("the connection failed in the handshake: {0}")]
    Failed(io::Error),
    #[error("the answer is not our protocol, looks like {0}")]
    NotAReceiver(LooksLike),
    #[error("the receiver's answer is wrong: {0}")]
    WrongAnswer(HandshakeError),
    #[error("{0}")]
    NoRandomness(HandshakeError),
    #[error("a loop: the target leads back to the source")]
    Loop,
}

impl PreAuthError {
    /// The name after `reason=` in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::NotOurs(_) | Self::Handshake(HandshakeError::NotOurs) => "not-our-protocol",
            Self::Handshake(HandshakeError::KexRefused(_)) => "kex-refused",
            Self::Handshake(HandshakeError::CipherRefused(_)) => "cipher-refused",
            Self::Handshake(HandshakeError::WrongKey) => "wrong-key",
            Self::Handshake(HandshakeError::DegenerateKey) => "degenerate-key",
            Self::Handshake(HandshakeError::InvalidKemKey) => "invalid-kem-key",
            Self::Handshake(HandshakeError::Length) => "wrong-length",
            Self::Handshake(HandshakeError::Randomness) => "no-randomness",
            Self::Replayed => "replay",
            Self::TooManyUnproved => "too-many-unproved",
            Self::Silent(_) => "silent",
            Self::Stalled(..) => "stalled",
            Self::Cut(_) => "cut-short",
            Self::Failed(_) => "connection-failed",
            Self::Unproved(_) => "unproved",
            Self::Withdrawn => "withdrawn",
            Self::GaveUp => "gave-up",
            Self::Record(OpenError::NotUnderstood) => "not-understood",
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
            Self::Handshake(HandshakeError::WrongKey) => Some(
                "compare 'spiped keyid FILE' on both ends; if they are equal, the peer is a stranger",
            ),
            Self::Handshake(HandshakeError::KexRefused(Kex::X25519)) => Some(
                "--kex here requires x25519mlkem768: set it at the sender, or leave it out there",
            ),
            Self::Handshake(HandshakeError::KexRefused(Kex::X25519MlKem768)) => {
                Some("--kex here accepts only x25519: set it at the sender, or leave it out here")
            }
            Self::Handshake(HandshakeError::CipherRefused(_)) => {
                Some("--cipher here accepts only the other one; set it at the sender too")
            }
            Self::Record(OpenError::NotUnderstood) => {
                Some("the sender runs a later version, and was told that this one does not follow")
            }
            Self::Silent(_) => {
                Some("a health check, or a client that waits for the server to speak first")
            }
            Self::Stalled(..)
            | Self::Cut(_)
            | Self::Failed(_)
            | Self::Handshake(HandshakeError::Length) => {
                Some("the sender was stopped, or this is not a sender ('spiped -e')")
            }
            Self::Handshake(HandshakeError::Randomness) => {
                Some("the system has no random bytes yet: it may still be starting")
            }
            Self::Record(OpenError::Violation) => Some(BREAKS_RULES),
            Self::Unproved(_)
            | Self::GaveUp
            | Self::Record(_)
            | Self::Handshake(HandshakeError::DegenerateKey | HandshakeError::InvalidKemKey) => {
                Some("a sender that was stopped, or a stranger who replays a recorded handshake")
            }
            Self::Replayed => Some("a stranger replays a recorded handshake, and gets no answer"),
            Self::TooManyUnproved => Some(
                "a stranger there replays recorded handshakes; senders there are refused meanwhile",
            ),
            Self::NoSlot => {
                Some("a flood from that address, or more senders behind it than slots for it")
            }
            Self::Evicted | Self::Withdrawn | Self::ShuttingDown | Self::Probe => None,
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
            Self::Closed { got: 0, .. } => "handshake-refused",
            Self::Failed(_) => "handshake-failed",
            Self::NotAReceiver(_) => "not-a-receiver",
            // No receiver closes in the midst of its answer.
            Self::Closed { .. } | Self::WrongAnswer(_) => "wrong-answer",
            Self::NoRandomness(_) => "no-randomness",
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
            Self::Closed { got: 0, .. } => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends; or --kex or --cipher there refuses this one"
            }
            Self::Closed { .. } => {
                "-t must name a receiver ('spiped -d'); or the connection was cut"
            }
            Self::Failed(_) => {
                "usually the keys differ: compare 'spiped keyid FILE' on both ends, then read the receiver's log; or what listens there is no receiver"
            }
            Self::NotAReceiver(_) => "-t must name a receiver ('spiped -d'), not the server itself",
            Self::WrongAnswer(_) => "the answer was altered, or comes from another program",
            Self::NoRandomness(_) => "the system has no random bytes yet: it may still be starting",
            Self::Loop => LOOP,
        }
    }
}
