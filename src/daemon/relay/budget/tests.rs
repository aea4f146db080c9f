//! Tests of who has a turn, and for how long.

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
