//! At most one line a second of what strangers, or a starved system, can cause
//! at will; the next line says how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::close::Close;

const INTERVAL: Duration = Duration::from_secs(1);

/// When the last line was, and how many have been left out since.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<(Option<Instant>, u64)>);

/// Those of the ends of connections, apart so that none hides another.
#[derive(Debug, Default)]
pub(super) struct LogLimits {
    strangers: LogLimit,
    limit: LogLimit,
}

impl LogLimit {
    /// Whether a line may be written now: `Some` with how many were left out
    /// before it.
    pub(super) fn allow(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            *unsaid = unsaid.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}

impl LogLimits {
    /// The limit for lines of this kind, if they have one.
    pub(super) const fn of(&self, close: &Close) -> Option<&LogLimit> {
        if matches!(close, Close::Stranger(_)) {
            Some(&self.strangers)
        } else if matches!(close, Close::Limit(_)) {
            Some(&self.limit)
        } else {
            None
        }
    }
}
