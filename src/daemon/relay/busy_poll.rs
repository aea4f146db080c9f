//! `--busy-poll`: the task stays awake for a moment after a small read. That helps where
//! waking a sleeping core takes longer than all else that a short request costs.
//!
//! What keeps the cost low:
//!
//! - Each poll offers the core to other programs.
//! - Where another program takes the core for long, the whole process stops polling for
//!   the next seconds: on a host with other work, `sched_yield` gives the core away for
//!   milliseconds, while a process that sleeps is woken soon.
//! - After a wait in vain, fewer reads are waited after: on sparse traffic soon one in
//!   [`SKIPPED_MAX`]. Only a long run of reads makes up for it.
//! - A wait ends, and the next one is far away, when another connection of the thread
//!   reads something: with many connections, the thread has enough to do.
//!
//! # Why it is not the default
//!
//! Busy polling helps on an idle host whose cores wake slowly (64 bytes there and back in
//! 0.4 of the time), and that has more cores than processes that wait for each other. With
//! cores that wake fast the median is the same, and the slowest of a thousand take 20 times
//! as long. Beside two busy loops on two cores the median went from 60 µs to 4 ms. Giving
//! up early keeps the median, but not the slowest. That was tried after a long
//! `sched_yield`, after any involuntary switch, and, without yielding, after a gap between
//! two polls. `scripts/bench --only busy` measures it.

use std::cell::Cell;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};
use std::{mem, thread};

use tokio::task::yield_now;

use crate::config::BusyPoll;

/// How long a wait lasts without a further read.
const WINDOW: Duration = Duration::from_micros(75);
/// A read of this many bytes or more is bulk, and is not waited after.
const BULK: usize = 16 * 1024;
/// The most small reads that are skipped: not waited after.
const SKIPPED_MAX: u32 = 256;
/// How many small reads are skipped after another connection has read something.
const SKIPPED_IN_A_CROWD: u32 = 4096;
/// How many reads in one wait make up for its end; also how many small reads a connection
/// skips before its first wait, so that a short connection never waits. A request and its
/// answer are two reads.
const RUN: u32 = 16;
/// Offering the core takes longer than this only where another program takes it.
const CORE_LOST: Duration = Duration::from_micros(50);
/// How long no connection of the process polls then.
const CORE_LOST_PAUSE: Duration = Duration::from_secs(10);

/// The pause of the whole process.
static PAUSE: Pause = Pause(AtomicU64::new(0));

thread_local! {
    /// How often connections of this thread have read.
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// The busy polling of a connection.
pub(crate) struct BusyPoller {
    /// Whether a direction has made a small read since the last [`BusyPoller::keep`].
    has_moved: bool,
    /// `None` without the option; boxed so that most connections need no space for it.
    window: Option<Box<Window>>,
}

/// When to wait, and when to give up.
struct Window {
    last_read: Option<LastRead>,
    /// How many small reads are still to be skipped.
    skip: u32,
    /// How many small reads were skipped after the last wait in vain; doubles with each.
    skip_next: u32,
}

/// The last read of a wait.
struct LastRead {
    at: Instant,
    /// The reads of the thread, this one included.
    reads: u64,
    /// The reads of this wait before this one.
    run: u32,
}

impl BusyPoller {
    pub(crate) fn new(busy_poll: BusyPoll) -> Self {
        let window = (busy_poll == BusyPoll::On).then(|| Box::new(Window::new()));
        Self { has_moved: false, window }
    }

    /// Notes a read of a direction.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if self.window.is_some() {
            READS.set(READS.get().wrapping_add(1));
            self.has_moved = bytes < BULK;
        }
    }

    /// Keeps the task awake while a wait lasts; to be called after the directions are
    /// polled.
    pub(crate) fn keep(&mut self, cx: &mut Context<'_>) {
        let Some(window) = &mut self.window else { return };
        if mem::take(&mut self.has_moved) {
            window.moved();
        }
        if window.is_awaited() && !PAUSE.lasts(Instant::now()) {
            let before = Instant::now();
            thread::yield_now();
            PAUSE.core_was_away(before.elapsed());
            wake_after_the_others(cx);
        }
    }
}

/// Has the runtime poll the task again after it has looked at all sockets.
fn wake_after_the_others(cx: &mut Context<'_>) {
    let later = pin!(yield_now()).poll(cx);
    debug_assert!(later.is_pending());
}

/// A pause: its end, in milliseconds since the first use.
struct Pause(AtomicU64);

impl Pause {
    fn millis(at: Instant) -> u64 {
        static FIRST_USE: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since = at.saturating_duration_since(*FIRST_USE);
        since.as_millis().try_into().unwrap_or(u64::MAX)
    }

    fn lasts(&self, now: Instant) -> bool {
        Self::millis(now) < self.0.load(Ordering::Relaxed)
    }

    /// Begins the pause if the core was away for too long.
    fn core_was_away(&self, away: Duration) {
        if away > CORE_LOST {
            let now = Self::millis(Instant::now());
            let pause = CORE_LOST_PAUSE.as_millis().try_into().unwrap_or(u64::MAX);
            self.0.store(now.saturating_add(pause), Ordering::Relaxed);
        }
    }
}

impl Window {
    const fn new() -> Self {
        Self { last_read: None, skip: RUN, skip_next: 0 }
    }

    fn moved(&mut self) {
        if self.last_read.is_none() && self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return;
        }
        let run = self.last_read.as_ref().map_or(0, |last| last.run.saturating_add(1));
        self.last_read = Some(LastRead { at: Instant::now(), reads: READS.get(), run });
    }

    /// Whether a wait lasts. Ends it when it was in vain.
    fn is_awaited(&mut self) -> bool {
        let Some(last) = &self.last_read else { return false };
        if last.reads != READS.get() {
            self.skip = SKIPPED_IN_A_CROWD;
        } else if last.at.elapsed() < WINDOW {
            return true;
        } else if last.run >= RUN {
            self.skip_next = 0;
        } else {
            self.skip_next = self.skip_next.saturating_mul(2).clamp(1, SKIPPED_MAX);
            self.skip = self.skip_next;
        }
        self.last_read = None;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Wake;

    fn moved(window: &mut Window) -> bool {
        window.moved();
        window.is_awaited()
    }

    /// How many of `reads` small reads, each with nothing behind it, are waited after.
    fn waits(window: &mut Window, reads: usize) -> usize {
        let is_waited_after = |_: &usize| {
            let is_awaited = moved(window);
            while window.is_awaited() {}
            is_awaited
        };
        (0..reads).filter(is_waited_after).count()
    }

    #[test]
    fn it_lasts_as_long_as_something_moves_and_no_longer() {
        let mut window = Window::new();
        // Not all of them: another process may have had the core meanwhile.
        assert!((0..1000).filter(|_| moved(&mut window)).count() > 500);
        while window.is_awaited() {}
    }

    #[test]
    fn waits_in_vain_become_rare() {
        let mut window = Window::new();
        assert_eq!(waits(&mut window, 16), 0);
        assert!(waits(&mut window, 20) >= 3);
        let later = waits(&mut window, 25_600);
        assert!((90..=110).contains(&later), "{later}");
    }

    #[test]
    fn nothing_stays_awake_once_another_program_had_the_core() {
        let pause = Pause(AtomicU64::new(0));
        let now = Instant::now();
        pause.core_was_away(CORE_LOST);
        assert!(!pause.lasts(now));
        pause.core_was_away(CORE_LOST * 2);
        assert!(pause.lasts(Instant::now()));
        assert!(!pause.lasts(now + 2 * CORE_LOST_PAUSE));
    }

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Wakes(AtomicU64);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_stays_awake_after_a_small_read_and_not_in_a_pause() {
        let count = Arc::new(Wakes::default());
        let waker = Arc::clone(&count).into();
        let mut cx = Context::from_waker(&waker);
        let mut poller = BusyPoller::new(BusyPoll::On);
        poller.keep(&mut cx);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        let mut read = || {
            poller.moved(1);
            poller.keep(&mut cx);
            count.0.load(Ordering::Relaxed)
        };
        // Not the first time: another process may have had the core meanwhile.
        assert!((0..100_000).any(|_| read() > 0));
        PAUSE.core_was_away(CORE_LOST * 2);
        let before = read();
        assert!((0..1000).all(|_| read() == before));
    }

    #[test]
    fn bulk_is_not_waited_after() {
        let mut poller = BusyPoller::new(BusyPoll::On);
        for (bytes, is_small) in [(1, true), (BULK - 1, true), (BULK, false), (1 << 20, false)] {
            poller.moved(bytes);
            assert_eq!(poller.has_moved, is_small, "{bytes}");
        }
    }

    #[test]
    fn it_is_over_when_another_connection_reads() {
        let mut window = Window::new();
        while !moved(&mut window) {}
        BusyPoller::new(BusyPoll::On).moved(1);
        assert!(!window.is_awaited());
    }
}
