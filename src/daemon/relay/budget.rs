//! Budgets: how much a direction may move before the other directions of its thread do.
//!
//! The runtime polls tasks in the order in which they were woken. A small request that
//! comes behind 300 directions with bulk would wait for a whole budget of each. Therefore
//! bulk goes through the thread's lane: of all directions with bulk to move, only one
//! gets a budget in each round of the event loop, and all other ready tasks go first. A
//! round is the time between two looks at the sockets.
//!
//! ```text
//! direction has bulk ─ ticket ─ waits in the lane ─ called, one in each round ─ budget
//!                    └ no budget was given in this round, none waits ─────────┘
//! ```
//!
//! The caller is a task of its own, [`call_one_each_round`], and no direction passes the
//! lane on to the next one. So a direction that ends, waits for something else or panics
//! stops no other. If a called direction does not come, its round is without bulk.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::{JoinHandle, yield_now};

use super::buffer::{RECORD_PLAINTEXT, Size};

/// How many bytes a direction may move at once. Half as many cost bulk about 5 % more
/// processor time, twice as many save 2 %. A small request waits for one budget at each
/// socket on the way.
const BUDGET: u32 = 512 * 1024;
/// How many records a budget lets open: with a byte in each, opening takes the time, not
/// moving.
pub(crate) const RECORDS_OPENED: u32 = 512;

/// The budget of a direction.
pub(crate) struct Budget {
    /// How many bytes may still be moved.
    left: u32,
    /// Whether the lane has given the budget.
    is_of_lane: bool,
    /// The direction's number in the lane while it waits there.
    ticket: Option<usize>,
}

/// The queue of a thread's directions with bulk to move.
struct Lane {
    /// The directions that wait, in the order in which they came.
    waiting: VecDeque<Waker>,
    /// The ticket of the first direction that waits; all earlier ones were called.
    first: usize,
    /// Whether a direction was given a budget in this round.
    is_taken: bool,
    caller: Option<JoinHandle<()>>,
    /// Wakes the caller when the lane is used again.
    wake_caller: Option<Waker>,
}

thread_local! {
    static LANE: RefCell<Lane> = const { RefCell::new(Lane::new()) };
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { left: BUDGET, is_of_lane: false, ticket: None }
    }

    /// To be called at the beginning of each poll of the direction: a budget lasts for one
    /// poll.
    pub(crate) const fn begin(&mut self) {
        self.left = BUDGET;
        self.is_of_lane = false;
    }

    /// Ready if the direction may move the content of a buffer of that size.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<()> {
        if self.ticket.is_none() && (self.is_of_lane || size == Size::Small) {
            return Poll::Ready(());
        }
        self.poll_lane(cx)
    }

    /// Ready if the direction may go on with the next buffer, of that size: while the
    /// budget is not used up.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<()> {
        if self.left > 0 {
            return self.poll(cx, size);
        }
        // What was moved counts as this round's bulk, even if the lane did not give it.
        LANE.with_borrow_mut(|lane| lane.is_taken |= self.ticket.is_none());
        self.poll_lane(cx)
    }

    fn poll_lane(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(LANE.with_borrow_mut(|lane| lane.poll(&mut self.ticket, cx)));
        self.left = BUDGET;
        self.is_of_lane = true;
        Poll::Ready(())
    }

    /// Charges a read. A small read costs about as much as one of 16 KiB.
    pub(crate) fn has_read(&mut self, bytes: usize) {
        self.charge(bytes.max(RECORD_PLAINTEXT).try_into().unwrap_or(BUDGET));
    }

    /// Charges a record that was opened, so that [`RECORDS_OPENED`] use up a budget.
    pub(crate) fn has_opened(&mut self) {
        self.charge(BUDGET / RECORDS_OPENED);
    }

    fn charge(&mut self, bytes: u32) {
        self.left = self.left.saturating_sub(bytes);
    }
}

impl Lane {
    const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            first: 0,
            is_taken: false,
            caller: None,
            wake_caller: None,
        }
    }

    /// Whether a direction has this round's budget, or waits for one.
    fn is_used(&self) -> bool {
        self.is_taken || !self.waiting.is_empty()
    }

    /// Ready when the direction with this ticket was called, or need not wait. Otherwise
    /// the direction has a ticket from now on.
    fn poll(&mut self, ticket: &mut Option<usize>, cx: &Context<'_>) -> Poll<()> {
        if let Some(number) = *ticket {
            if let Some(waiting) = self.waiting.get_mut(number.wrapping_sub(self.first)) {
                waiting.clone_from(cx.waker());
                return Poll::Pending;
            }
            *ticket = None;
            return Poll::Ready(());
        }
        let is_used = self.is_used();
        if is_used {
            *ticket = Some(self.first.wrapping_add(self.waiting.len()));
            self.waiting.push_back(cx.waker().clone());
        }
        self.is_taken = true;
        self.start_caller();
        if is_used { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Makes sure that the caller runs.
    fn start_caller(&mut self) {
        if self.caller.as_ref().is_none_or(JoinHandle::is_finished) {
            self.caller = Some(tokio::spawn(call_one_each_round()));
        } else if let Some(caller) = self.wake_caller.take() {
            caller.wake();
        }
    }

    /// Begins a new round: calls the next direction.
    fn call_next(&mut self) {
        let next = self.waiting.pop_front();
        self.is_taken = next.is_some();
        if let Some(next) = next {
            self.first = self.first.wrapping_add(1);
            next.wake();
        }
    }

    fn poll_used(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_used() {
            return Poll::Ready(());
        }
        self.wake_caller = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The caller of a thread, which starts when the lane is first used and ends with the
/// runtime.
async fn call_one_each_round() {
    loop {
        poll_fn(|cx| LANE.with_borrow_mut(|lane| lane.poll_used(cx))).await;
        // Goes on when all ready tasks have run, and the sockets were looked at.
        yield_now().await;
        LANE.with_borrow_mut(Lane::call_next);
    }
}
