//! Lines that strangers, a starved system or a target that is down can cause at
//! will: so many a second of each kind, and the next one says how many were left
//! out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::close::Close;

const INTERVAL: Duration = Duration::from_secs(1);

/// A limit of lines a second for one kind.
#[derive(Debug)]
pub(super) struct LogLimit {
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the second began that is counted.
    began: Option<Instant>,
    said: u32,
    suppressed: u64,
}

/// Those of the ends of connections, apart so that none hides another.
#[derive(Debug)]
pub(super) struct LogLimits {
    strangers: LogLimit,
    limit: LogLimit,
    failures: LogLimit,
}

impl LogLimit {
    /// At most so many lines a second.
    pub(super) fn new(most: u32) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Whether a line may be written now: `Some` with how many were left out
    /// before it.
    pub(super) fn allow(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.duration_since(began) >= INTERVAL) {
            state.began = Some(now);
            state.said = 0;
        }
        if state.said >= self.most {
            state.suppressed = state.suppressed.saturating_add(1);
            return None;
        }
        state.said = state.said.saturating_add(1);
        Some(std::mem::take(&mut state.suppressed))
    }
}

impl LogLimits {
    pub(super) fn new() -> Self {
        Self { strangers: LogLimit::new(1), limit: LogLimit::new(1), failures: LogLimit::new(20) }
    }

    /// The limit for lines of this kind, if they have one.
    pub(super) fn of(&self, close: &Close) -> Option<&LogLimit> {
        if close.level() > Level::WARN {
            None
        } else if matches!(close, Close::Stranger(_)) {
            Some(&self.strangers)
        } else if matches!(close, Close::Limit(_)) {
            Some(&self.limit)
        } else {
            Some(&self.failures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_said() {
        let limit = LogLimit::new(2);
        assert_eq!([limit.allow(), limit.allow(), limit.allow()], [Some(0), Some(0), None]);
        assert_eq!(limit.allow(), None);
        limit.state.lock().unwrap().began = Instant::now().checked_sub(INTERVAL);
        assert_eq!([limit.allow(), limit.allow(), limit.allow()], [Some(2), Some(0), None]);
    }
}
