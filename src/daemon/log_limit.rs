//! Lines that strangers, a starved system or a target that is down can cause at
//! will: so many a second of each kind, and the next one says how many were left
//! out.

use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::close::{Close, NoSession, Stranger};
use crate::protocol::HandshakeError;

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

/// Those of the ends of connections, one for each kind: noise of one kind must not
/// hide another.
#[derive(Debug)]
pub(super) struct LogLimits {
    wrong_key: LogLimit,
    refused: LogLimit,
    not_ours: LogLimit,
    silent: LogLimit,
    cut_short: LogLimit,
    replayed: LogLimit,
    unproved: LogLimit,
    crowded: LogLimit,
    limit: LogLimit,
    no_room: LogLimit,
    loops: LogLimit,
    no_session: LogLimit,
    target: LogLimit,
    aborted: LogLimit,
    truncated: LogLimit,
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
        Some(mem::take(&mut state.suppressed))
    }

    /// How many were left out that no line has counted yet.
    fn rest(&self) -> u64 {
        mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).suppressed)
    }
}

impl LogLimits {
    pub(super) fn new() -> Self {
        // What anybody can cause, and what only who has the key can.
        let (seldom, often) = (|| LogLimit::new(1), || LogLimit::new(20));
        Self {
            wrong_key: seldom(),
            refused: seldom(),
            not_ours: seldom(),
            silent: seldom(),
            cut_short: seldom(),
            replayed: seldom(),
            unproved: seldom(),
            crowded: seldom(),
            limit: seldom(),
            no_room: seldom(),
            loops: seldom(),
            no_session: often(),
            target: often(),
            aborted: often(),
            truncated: often(),
        }
    }

    /// Counts, at the end, what no further line of its kind will count.
    pub(super) fn say_rest(&self) {
        let Self { wrong_key, refused, not_ours, silent, cut_short, replayed, .. } = self;
        let Self { unproved, crowded, limit, no_room, loops, .. } = self;
        let Self { no_session, target, aborted, truncated, .. } = self;
        let suppressed: u64 = [
            [wrong_key, refused, not_ours, silent, cut_short],
            [replayed, unproved, crowded, limit, no_room],
            [loops, no_session, target, aborted, truncated],
        ]
        .iter()
        .flatten()
        .map(|limit| limit.rest())
        .sum();
        if suppressed > 0 {
            warn!(suppressed, "further lines of connections were left out");
        }
    }

    /// The limit for lines of this kind, if they have one.
    pub(super) fn of(&self, close: &Close) -> Option<&LogLimit> {
        if !close.is_failure() {
            return None;
        }
        match close {
            Close::Stranger(stranger) => self.of_stranger(stranger),
            Close::Limit(_) => Some(&self.limit),
            Close::NoRoom(_) => Some(&self.no_room),
            // Both ends of one, which is told once.
            Close::Loop | Close::NoSession(NoSession::Loop) => Some(&self.loops),
            Close::NoSession(_) => Some(&self.no_session),
            Close::Target(_) => Some(&self.target),
            Close::Aborted(_) => Some(&self.aborted),
            Close::Truncated | Close::Tunnel(_) | Close::Record(_) | Close::Seal(_) => {
                Some(&self.truncated)
            }
            Close::Finished
            | Close::KeyReplaced
            | Close::Unused(_)
            | Close::Local(_)
            | Close::ShuttingDown => None,
        }
    }

    const fn of_stranger(&self, stranger: &Stranger) -> Option<&LogLimit> {
        Some(match stranger {
            Stranger::Probe => return None,
            Stranger::Refused(HandshakeError::WrongKey) => &self.wrong_key,
            Stranger::Refused(_) => &self.refused,
            Stranger::NotOurs(_) => &self.not_ours,
            Stranger::Silent(_) => &self.silent,
            Stranger::Stalled { .. } | Stranger::Cut(_) | Stranger::Failed(_) => &self.cut_short,
            Stranger::Replayed => &self.replayed,
            Stranger::Unproved(_) | Stranger::GaveUp | Stranger::Record(_) => &self.unproved,
            Stranger::Evicted | Stranger::NoPlace => &self.crowded,
        })
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
