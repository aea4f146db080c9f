//! Staying awake for a moment after a small read, since waking a core that
//! sleeps takes longer than all else that a short request costs.
//!
//! Measured: a 64-byte exchange takes 0.4 times as long where one follows
//! another. What makes it cost nothing elsewhere:
//!
//! - The core is offered to others each time that we ask: without
//!   `sched_yield` the slowest exchanges get slower.
//! - A wait in vain is followed by fewer: on sparse traffic soon one in
//!   [`SKIPPED_MAX`].
//! - One connection of a thread waits at a time: where there are many, there
//!   is something to do, and nobody sleeps.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::yield_now;

use crate::config::Waiting;

/// How long to stay awake for what comes next.
const WINDOW: Duration = Duration::from_micros(75);
/// From this many bytes on a read is part of a bulk, which needs no waiting.
const BULK: usize = 16 * 1024;
/// How many small reads at most are not waited after.
const SKIPPED_MAX: u32 = 256;

thread_local! {
    /// Whether a connection of this thread is staying awake.
    static IS_TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// What the directions of a connection tell of their reads.
pub(super) struct Awake {
    waiting: Waiting,
    has_moved: AtomicBool,
}

/// When to begin, and when to give up.
#[derive(Default)]
struct Window {
    open: Option<Alone>,
    /// How many small reads are still not waited after.
    skip: u32,
    /// How many that is after the next wait in vain; doubles with each.
    skip_next: u32,
}

/// The right to stay awake, and since when; of each thread there is one.
struct Alone(Instant);

impl Awake {
    pub(super) const fn new(waiting: Waiting) -> Self {
        Self { waiting, has_moved: AtomicBool::new(false) }
    }

    /// A direction has read so many bytes.
    pub(super) fn moved(&self, bytes: usize) {
        if self.waiting == Waiting::Awake && bytes < BULK {
            self.has_moved.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps the task awake while it pays; to be polled after the directions.
    pub(super) async fn keep(&self) -> Infallible {
        let mut window = Window::default();
        poll_fn(|context| {
            if self.has_moved.swap(false, Ordering::Relaxed) {
                window.moved();
            }
            if window.is_open() {
                thread::yield_now();
                wake_after_the_others(context);
            }
            Poll::Pending
        })
        .await
    }
}

impl Window {
    fn moved(&mut self) {
        match &mut self.open {
            Some(alone) => alone.0 = Instant::now(),
            None if self.skip > 0 => self.skip = self.skip.saturating_sub(1),
            None => self.open = Alone::take(),
        }
    }

    /// Whether to stay awake; `false` from the moment that it was in vain.
    fn is_open(&mut self) -> bool {
        if self.open.as_ref().is_some_and(|alone| alone.0.elapsed() >= WINDOW) {
            self.open = None;
            self.skip_next = self.skip_next.saturating_mul(2).clamp(1, SKIPPED_MAX);
            self.skip = self.skip_next;
        }
        self.open.is_some()
    }
}

impl Alone {
    fn take() -> Option<Self> {
        let is_first = !IS_TAKEN.replace(true);
        is_first.then(|| Self(Instant::now()))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        IS_TAKEN.set(false);
    }
}

/// Has the runtime poll the task again, once it has looked at all sockets.
fn wake_after_the_others(context: &mut Context<'_>) {
    let later = pin!(yield_now()).poll(context);
    debug_assert!(later.is_pending());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(window: &mut Window) -> bool {
        window.moved();
        window.is_open()
    }

    /// How many of so many small reads that nothing follows are waited after.
    fn waits(window: &mut Window, reads: usize) -> usize {
        let is_waited_after = |_: &usize| {
            let is_open = moved(window);
            while window.is_open() {}
            is_open
        };
        (0..reads).filter(is_waited_after).count()
    }

    #[test]
    fn it_lasts_as_long_as_something_moves_and_no_longer() {
        let mut window = Window::default();
        // Not all: another process may have had the core meanwhile.
        assert!((0..1000).filter(|_| moved(&mut window)).count() > 500);
        while window.is_open() {}
    }

    #[test]
    fn waits_in_vain_become_rare() {
        let mut window = Window::default();
        assert!(waits(&mut window, 20) >= 3);
        let later = waits(&mut window, 25_600);
        assert!((90..=110).contains(&later), "{later}");
    }

    #[test]
    fn one_of_a_thread_waits_at_a_time() {
        let one = Alone::take();
        assert!(one.is_some() && Alone::take().is_none());
        drop(one);
        assert!(Alone::take().is_some());
    }
}
