//! Places for peers that have not proved the key: a pool of their own, so that
//! they take none from those who have.
//!
//! When all places are taken, or all that one source address may have, one
//! peer gives up its own to the next: of those whose first message has not
//! come the one that has been waiting longest, else of the others. Each keeps
//! its place for a moment, though: many keyed peers at once, which are one
//! source if a single sender makes them, must not take the places from each
//! other. Until somebody's moment is over, the next is not let in.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::stream::Peer;

/// How long a peer keeps its place, at least, that says nothing; twice as long
/// once its first message fits a key. Each one that has to go shortens it for
/// the next, so that however many strangers come, who is behind them waits no
/// longer than about 1.6 times this.
const MOMENT: Duration = Duration::from_millis(300);
/// How soon it is looked again for somebody whose moment is over.
const RETRY: Duration = Duration::from_millis(1);

/// The pool.
pub(super) struct Strangers {
    waiting: Mutex<Waiting>,
    max: usize,
    max_per_source: usize,
    /// How many may be on their way out; beside the places.
    max_leaving: usize,
}

/// A place in the pool, given back when dropped: after the peer's socket.
pub(super) struct Place {
    pool: Arc<Strangers>,
    number: u64,
    evicted: Arc<Notify>,
}

struct Waiting {
    /// Oldest first.
    queue: VecDeque<Entry>,
    per_source: HashMap<IpAddr, usize>,
    next_number: u64,
    /// Peers that have lost their place, and whose sockets are still open.
    leaving: usize,
    /// `MOMENT`, or what is left of it.
    moment: Duration,
}

struct Entry {
    number: u64,
    source: Option<IpAddr>,
    state: State,
    evicted: Arc<Notify>,
}

/// How far a peer has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has looked yet at what it says.
    Fresh,
    /// It has not said its first message.
    Silent(Instant),
    /// Its first message fits a key.
    Greeted(Instant),
}

impl Strangers {
    /// A pool for `max` sockets, of whose places one source address may have
    /// half.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let max_leaving = (max / 8).max(1);
        let max = max.saturating_sub(max_leaving).max(1);
        let waiting = Waiting {
            queue: VecDeque::new(),
            per_source: HashMap::new(),
            next_number: 0,
            leaving: 0,
            moment: MOMENT,
        };
        let max_per_source = max.div_ceil(2);
        Arc::new(Self { waiting: waiting.into(), max, max_per_source, max_leaving })
    }

    /// Takes a place, from another stranger if need be, as soon as there is
    /// one to be had.
    pub(super) async fn enter(self: &Arc<Self>, peer: &Peer) -> Place {
        loop {
            if let Some(place) = self.try_enter(peer, Instant::now()) {
                return place;
            }
            sleep(RETRY).await;
        }
    }

    fn try_enter(self: &Arc<Self>, peer: &Peer, now: Instant) -> Option<Place> {
        let source = source(peer);
        let mut waiting = self.lock();
        // The rush is over.
        if waiting.queue.len() < self.max_per_source.div_ceil(2) {
            waiting.moment = MOMENT;
        }
        let of_source = source.and_then(|ip| waiting.per_source.get(&ip)).copied().unwrap_or(0);
        let is_full = waiting.queue.len() >= self.max;
        let has_room = if of_source >= self.max_per_source {
            waiting.evict(self, now, |entry| entry.source == source)
        } else {
            !is_full || waiting.evict(self, now, |_| true)
        };
        has_room.then(|| waiting.admit(self, source))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing here panics half-way; a panic elsewhere must not end this.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn admit(&mut self, pool: &Arc<Strangers>, source: Option<IpAddr>) -> Place {
        let evicted = Arc::new(Notify::new());
        self.next_number = self.next_number.wrapping_add(1);
        let number = self.next_number;
        let entry = Entry { number, source, state: State::Fresh, evicted: Arc::clone(&evicted) };
        self.queue.push_back(entry);
        if let Some(ip) = source {
            let count = self.per_source.entry(ip).or_default();
            *count = count.saturating_add(1);
        }
        Place { pool: Arc::clone(pool), number, evicted }
    }

    /// Frees the place of one whose moment is over; whether there was one, and
    /// not too many are leaving already.
    fn evict(&mut self, pool: &Strangers, now: Instant, among: impl Fn(&Entry) -> bool) -> bool {
        if self.leaving >= pool.max_leaving {
            return false;
        }
        let moment = self.moment;
        let is_silent_too_long = |entry: &Entry| match entry.state {
            State::Silent(since) => now.duration_since(since) >= moment,
            State::Fresh | State::Greeted(_) => false,
        };
        let is_late = |entry: &Entry| match entry.state {
            State::Greeted(since) => now.duration_since(since) >= moment.saturating_mul(2),
            State::Fresh | State::Silent(_) => false,
        };
        let evicted = self
            .remove(|entry| among(entry) && is_silent_too_long(entry))
            .or_else(|| self.remove(|entry| among(entry) && is_late(entry)));
        let Some(entry) = evicted else { return false };
        entry.evicted.notify_one();
        self.leaving = self.leaving.saturating_add(1);
        let turn = u32::try_from(pool.max_per_source).unwrap_or(u32::MAX);
        let shorter = moment.saturating_sub(moment.checked_div(turn).unwrap_or(moment));
        self.moment = if shorter < RETRY { Duration::ZERO } else { shorter };
        true
    }

    fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let index = self.queue.iter().position(which)?;
        let entry = self.queue.remove(index)?;
        if let Some(ip) = entry.source
            && let Some(count) = self.per_source.get_mut(&ip)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_source.remove(&ip);
            }
        }
        Some(entry)
    }
}

impl Place {
    /// It is looked from now on at what the peer says.
    pub(super) fn is_heard(&self) {
        self.set(State::Silent(Instant::now()));
    }

    /// The peer's first message fits a key.
    pub(super) fn has_greeted(&self) {
        self.set(State::Greeted(Instant::now()));
    }

    fn set(&self, state: State) {
        let mut waiting = self.pool.lock();
        // They are in order. One that was evicted is not there any more.
        if let Ok(index) = waiting.queue.binary_search_by_key(&self.number, |entry| entry.number)
            && let Some(entry) = waiting.queue.get_mut(index)
        {
            entry.state = state;
        }
    }

    /// Waits until the place has been given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.pool.lock();
        if waiting.remove(|entry| entry.number == self.number).is_none() {
            waiting.leaving = waiting.leaving.saturating_sub(1);
        }
    }
}

/// What counts as one source: an IPv4 address, an IPv6 network of 64 bits
/// (what a single customer is given). Unix sockets are guarded by their mode.
fn source(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Unix => None,
        Peer::Inet(address) => Some(match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from(network))
            }
        }),
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail that way")]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Inet(text.parse().unwrap())
    }

    fn with_places(count: usize) -> Arc<Strangers> {
        let pool = Strangers::new(count + 1);
        assert_eq!((pool.max, pool.max_leaving), (count, 1));
        pool
    }

    fn is_evicted(place: &Place) -> bool {
        let mut evicted = std::pin::pin!(place.evicted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        evicted.as_mut().poll(&mut context).is_ready()
    }

    /// One that says nothing; it enters when the moment of all others is over.
    fn silent(pool: &Arc<Strangers>, text: &str) -> Place {
        let later = Instant::now() + 2 * MOMENT;
        let place = pool.try_enter(&peer(text), later).unwrap();
        place.is_heard();
        place
    }

    #[test]
    fn the_oldest_of_the_same_source_goes_first() {
        let pool = with_places(4);
        let other = silent(&pool, "10.0.0.1:1");
        let first = silent(&pool, "10.0.0.2:1");
        let second = silent(&pool, "10.0.0.2:2");
        let third = silent(&pool, "10.0.0.2:3");
        assert_eq!([&other, &first, &second, &third].map(is_evicted), [false, true, false, false]);
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_goes() {
        let pool = with_places(4);
        let places: Vec<Place> = (0..5).map(|i| silent(&pool, &format!("10.0.0.{i}:1"))).collect();
        let evicted: Vec<bool> = places.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false, false]);
    }

    #[test]
    fn nobody_gives_way_before_its_moment_is_over() {
        let pool = with_places(2);
        let next = peer("10.0.0.1:2");
        let enters_at = |at: Instant| pool.try_enter(&next, at).is_some();
        let first = pool.try_enter(&peer("10.0.0.1:1"), Instant::now()).unwrap();
        let later = Instant::now() + MOMENT;
        assert!(!enters_at(later), "nobody has looked yet at what it says");
        first.has_greeted();
        assert!(!enters_at(later));
        first.is_heard();
        assert!(!enters_at(Instant::now()));
        assert!(enters_at(Instant::now() + MOMENT) && is_evicted(&first));
    }

    #[test]
    fn who_has_greeted_goes_after_who_is_silent() {
        let pool = with_places(2);
        let greeted = silent(&pool, "10.0.0.1:1");
        let silent_one = silent(&pool, "10.0.0.2:1");
        greeted.has_greeted();
        let _next = silent(&pool, "10.0.0.3:1");
        assert_eq!([&greeted, &silent_one].map(is_evicted), [false, true]);
        drop(silent_one);
        let _later = silent(&pool, "10.0.0.3:2");
        assert!(!is_evicted(&greeted));
    }

    /// However small the pool, and however many they are.
    #[test]
    fn silent_strangers_keep_nobody_waiting_for_long() {
        for max in [1, 8, 128, 4096] {
            let pool = Strangers::new(max);
            let started = Instant::now();
            let mut now = started;
            let mut places = VecDeque::new();
            for _ in 0..5000 {
                let place = loop {
                    if let Some(place) = pool.try_enter(&peer("10.0.0.1:1"), now) {
                        break place;
                    }
                    now += RETRY;
                };
                pool.lock().queue.back_mut().unwrap().state = State::Silent(now);
                places.push_back(place);
                let _left = places.pop_front_if(|oldest| is_evicted(oldest));
            }
            let waited = now.duration_since(started);
            assert!(waited < 2 * MOMENT, "{waited:?} with {max} places");
        }
    }

    /// So that there are never more sockets than the pool is for.
    #[test]
    fn who_has_to_go_is_waited_for() {
        let pool = with_places(8);
        let mut places: Vec<Place> = (0..4).map(|_| silent(&pool, "10.0.0.1:1")).collect();
        places.push(silent(&pool, "10.0.0.1:1"));
        let next = peer("10.0.0.1:1");
        let later = Instant::now() + 2 * MOMENT;
        assert!(pool.try_enter(&next, later).is_none());
        drop(places.remove(0));
        assert!(pool.try_enter(&next, later).is_some());
    }

    #[test]
    fn after_a_rush_there_is_a_whole_moment_again() {
        for max in [1, 4, 100] {
            let pool = Strangers::new(max);
            let mut rush = VecDeque::new();
            for _ in 0..2 * max {
                rush.push_back(silent(&pool, "10.0.0.1:1"));
                let _left = rush.pop_front_if(|oldest| is_evicted(oldest));
            }
            assert!(pool.lock().moment < MOMENT);
            drop(rush);
            let _next = silent(&pool, "10.0.0.1:1");
            assert_eq!(pool.lock().moment, MOMENT);
        }
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let pool = with_places(2);
        for _ in 0..10 {
            let place = pool.enter(&peer("10.0.0.1:1")).await;
            assert!(!is_evicted(&place));
        }
        let waiting = pool.lock();
        assert!(waiting.queue.is_empty() && waiting.per_source.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_source() {
        assert_eq!(source(&peer("[2001:db8::1]:1")), source(&peer("[2001:db8::2]:1")));
        assert_ne!(source(&peer("[2001:db8::1]:1")), source(&peer("[2001:db8:0:1::1]:1")));
        assert_eq!(source(&peer("[::ffff:10.0.0.1]:1")), source(&peer("10.0.0.1:1")));
    }
}
