//! `--busy-poll`: staying awake for a moment after a small read, where waking a core
//! that sleeps takes longer than all else that a short request costs.
//!
//! What keeps the cost low:
//!
//! - The core is offered to others each time that we ask.
//! - Where another program then has it for long, the whole process sleeps at once
//!   for the next seconds: on a host with other work `sched_yield` gives the core
//!   away for milliseconds, while who sleeps is woken soon.
//! - A wait in vain is followed by fewer: on sparse traffic soon one in
//!   [`SKIPPED_MAX`]. Only a long run of reads makes up for one.
//! - It is over, and for long, when another connection of the thread reads
//!   something: where there are many, there is something to do.
//!
//! # Why it is no default
//!
//! It helps on a host that is idle, whose cores wake slowly (64 bytes there and
//! back in 0.4 of the time) and that has more of them than processes which wait for
//! each other. With a core that wakes fast the median is the same, and the slowest
//! of a thousand take 20 times as long. Beside two busy loops on two cores the median
//! went from 60 µs to 4 ms. Giving up keeps the median, but not the slowest: neither
//! after a long `sched_yield`, nor after any involuntary switch, nor without yielding
//! at all, giving up after a gap between two looks. `scripts/bench --only busy` tells.

use std::cell::Cell;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};
use std::{mem, thread};

use tokio::task::yield_now;

use crate::config::BusyPoll;

/// How long to stay awake for what comes next.
const WINDOW: Duration = Duration::from_micros(75);
/// From this many bytes on a read is part of a bulk, which needs no waiting.
const BULK: usize = 16 * 1024;
/// How many small reads at most are not waited after.
const SKIPPED_MAX: u32 = 256;
/// How many are not, once another connection was there.
const SKIPPED_IN_A_CROWD: u32 = 4096;
/// How many reads of one wait make up for its end, and how many small ones a
/// connection has behind it before its first wait: short ones never wait. A
/// request and its answer alone are two.
const RUN: u32 = 16;
/// Offering the core takes longer than this only where another program takes it.
const CORE_LOST: Duration = Duration::from_micros(50);
/// How long nothing in the process stays awake then.
const CORE_LOST_PAUSE: Duration = Duration::from_secs(10);

/// Until when nothing stays awake.
static PAUSE: Pause = Pause(AtomicU64::new(0));

thread_local! {
    /// How often connections of this thread have read.
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// What the directions of a connection tell of their reads.
pub(crate) struct BusyPoller {
    /// Whether one has read little since it was last asked.
    has_moved: bool,
    /// None without the option, which is so for most: they need no room for it.
    window: Option<Box<Window>>,
}

/// When to begin, and when to give up.
struct Window {
    open: Option<Since>,
    /// How many small reads are still not waited after.
    skip: u32,
    /// How many that is after the next wait in vain; doubles with each.
    skip_next: u32,
}

/// The last read: when it was, which of the thread's, and which of this wait.
struct Since {
    at: Instant,
    reads: u64,
    run: u32,
}

impl BusyPoller {
    pub(crate) fn new(busy_poll: BusyPoll) -> Self {
        let window = (busy_poll == BusyPoll::On).then(|| Box::new(Window::new()));
        Self { has_moved: false, window }
    }

    /// A direction has read so many bytes.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if self.window.is_some() {
            READS.set(READS.get().wrapping_add(1));
            self.has_moved = bytes < BULK;
        }
    }

    /// Keeps the task awake while it pays; to be called after the directions.
    pub(crate) fn keep(&mut self, cx: &mut Context<'_>) {
        let Some(window) = &mut self.window else { return };
        if mem::take(&mut self.has_moved) {
            window.moved();
        }
        if window.is_open() && !PAUSE.lasts(Instant::now()) {
            let before = Instant::now();
            thread::yield_now();
            PAUSE.core_was_away(before.elapsed());
            wake_after_the_others(cx);
        }
    }
}

/// Has the runtime poll the task again, once it has looked at all sockets.
fn wake_after_the_others(cx: &mut Context<'_>) {
    let later = pin!(yield_now()).poll(cx);
    debug_assert!(later.is_pending());
}

/// Its end, in milliseconds since the first use of it.
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

    /// Begins where that was too long.
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
        Self { open: None, skip: RUN, skip_next: 0 }
    }

    fn moved(&mut self) {
        if self.open.is_none() && self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            return;
        }
        let run = self.open.as_ref().map_or(0, |since| since.run.saturating_add(1));
        self.open = Some(Since { at: Instant::now(), reads: READS.get(), run });
    }

    /// Whether to stay awake; `false` from the moment that it was in vain.
    fn is_open(&mut self) -> bool {
        let Some(since) = &self.open else { return false };
        if since.reads != READS.get() {
            self.skip = SKIPPED_IN_A_CROWD;
        } else if since.at.elapsed() < WINDOW {
            return true;
        } else if since.run >= RUN {
            self.skip_next = 0;
        } else {
            self.skip_next = self.skip_next.saturating_mul(2).clamp(1, SKIPPED_MAX);
            self.skip = self.skip_next;
        }
        self.open = None;
        false
    }
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
        let mut window = Window::new();
        // Not all: another process may have had the core meanwhile.
        assert!((0..1000).filter(|_| moved(&mut window)).count() > 500);
        while window.is_open() {}
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

    #[test]
    fn it_is_over_when_another_connection_reads() {
        let mut window = Window::new();
        while !moved(&mut window) {}
        BusyPoller::new(BusyPoll::On).moved(1);
        assert!(!window.is_open());
    }
}
