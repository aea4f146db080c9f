//! By when something must be done.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// An absolute deadline: what a peer does in the meantime does not move it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// How long there was from the beginning, for the log.
    pub(crate) limit: Duration,
    /// `None` where the clock cannot count that far.
    at: Option<Instant>,
}

impl Deadline {
    /// A deadline that is so far from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self::after_since(Instant::now(), limit)
    }

    /// A deadline that is so far from then.
    pub(crate) fn after_since(then: Instant, limit: Duration) -> Self {
        Self { limit, at: then.checked_add(limit) }
    }

    /// What `work` comes to; `None` when the deadline is over before.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }
}
