//! At most one line a second of what strangers, or a starved system, can cause
//! at will; the next line says how many were left out.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// When the last line was, and how many have been left out since.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Option<Instant>,
    unsaid: u64,
}

impl LogLimit {
    /// Whether a line may be written now: `Some` with how many were left out
    /// before it.
    pub(super) fn allow(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}
