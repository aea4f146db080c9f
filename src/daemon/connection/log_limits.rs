//! Limits of log lines for connections, one for each reason: noise of one kind must not
//! hide another.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::close_reason::CloseReason;
use super::handshake_error::NoSession;
use crate::logging::limit::LogLimit;

/// Lines a second of a reason that anybody can cause.
const BY_ANYBODY: u32 = 1;
/// Lines a second of a reason that only a holder of the key can cause.
const BY_KEY_HOLDERS: u32 = 20;

/// A limit for each reason that a connection has failed for.
#[derive(Debug, Default)]
pub(crate) struct LogLimits(Mutex<BTreeMap<&'static str, LogLimit>>);

impl LogLimits {
    /// Whether a line for this reason may be written now: `Some` with how many were
    /// suppressed before it.
    pub(super) fn allow(&self, reason: &CloseReason) -> Option<u64> {
        if !reason.is_failure() {
            return Some(0);
        }
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limits.entry(reason.name()).or_insert_with(|| LogLimit::new(most(reason))).allow()
    }

    /// Counts, at the end, what no further line of its reason will count.
    pub(crate) fn say_rest(&self) {
        let limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed: u64 = limits.values().map(LogLimit::rest).sum();
        if suppressed > 0 {
            warn!(suppressed, "further lines of connections were left out");
        }
    }
}

const fn most(reason: &CloseReason) -> u32 {
    match reason {
        CloseReason::PreAuth(_)
        | CloseReason::Limit(_)
        | CloseReason::NoRoom(_)
        | CloseReason::Loop
        | CloseReason::NoSession(NoSession::Loop) => BY_ANYBODY,
        CloseReason::NoSession(_)
        | CloseReason::Target(_)
        | CloseReason::Relay(_)
        | CloseReason::Finished
        | CloseReason::KeyReplaced
        | CloseReason::Unused(_) => BY_KEY_HOLDERS,
    }
}
