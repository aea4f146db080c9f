//! Limits of log lines for connections, one for each close reason: many lines of one
//! reason must not hide another.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::close_reason::CloseReason;
use super::handshake_error::NoSession;
use crate::daemon::relay::error::RelayError;
use crate::logging::limit::LogLimit;

/// Lines a second of a reason that anyone can cause.
const BY_ANYONE: u32 = 1;
/// Lines a second of a reason that anyone on the way between the two ends can cause.
const ON_THE_WAY: u32 = 5;
/// Lines a second of a reason that takes a holder of the key, or a server that is down.
const BY_KEY_HOLDERS: u32 = 20;

/// The limit of each close reason that has occurred.
#[derive(Debug, Default)]
pub(crate) struct LogLimits(Mutex<BTreeMap<&'static str, LogLimit>>);

impl LogLimits {
    /// Whether a line of this reason may be written now: `Some` with the number of lines
    /// that were suppressed before it.
    pub(super) fn allow(&self, reason: &CloseReason) -> Option<u64> {
        if !reason.is_failure() {
            return Some(0);
        }
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limits.entry(reason.name()).or_insert_with(|| LogLimit::new(most(reason))).allow()
    }

    /// Logs, at the end, how many suppressed lines no other line has counted.
    pub(crate) fn log_rest(&self) {
        let limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed: u64 = limits.values().map(LogLimit::rest).sum();
        if suppressed > 0 {
            warn!(suppressed, "further log lines of connections were suppressed");
        }
    }
}

const fn most(reason: &CloseReason) -> u32 {
    match reason {
        CloseReason::NotAllowed(_)
        | CloseReason::PreAuth(_)
        | CloseReason::Limit(_)
        | CloseReason::NoRoom(_)
        | CloseReason::Loop
        | CloseReason::NoSession(NoSession::Loop | NoSession::NoRandomness(_)) => BY_ANYONE,
        CloseReason::NoSession(
            NoSession::TimedOut(_)
            | NoSession::Closed { .. }
            | NoSession::Failed(_)
            | NoSession::NotAReceiver(_)
            | NoSession::WrongAnswer(_),
        )
        | CloseReason::Relay(
            RelayError::Truncated | RelayError::Tunnel(_) | RelayError::Record(_),
        ) => ON_THE_WAY,
        CloseReason::NoSession(NoSession::Connect(_))
        | CloseReason::Target(_)
        | CloseReason::Relay(_)
        | CloseReason::Finished
        | CloseReason::KeyLimit(_)
        | CloseReason::KeyReplaced
        | CloseReason::NoCarrier
        | CloseReason::NotJoined
        | CloseReason::Unused(_) => BY_KEY_HOLDERS,
    }
}
