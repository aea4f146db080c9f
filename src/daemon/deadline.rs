//! By when something must be done.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// An absolute deadline: what a peer does in the meantime does not move it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// How long there was from the beginning, for the log.
    pub(super) limit: Duration,
    /// `None` where the clock cannot count that far.
    at: Option<Instant>,
}

impl Deadline {
    /// A deadline that is so far from now.
    pub(super) fn after(limit: Duration) -> Self {
        Self::after_since(Instant::now(), limit)
    }

    /// A deadline that is so far from then.
    pub(super) fn after_since(then: Instant, limit: Duration) -> Self {
        Self { limit, at: then.checked_add(limit) }
    }

    /// What `work` comes to; `None` when the deadline is over before.
    pub(super) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }
}
