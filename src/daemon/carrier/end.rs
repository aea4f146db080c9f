//! How a carrier ended, and what that is to its streams.

use std::io;

use thiserror::Error;
use tracing::Level;

use crate::daemon::relay::error::RelayError;
use crate::protocol::carrier::Violation;
use crate::protocol::{AbortReason, OpenError, SealError};

/// How a carrier ended.
#[derive(Clone, Copy, Debug, Error)]
pub(crate) enum CarrierEnd {
    /// No stream lived any more, and both sides closed.
    #[error("closed")]
    Closed,
    /// The other end said why it gave up.
    #[error("{0}")]
    Aborted(AbortReason),
    /// The tunnel ended while streams lived.
    #[error("truncated: the tunnel ended while streams were open")]
    Truncated,
    /// The tunnel's connection failed.
    #[error("truncated: the tunnel failed: {}", io::Error::from(*.0))]
    Tunnel(io::ErrorKind),
    /// Nothing came for too long (C17).
    #[error("truncated: the other end has not said anything for 15 seconds")]
    Silent,
    /// A record was wrong.
    #[error("truncated: {0}")]
    Record(OpenError),
    /// The other end has broken a rule of frames.
    #[error("truncated: {0}")]
    Violation(Violation),
    /// No further record can be made.
    #[error(transparent)]
    Seal(SealError),
    /// The carrier's key was revoked here.
    #[error("the key was revoked")]
    KeyRevoked,
    /// This process is ending.
    #[error("shutting down")]
    ShuttingDown,
    /// A mistake of our own: its place is in the log.
    #[error("truncated: a panic has ended the carrier")]
    Panicked,
}

impl CarrierEnd {
    /// What it is to a stream that lived (C18).
    pub(super) fn to_stream(self) -> RelayError {
        match self {
            Self::Aborted(reason) => RelayError::Aborted(reason),
            Self::Closed | Self::Truncated | Self::Panicked => RelayError::Truncated,
            Self::Tunnel(kind) => RelayError::Tunnel(kind.into()),
            Self::Silent => RelayError::Tunnel(io::ErrorKind::TimedOut.into()),
            Self::Record(error) => RelayError::Record(error),
            Self::Violation(_) => RelayError::Record(OpenError::Violation),
            Self::Seal(error) => RelayError::Seal(error),
            Self::KeyRevoked => RelayError::KeyRevoked,
            Self::ShuttingDown => RelayError::ShuttingDown,
        }
    }

    /// The name after `reason=` in the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "finished",
            Self::Silent => "silent",
            Self::Panicked => "panic",
            Self::Aborted(_)
            | Self::Truncated
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Violation(_)
            | Self::Seal(_)
            | Self::KeyRevoked
            | Self::ShuttingDown => self.to_stream().reason(),
        }
    }

    /// What may help the operator.
    pub(crate) fn hint(self) -> Option<&'static str> {
        if matches!(self, Self::Closed) { None } else { self.to_stream().hint() }
    }

    /// The level of the log line.
    pub(crate) fn level(self) -> Level {
        match self {
            // Each of its streams says it.
            Self::Closed | Self::KeyRevoked | Self::ShuttingDown => Level::DEBUG,
            Self::Aborted(_) => match self.to_stream().level() {
                Level::INFO => Level::DEBUG,
                level => level,
            },
            Self::Truncated
            | Self::Tunnel(_)
            | Self::Silent
            | Self::Record(_)
            | Self::Violation(_)
            | Self::Seal(_)
            | Self::Panicked => Level::WARN,
        }
    }
}

impl From<io::Error> for CarrierEnd {
    fn from(error: io::Error) -> Self {
        Self::Tunnel(error.kind())
    }
}

impl From<SealError> for CarrierEnd {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

impl From<OpenError> for CarrierEnd {
    fn from(error: OpenError) -> Self {
        Self::Record(error)
    }
}

impl From<Violation> for CarrierEnd {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
