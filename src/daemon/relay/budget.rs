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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    /// The numbers of the directions that moved, in order.
    type Log = Arc<Mutex<Vec<usize>>>;

    /// A small request.
    const SMALL: usize = usize::MAX;

    /// A direction with as much bulk as `budgets` let move.
    async fn bulk(number: usize, budgets: usize, log: Log) {
        let mut budget = Budget::new();
        let mut budgets = 0..budgets;
        poll_fn(|cx| {
            budget.begin();
            while !budgets.is_empty() {
                ready!(budget.poll_next(cx, Size::Large));
                log.lock().unwrap().push(number);
                budget.has_read(usize::MAX);
                budgets.next();
            }
            Poll::Ready(())
        })
        .await;
    }

    fn flows(count: usize, budgets: usize, log: &Log) -> Vec<JoinHandle<()>> {
        (0..count).map(|number| tokio::spawn(bulk(number, budgets, Arc::clone(log)))).collect()
    }

    /// However many flows have bulk, a small request waits for one budget of one of them.
    #[tokio::test]
    async fn one_budget_of_bulk_lies_between_two_looks_at_the_sockets() {
        let log = Log::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (is_over_too, log_too) = (Arc::clone(&is_over), Arc::clone(&log));
        let small = tokio::spawn(async move {
            while !is_over_too.load(Ordering::Relaxed) {
                log_too.lock().unwrap().push(SMALL);
                yield_now().await;
            }
        });
        for flow in flows(300, 3, &log) {
            flow.await.unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        small.await.unwrap();
        let log = log.lock().unwrap();
        assert_eq!(log.iter().filter(|&&who| who != SMALL).count(), 900);
        let most = log.split(|&who| who == SMALL).map(<[usize]>::len).max();
        assert_eq!(most, Some(1));
    }

    #[tokio::test]
    async fn flows_get_budgets_in_the_order_they_came() {
        let log = Log::default();
        for flow in flows(5, 4, &log) {
            flow.await.unwrap();
        }
        // The first flow found the lane free, and came again before the others did.
        let round = [0, 1, 2, 3, 4];
        let expected = [&[0], &round[..], &round, &round, &[1, 2, 3, 4]].concat();
        assert_eq!(*log.lock().unwrap(), expected);
    }

    /// A flow that ends while it waits, or does not come when it is called, stops no other.
    #[tokio::test]
    async fn the_lane_goes_on_when_flows_leave_it() {
        let flows = flows(20, 50, &Log::default());
        for _ in 0..10 {
            yield_now().await;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut never_comes = Budget::new();
        assert!(never_comes.poll(&mut cx, Size::Large).is_pending());
        // One of them is called, the others wait.
        let (ended, others) = flows.split_at(19);
        ended.iter().for_each(JoinHandle::abort);
        while !others.iter().all(JoinHandle::is_finished) {
            yield_now().await;
        }
        assert!(never_comes.poll(&mut cx, Size::Large).is_ready());
        LANE.with_borrow(|lane| assert!(lane.waiting.is_empty()));
    }

    /// A thread may go on with another runtime.
    #[test]
    fn the_lane_outlives_a_runtime() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let log = Log::default();
            runtime.block_on(async {
                for flow in flows(3, 2, &log) {
                    flow.await.unwrap();
                }
                // Left in the lane.
                drop(flows(3, 2, &log));
                yield_now().await;
            });
        }
    }

    #[tokio::test]
    async fn a_lone_flow_begins_at_once() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut budget = Budget::new();
        for _ in 0..3 {
            budget.begin();
            assert!(budget.poll_next(&mut cx, Size::Large).is_ready());
            budget.has_read(1);
            assert!(budget.poll_next(&mut cx, Size::Large).is_ready());
            // The end of this round, and the next one.
            yield_now().await;
            yield_now().await;
        }
    }

    /// Else a flow that had the lane once would never wait for it again.
    #[tokio::test]
    async fn a_budget_of_the_lane_lasts_for_one_poll() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (Budget::new(), Budget::new());
        assert!(first.poll(&mut cx, Size::Large).is_ready());
        assert!(second.poll(&mut cx, Size::Large).is_pending());
        assert!(first.poll(&mut cx, Size::Large).is_ready());
        first.begin();
        assert!(first.poll(&mut cx, Size::Large).is_pending());
    }

    #[tokio::test]
    async fn the_caller_sleeps_while_nothing_has_bulk() {
        for flow in flows(3, 2, &Log::default()) {
            flow.await.unwrap();
        }
        for _ in 0..10 {
            yield_now().await;
        }
        LANE.with_borrow(|lane| assert!(lane.wake_caller.is_some()));
    }

    /// With a byte in each record, a budget is over long before its bytes are.
    #[test]
    fn records_are_charged_for() {
        let mut budget = Budget::new();
        for _ in 1..RECORDS_OPENED {
            budget.has_opened();
        }
        assert!(budget.left > 0);
        budget.has_opened();
        assert_eq!(budget.left, 0);
    }
}
