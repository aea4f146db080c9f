//! An answer that several requests share, so that its cost does not grow with their number.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A value that is made again once it is too old. Requests that come meanwhile get the same.
pub(super) struct Shared<T> {
    good_for: Duration,
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T: Clone + Send + 'static> Shared<T> {
    pub(super) fn for_at_most(good_for: Duration) -> Self {
        Self { good_for, last: Arc::default() }
    }

    /// The last value, or the one that `make` makes now. It is made and kept even where the
    /// client that has asked for it is closed meanwhile.
    pub(super) async fn get(&self, make: impl Future<Output = T> + Send + 'static) -> T {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.good_for
        {
            return value.clone();
        }
        let task = tokio::spawn(async move {
            let value = make.await;
            *last = Some((Instant::now(), value.clone()));
            value
        });
        match task.await {
            Ok(value) => value,
            // The task is never aborted, so this is a mistake of ours, which goes on.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_value_is_made_again_when_it_is_too_old() {
        let never_good = Shared::for_at_most(Duration::ZERO);
        let always_good = Shared::for_at_most(Duration::from_hours(24));
        let mut told = Vec::new();
        for value in 1..=2 {
            told.push((
                never_good.get(async move { value }).await,
                always_good.get(async move { value }).await,
            ));
        }
        assert_eq!(told, [(1, 1), (2, 1)]);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_has_the_value_made_once_all_the_same() {
        let shared = Shared::for_at_most(Duration::from_mins(5));
        let made = Arc::new(AtomicUsize::new(0));
        let (go, gone) = oneshot::channel::<()>();
        let count = Arc::clone(&made);
        let slow = shared.get(async move {
            gone.await.unwrap();
            count.fetch_add(1, Ordering::Relaxed)
        });
        assert!(timeout(Duration::from_millis(20), slow).await.is_err());
        go.send(()).unwrap();
        let count = Arc::clone(&made);
        shared.get(async move { count.fetch_add(1, Ordering::Relaxed) }).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
