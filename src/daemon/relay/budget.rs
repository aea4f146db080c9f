//! Turns: how long a direction may go on before the others of its thread do.
//!
//! The runtime polls tasks in the order in which they were woken, so a small
//! request that comes behind 300 flows with bulk would wait for a turn of each.
//! Therefore bulk goes through the thread's lane: of all flows that have bulk to
//! move only one has its turn in each round of the event loop, and whatever else
//! became ready goes first. A round is what lies between two looks at the sockets.
//!
//! ```text
//! flow has bulk ─ ticket ─ waits in the lane ─ called, one in each round ─ its turn
//!               └ nobody had a turn in this round, nobody waits ──────────┘
//! ```
//!
//! Who calls is a task of its own, [`call_one_each_round`], and no flow passes the
//! turn to the next one: so a flow that ends, waits for something else or panics
//! stops nobody. What is called and does not come only leaves a round without bulk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::{JoinHandle, yield_now};

use super::buffer::{RECORD_PLAINTEXT, Size};

/// How many bytes a direction moves in one turn. Half as many cost bulk about 5 %
/// more processor time, twice as many save 2 %; who is small waits for one turn at
/// each socket on the way.
const TURN: u32 = 512 * 1024;
/// How many records are opened in one turn: with a byte in each, opening takes
/// the time, not moving.
pub(crate) const RECORDS_OPENED: u32 = 512;

/// A direction's turns.
pub(crate) struct Budget {
    /// How many bytes may still be moved in this one.
    left: u32,
    /// Whether the lane has given it.
    is_of_lane: bool,
    /// The direction's number in the lane while it waits for the next.
    ticket: Option<usize>,
}

/// The flows of a thread that have bulk to move.
struct Lane {
    /// Those that wait, in the order they came.
    waiting: VecDeque<Waker>,
    /// The ticket of the first of them: all before it were called.
    first: usize,
    /// Whether a flow was given its turn in this round.
    is_taken: bool,
    caller: Option<JoinHandle<()>>,
    /// Wakes the caller, where it waits for the lane to be used.
    wake_caller: Option<Waker>,
}

thread_local! {
    static LANE: RefCell<Lane> = const { RefCell::new(Lane::new()) };
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { left: TURN, is_of_lane: false, ticket: None }
    }

    /// To be called at the beginning of each poll of the direction: a turn ends
    /// with the poll it was given in.
    pub(crate) const fn begin(&mut self) {
        self.left = TURN;
        self.is_of_lane = false;
    }

    /// Ready while the direction may move what a buffer of that size holds.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<()> {
        if self.ticket.is_none() && (self.is_of_lane || size == Size::Small) {
            return Poll::Ready(());
        }
        self.poll_lane(cx)
    }

    /// The same for what comes next, once a buffer was moved: ready as long as the
    /// turn is not used up.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<()> {
        if self.left > 0 {
            return self.poll(cx, size);
        }
        // This was the turn of the round, whoever has given it.
        LANE.with_borrow_mut(|lane| lane.is_taken |= self.ticket.is_none());
        self.poll_lane(cx)
    }

    fn poll_lane(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(LANE.with_borrow_mut(|lane| lane.poll(&mut self.ticket, cx)));
        self.left = TURN;
        self.is_of_lane = true;
        Poll::Ready(())
    }

    /// Charges a read. A small one costs about as much as one of 16 KiB.
    pub(crate) fn has_read(&mut self, bytes: usize) {
        self.charge(bytes.max(RECORD_PLAINTEXT).try_into().unwrap_or(TURN));
    }

    /// Charges a record that was opened, so that [`RECORDS_OPENED`] are a turn.
    pub(crate) fn has_opened(&mut self) {
        self.charge(TURN / RECORDS_OPENED);
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

    /// Whether a flow has its turn in this round, or waits for one.
    fn is_used(&self) -> bool {
        self.is_taken || !self.waiting.is_empty()
    }

    /// Ready when the flow with this ticket was called, or need not wait. Otherwise
    /// it has a ticket from now on.
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
        self.have_called();
        if is_used { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Sees to it that the next round is called.
    fn have_called(&mut self) {
        if self.caller.as_ref().is_none_or(JoinHandle::is_finished) {
            self.caller = Some(tokio::spawn(call_one_each_round()));
        } else if let Some(caller) = self.wake_caller.take() {
            caller.wake();
        }
    }

    /// A new round: calls the next flow.
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

/// The caller of a thread, which begins with the lane's first use and ends with
/// the runtime.
async fn call_one_each_round() {
    loop {
        poll_fn(|cx| LANE.with_borrow_mut(|lane| lane.poll_used(cx))).await;
        // Goes on when all that was ready is done, and the sockets were looked at.
        yield_now().await;
        LANE.with_borrow_mut(Lane::call_next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    /// Who had a turn, in order.
    type Log = Arc<Mutex<Vec<usize>>>;

    /// Something small, which has no number of a flow.
    const SMALL: usize = usize::MAX;

    /// Bulk that is always ready, for so many turns.
    async fn bulk(number: usize, turns: usize, log: Log) {
        let mut turn = Budget::new();
        let mut turns = 0..turns;
        poll_fn(|cx| {
            turn.begin();
            while !turns.is_empty() {
                ready!(turn.poll_next(cx, Size::Large));
                log.lock().unwrap().push(number);
                turn.has_read(usize::MAX);
                turns.next();
            }
            Poll::Ready(())
        })
        .await;
    }

    fn flows(count: usize, turns: usize, log: &Log) -> Vec<JoinHandle<()>> {
        (0..count).map(|number| tokio::spawn(bulk(number, turns, Arc::clone(log)))).collect()
    }

    /// However many have bulk, what is small waits for one turn of one of them.
    #[tokio::test]
    async fn one_turn_of_bulk_lies_between_two_looks_at_the_sockets() {
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
    async fn flows_have_their_turns_in_the_order_they_came() {
        let log = Log::default();
        for flow in flows(5, 4, &log) {
            flow.await.unwrap();
        }
        // The first found the lane free, and came again before the others did.
        let round = [0, 1, 2, 3, 4];
        let expected = [&[0], &round[..], &round, &round, &[1, 2, 3, 4]].concat();
        assert_eq!(*log.lock().unwrap(), expected);
    }

    /// A flow that ends while it waits, or does not come when it is called, stops
    /// nobody: no turn is passed from flow to flow.
    #[tokio::test]
    async fn the_lane_goes_on_whoever_leaves_it() {
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

    /// Its thread may go on with another.
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

    /// Where nobody else has bulk, nobody waits.
    #[tokio::test]
    async fn a_lone_flow_begins_at_once() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut turn = Budget::new();
        for _ in 0..3 {
            turn.begin();
            assert!(turn.poll_next(&mut cx, Size::Large).is_ready());
            turn.has_read(1);
            assert!(turn.poll_next(&mut cx, Size::Large).is_ready());
            // The next round, and the end of this one.
            yield_now().await;
            yield_now().await;
        }
    }

    /// With a byte in each, a turn is over long before its bytes are.
    #[test]
    fn records_are_charged_for() {
        let mut turn = Budget::new();
        for _ in 1..RECORDS_OPENED {
            turn.has_opened();
        }
        assert!(turn.left > 0);
        turn.has_opened();
        assert_eq!(turn.left, 0);
    }
}
