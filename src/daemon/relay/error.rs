//! Why a relay failed.

use std::io;

use thiserror::Error;
use tracing::Level;

use crate::protocol::{AbortReason, OpenError, SealError};

/// Why a session, or its relay, failed.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    /// The other end said why it gave up.
    #[error("{0}")]
    Aborted(AbortReason),
    /// The tunnel ended without the authenticated end of the stream, or without DONE.
    #[error("truncated: the tunnel ended before both ends had everything")]
    Truncated,
    /// The other end has not sent DONE, and nothing has moved for long.
    #[error("unconfirmed: the other end has not said that the last bytes have arrived")]
    Unconfirmed,
    /// The tunnel's connection failed.
    #[error("truncated: the tunnel failed: {0}")]
    Tunnel(io::Error),
    /// A record was wrong.
    #[error("truncated: {0}")]
    Record(#[from] OpenError),
    /// No further record can be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The connection with the local peer failed.
    #[error("the local peer's connection failed: {0}")]
    Local(io::Error),
    /// This process is ending.
    #[error("shutting down")]
    ShuttingDown,
    /// The connection's key was revoked here.
    #[error("the key was revoked")]
    KeyRevoked,
}

impl RelayError {
    /// The name after `reason=` in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Aborted(reason) => match reason {
                AbortReason::TargetRefused => "aborted-target-refused",
                AbortReason::TargetTimedOut => "aborted-target-timeout",
                AbortReason::TargetUnreachable => "aborted-target-unreachable",
                AbortReason::ConnectionLimit => "aborted-connection-limit",
                AbortReason::LocalPeerReset => "aborted-peer-reset",
                AbortReason::ShuttingDown => "aborted-shutting-down",
                AbortReason::KeyReplaced => "aborted-key-replaced",
                AbortReason::NotUnderstood => "aborted-not-understood",
                AbortReason::NotAvailable => "aborted-not-available",
                AbortReason::KeyRevoked => "aborted-key-revoked",
                AbortReason::Other(_) => "aborted-other",
            },
            Self::Truncated => "truncated",
            Self::Unconfirmed => "unconfirmed",
            Self::Tunnel(_) => "tunnel-failed",
            Self::Record(OpenError::NotUnderstood) => "not-understood",
            Self::Record(_) => "wrong-record",
            Self::Seal(_) => "records-exhausted",
            Self::Local(_) => "peer-reset",
            Self::ShuttingDown => "shutting-down",
            Self::KeyRevoked => "key-revoked",
        }
    }

    /// The level of the log line.
    pub(crate) const fn level(&self) -> Level {
        match self {
            Self::Local(_)
            | Self::ShuttingDown
            | Self::KeyRevoked
            | Self::Aborted(
                AbortReason::LocalPeerReset | AbortReason::ShuttingDown | AbortReason::KeyReplaced,
            ) => Level::INFO,
            Self::Aborted(_)
            | Self::Truncated
            | Self::Unconfirmed
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Seal(_) => Level::WARN,
        }
    }

    /// What may help the operator.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Aborted(reason) => abort_hint(*reason),
            Self::Truncated | Self::Tunnel(_) => Some(CUT),
            Self::Record(OpenError::NotUnderstood) => Some("the other end runs a later version"),
            Self::Record(OpenError::Violation) => Some(BREAKS_RULES),
            Self::Record(_) => Some("something between the two ends altered the stream"),
            Self::Unconfirmed => Some("the peer beyond the tunnel hangs, or reads very slowly"),
            Self::Local(_) => Some("a client that gave up or a server that restarted does this"),
            Self::Seal(_) | Self::ShuttingDown | Self::KeyRevoked => None,
        }
    }

    /// The reason that an ABORT tells the other end, where there is a session.
    pub(crate) const fn abort_reason(&self) -> Option<AbortReason> {
        match self {
            Self::Local(_) => Some(AbortReason::LocalPeerReset),
            Self::ShuttingDown => Some(AbortReason::ShuttingDown),
            Self::KeyRevoked => Some(AbortReason::KeyRevoked),
            Self::Record(OpenError::NotUnderstood) => Some(AbortReason::NotUnderstood),
            Self::Aborted(_)
            | Self::Truncated
            | Self::Unconfirmed
            | Self::Tunnel(_)
            | Self::Record(_)
            | Self::Seal(_) => None,
        }
    }
}

/// The hint where an authentic record breaks the rules: nobody between the ends can do that.
pub(crate) const BREAKS_RULES: &str =
    "the other end has the key and breaks the protocol: another version or implementation";

/// The hint where the tunnel ended without a reason.
pub(crate) const CUT: &str =
    "the other end was stopped, or something between the two cut the connection";

const fn abort_hint(reason: AbortReason) -> Option<&'static str> {
    match reason {
        AbortReason::TargetRefused => Some(
            "start that server, on the address of the receiver's -t; the receiver itself works",
        ),
        AbortReason::TargetTimedOut => {
            Some("that server hangs, or a firewall between the two drops what is sent")
        }
        AbortReason::TargetUnreachable => {
            Some("check the receiver's -t and -b, its resolver and its route; its log says more")
        }
        AbortReason::ConnectionLimit => {
            Some("raise -n, or the limit of this key, at the receiver; its log says which")
        }
        AbortReason::KeyReplaced => {
            Some("a client that connects again gets a session of the new key")
        }
        AbortReason::NotUnderstood => Some("the other end runs an earlier version"),
        AbortReason::NotAvailable => Some("the other end runs another version, or without this"),
        AbortReason::KeyRevoked => Some("ask who runs the receiver for a new key"),
        AbortReason::LocalPeerReset | AbortReason::ShuttingDown => None,
        AbortReason::Other(_) => Some("the other end runs a later version; its log says more"),
    }
}
