//! Limits of log lines that a stranger, a starved system or a target that is down can cause
//! at will. The next line after a limit was reached says how many were suppressed.

use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// A limit of lines a second for one kind of line.
#[derive(Debug)]
pub(crate) struct LogLimit {
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the second began that `said` counts.
    began: Option<Instant>,
    said: u32,
    suppressed: u64,
}

impl LogLimit {
    /// A limit of `most` lines a second.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Whether a line may be written now: `Some` with the number of lines that were
    /// suppressed before it.
    pub(crate) fn allow(&self) -> Option<u64> {
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
        Some(mem::take(&mut state.suppressed))
    }

    /// How many suppressed lines no other line has counted yet.
    pub(crate) fn rest(&self) -> u64 {
        mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).suppressed)
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
