use super::*;
use std::collections::VecDeque;

fn from(address: &str) -> Option<IpAddr> {
    address.parse().ok()
}

fn with_slots(count: usize) -> Arc<PreAuthPool> {
    let pool = PreAuthPool::new(count + 1);
    assert_eq!((pool.max, pool.max_leaving), (count, 1));
    pool
}

fn is_evicted(slot: &PreAuthSlot) -> bool {
    let mut evicted = std::pin::pin!(slot.evicted());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    evicted.as_mut().poll(&mut cx).is_ready()
}

/// A peer that sends nothing, and comes when the grace period of all others is over.
fn silent(pool: &Arc<PreAuthPool>, text: &str) -> PreAuthSlot {
    let later = Instant::now() + 2 * GRACE;
    let slot = pool.try_enter(from(text), later).unwrap();
    slot.mark_reading();
    slot
}

#[test]
fn the_oldest_of_the_same_source_goes_first() {
    let pool = with_slots(4);
    let other = silent(&pool, "10.0.0.1");
    let first = silent(&pool, "10.0.0.2");
    let second = silent(&pool, "10.0.0.2");
    let third = silent(&pool, "10.0.0.2");
    assert_eq!([&other, &first, &second, &third].map(is_evicted), [false, true, false, false]);
}

#[test]
fn when_all_slots_are_taken_the_oldest_goes() {
    let pool = with_slots(4);
    let slots: Vec<PreAuthSlot> = (0..5).map(|i| silent(&pool, &format!("10.0.0.{i}"))).collect();
    let evicted: Vec<bool> = slots.iter().map(is_evicted).collect();
    assert_eq!(evicted, [true, false, false, false, false]);
}

#[test]
fn nobody_gives_way_before_its_moment_is_over() {
    let pool = with_slots(2);
    let next = from("10.0.0.1");
    let enters_at = |at: Instant| pool.try_enter(next, at).is_ok();
    let first = pool.try_enter(from("10.0.0.1"), Instant::now()).unwrap();
    let later = Instant::now() + GRACE;
    assert!(!enters_at(later), "nobody has looked yet at what it says");
    first.mark_unproved();
    assert!(!enters_at(later));
    first.mark_reading();
    assert!(!enters_at(Instant::now()));
    assert!(enters_at(Instant::now() + GRACE) && is_evicted(&first));
}

#[test]
fn who_has_greeted_goes_after_who_is_silent() {
    let pool = with_slots(2);
    let unproved = silent(&pool, "10.0.0.1");
    let silent_one = silent(&pool, "10.0.0.2");
    unproved.mark_unproved();
    let _next = silent(&pool, "10.0.0.3");
    assert_eq!([&unproved, &silent_one].map(is_evicted), [false, true]);
    drop(silent_one);
    let _later = silent(&pool, "10.0.0.3");
    assert!(!is_evicted(&unproved));
}

/// Strangers who replay recorded messages hold no slot for good, and a peer that has just
/// come keeps its slot.
#[test]
fn a_new_peer_stays_where_most_are_authenticated() {
    let pool = with_slots(8);
    let players: Vec<PreAuthSlot> = (0..7).map(|i| silent(&pool, &format!("10.0.0.{i}"))).collect();
    assert!(players.iter().all(PreAuthSlot::mark_unproved));
    let coming = silent(&pool, "10.0.1.1");
    let later = Instant::now() + (PROOF + 1) * GRACE;
    let next = pool.try_enter(from("10.0.1.2"), later).unwrap();
    assert!(is_evicted(&players[0]) && !is_evicted(&coming));
    drop((players, coming, next));
    let pool = pool.lock();
    assert_eq!((pool.unproved, pool.occupants.len(), pool.sources.len()), (0, 0, 0));
}

/// However small the pool, and however many strangers come.
#[test]
fn silent_strangers_keep_no_peer_waiting_for_long() {
    for max in [1, 8, 128, 4096] {
        let pool = PreAuthPool::new(max);
        let started = Instant::now();
        let mut now = started;
        let mut slots = VecDeque::new();
        for _ in 0..5000 {
            let slot = loop {
                if let Ok(slot) = pool.try_enter(from("10.0.0.1"), now) {
                    break slot;
                }
                now += RETRY;
            };
            pool.lock().occupants.last_entry().unwrap().get_mut().state = PeerState::Reading(now);
            slots.push_back(slot);
            let _left = slots.pop_front_if(|oldest| is_evicted(oldest));
        }
        let waited = now.duration_since(started);
        assert!(waited < 2 * GRACE, "{waited:?} with {max} slots");
    }
}

/// There are never more sockets than the pool is for.
#[test]
fn evicted_peers_are_waited_for() {
    let pool = with_slots(8);
    let mut slots: Vec<PreAuthSlot> = (0..4).map(|_| silent(&pool, "10.0.0.1")).collect();
    slots.push(silent(&pool, "10.0.0.1"));
    let next = from("10.0.0.1");
    let later = Instant::now() + 2 * GRACE;
    assert!(pool.try_enter(next, later).is_err());
    drop(slots.remove(0));
    assert!(pool.try_enter(next, later).is_ok());
}

#[test]
fn after_a_rush_the_grace_period_is_whole_again() {
    for max in [1, 4, 100] {
        let pool = PreAuthPool::new(max);
        let source = from("10.0.0.1");
        let mut rush = VecDeque::new();
        for _ in 0..2 * max {
            rush.push_back(silent(&pool, "10.0.0.1"));
            let _left = rush.pop_front_if(|oldest| is_evicted(oldest));
        }
        assert!(*pool.lock().grace_of(source) < GRACE);
        drop(rush);
        let _next = silent(&pool, "10.0.0.1");
        assert_eq!(*pool.lock().grace_of(source), GRACE);
    }
}

/// No peer of another source loses its slot sooner.
#[test]
fn a_rush_of_one_source_shortens_no_other_ones_grace_period() {
    let pool = with_slots(8);
    let mut rush = VecDeque::new();
    for _ in 0..1000 {
        rush.push_back(silent(&pool, "10.0.0.1"));
        let _left = rush.pop_front_if(|oldest| is_evicted(oldest));
    }
    assert_eq!(*pool.lock().grace_of(from("10.0.0.1")), Duration::ZERO);
    let _others: Vec<_> = (0..4).map(|_| silent(&pool, "10.0.0.2")).collect();
    let next = pool.try_enter(from("10.0.0.2"), Instant::now());
    assert_eq!(next.err(), Some(Full::Source("10.0.0.2".parse().unwrap())));
    let next = pool.try_enter(from("10.0.0.3"), Instant::now());
    assert_eq!(next.err(), Some(Full::All));
}

#[test]
fn slots_are_given_back() {
    let pool = with_slots(2);
    for _ in 0..10 {
        let slot = pool.try_enter(from("10.0.0.1"), Instant::now()).unwrap();
        assert!(!is_evicted(&slot));
    }
    let pool = pool.lock();
    assert!(pool.occupants.is_empty() && pool.sources.is_empty() && pool.leaving == 0);
}
