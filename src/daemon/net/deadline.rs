//! Deadlines.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// An absolute deadline, which nothing that a peer does can move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// The time limit that it was made from, for the log.
    pub(crate) limit: Duration,
    /// `None` where the clock cannot count that far.
    at: Option<Instant>,
}

impl Deadline {
    /// A deadline that is `limit` from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self::after_since(Instant::now(), limit)
    }

    /// A deadline that is `limit` after `then`.
    pub(crate) fn after_since(then: Instant, limit: Duration) -> Self {
        Self { limit, at: then.checked_add(limit) }
    }

    /// The output of `work`; `None` when the deadline is over first.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }
}
