//! Places for peers that have not proved the key: a pool of their own, so that
//! they take none from those who have.
//!
//! When all places are taken, or all that one source address may have, one
//! peer gives up its own to the next: of those whose first message has not
//! come the one that has been waiting longest, else of the others; the other way
//! round where the others have more than half of the places, as those have who play
//! recorded messages: else whoever is just coming would have to go. Each keeps
//! its place for a moment, though: many keyed peers at once, which are one
//! source if a single sender makes them, must not take the places from each
//! other. Until somebody's moment is over, there is no place for the next.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a peer keeps its place, at least, that says nothing; twice as long
/// once its first message fits a key. Each one that has to go shortens it for
/// the next, so that however many strangers come, who is behind them waits no
/// longer than about 1.6 times this.
const MOMENT: Duration = Duration::from_millis(300);
/// The retry interval while there is no place.
pub(super) const RETRY: Duration = Duration::from_millis(1);

/// The pool.
pub(super) struct Strangers {
    pool: Mutex<Pool>,
    max: usize,
    max_per_source: usize,
    /// How many may be on their way out; beside the places.
    max_leaving: usize,
}

/// A place in the pool, given back when dropped: after the peer's socket.
pub(super) struct Place {
    strangers: Arc<Strangers>,
    number: u64,
    evicted: Arc<Notify>,
}

/// Why there is no place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// This source address has as many as it may have.
    Source(IpAddr),
    /// All places are taken.
    Pool,
}

struct Pool {
    /// By number: the oldest first.
    entries: BTreeMap<u64, Entry>,
    sources: HashMap<IpAddr, Source>,
    /// Those whose first message fits a key.
    greeted: usize,
    next_number: u64,
    /// Peers that have lost their place, and whose sockets are still open.
    leaving: usize,
    /// `MOMENT`, or what is left of it, before a peer gives way to any other.
    moment: Duration,
}

/// A source address that has places.
struct Source {
    count: usize,
    /// Those whose first message fits a key.
    greeted: usize,
    /// As that of the pool, before one of its peers gives way to another of them:
    /// what one source does leaves the moment of others as it is.
    moment: Duration,
}

struct Entry {
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
        let pool = Pool {
            entries: BTreeMap::new(),
            sources: HashMap::new(),
            greeted: 0,
            next_number: 0,
            leaving: 0,
            moment: MOMENT,
        };
        let max_per_source = max.div_ceil(2);
        Arc::new(Self { pool: pool.into(), max, max_per_source, max_leaving })
    }

    /// Takes a place, from another stranger if need be. `None` as a source is
    /// one that may have them all.
    pub(super) fn try_enter(
        self: &Arc<Self>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<Place, Full> {
        let mut pool = self.lock();
        let is_rush = |count: usize| count >= self.max_per_source.div_ceil(2);
        if !is_rush(pool.entries.len()) {
            pool.moment = MOMENT;
        }
        let of_source = source.and_then(|ip| pool.sources.get_mut(&ip)).map_or(0, |source| {
            if !is_rush(source.count) {
                source.moment = MOMENT;
            }
            source.count
        });
        let (full, among) = match source {
            Some(ip) if of_source >= self.max_per_source => (Full::Source(ip), source),
            _ if pool.entries.len() >= self.max => (Full::Pool, None),
            _ => return Ok(pool.admit(self, source)),
        };
        if pool.evict(self, among, now) { Ok(pool.admit(self, source)) } else { Err(full) }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // Nothing here panics half-way; a panic elsewhere must not end this.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn admit(&mut self, strangers: &Arc<Strangers>, source: Option<IpAddr>) -> Place {
        if let Some(ip) = source {
            self.sources
                .entry(ip)
                .or_insert(Source { count: 0, greeted: 0, moment: MOMENT })
                .count += 1;
        }
        let evicted = Arc::new(Notify::new());
        self.next_number += 1;
        let number = self.next_number;
        let entry = Entry { source, state: State::Fresh, evicted: Arc::clone(&evicted) };
        self.entries.insert(number, entry);
        Place { strangers: Arc::clone(strangers), number, evicted }
    }

    /// Frees the place of one of this source, or of all, whose moment is over;
    /// whether there was one, and not too many are leaving already.
    fn evict(&mut self, strangers: &Strangers, source: Option<IpAddr>, now: Instant) -> bool {
        if self.leaving >= strangers.max_leaving {
            return false;
        }
        let Some(number) = self.who_goes(source, now) else { return false };
        let Some(entry) = self.remove(number) else { return false };
        entry.evicted.notify_one();
        self.leaving += 1;
        let turn = u32::try_from(strangers.max_per_source).unwrap_or(u32::MAX);
        let moment = self.moment_of(source);
        let shorter = moment.saturating_sub(moment.checked_div(turn).unwrap_or(*moment));
        *moment = if shorter < RETRY { Duration::ZERO } else { shorter };
        // Of the one that is let in, the source stays.
        if entry.source != source {
            self.forget(entry.source);
        }
        true
    }

    fn moment_of(&mut self, source: Option<IpAddr>) -> &mut Duration {
        match source.and_then(|ip| self.sources.get_mut(&ip)) {
            Some(source) => &mut source.moment,
            None => &mut self.moment,
        }
    }

    fn who_goes(&mut self, source: Option<IpAddr>, now: Instant) -> Option<u64> {
        let moment = *self.moment_of(source);
        let oldest = |is_over: &dyn Fn(State) -> bool| {
            let mut entries = self.entries.iter();
            let among = |entry: &Entry| source.is_none() || entry.source == source;
            entries
                .find(|(_, entry)| among(entry) && is_over(entry.state))
                .map(|(number, _)| *number)
        };
        let is_silent_too_long =
            |state| matches!(state, State::Silent(since) if now.duration_since(since) >= moment);
        let is_late = |state| matches!(state, State::Greeted(since) if now.duration_since(since) >= 2 * moment);
        let (count, greeted) = match source.and_then(|ip| self.sources.get(&ip)) {
            Some(source) => (source.count, source.greeted),
            None => (self.entries.len(), self.greeted),
        };
        if greeted > count / 2 {
            oldest(&is_late).or_else(|| oldest(&is_silent_too_long))
        } else {
            oldest(&is_silent_too_long).or_else(|| oldest(&is_late))
        }
    }

    /// To be followed by `forget`, once nobody of the source is let in.
    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        let greeted = usize::from(entry.state.is_greeted());
        self.greeted -= greeted;
        if let Some(source) = entry.source.and_then(|ip| self.sources.get_mut(&ip)) {
            source.count -= 1;
            source.greeted -= greeted;
        }
        Some(entry)
    }

    fn set(&mut self, number: u64, state: State) {
        // One that was evicted is not there any more.
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let was_greeted = mem::replace(&mut entry.state, state).is_greeted();
        let of_source = entry.source.and_then(|ip| self.sources.get_mut(&ip));
        let of_source = of_source.map(|source| &mut source.greeted);
        for greeted in of_source.into_iter().chain([&mut self.greeted]) {
            *greeted -= usize::from(was_greeted);
            *greeted += usize::from(state.is_greeted());
        }
    }

    /// Forgets a source that has no places any more.
    fn forget(&mut self, source: Option<IpAddr>) {
        if let Some(ip) = source
            && self.sources.get(&ip).is_some_and(|source| source.count == 0)
        {
            self.sources.remove(&ip);
        }
    }
}

impl State {
    const fn is_greeted(self) -> bool {
        matches!(self, Self::Greeted(_))
    }
}

impl Place {
    /// What the peer says is looked at from now on.
    pub(super) fn mark_heard(&self) {
        self.set(State::Silent(Instant::now()));
    }

    /// The peer's first message fits a key.
    pub(super) fn mark_greeted(&self) {
        self.set(State::Greeted(Instant::now()));
    }

    fn set(&self, state: State) {
        self.strangers.lock().set(self.number, state);
    }

    /// Waits until the place has been given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pool = self.strangers.lock();
        match pool.remove(self.number) {
            Some(entry) => pool.forget(entry.source),
            None => pool.leaving -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn from(address: &str) -> Option<IpAddr> {
        address.parse().ok()
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
        let place = pool.try_enter(from(text), later).unwrap();
        place.mark_heard();
        place
    }

    #[test]
    fn the_oldest_of_the_same_source_goes_first() {
        let pool = with_places(4);
        let other = silent(&pool, "10.0.0.1");
        let first = silent(&pool, "10.0.0.2");
        let second = silent(&pool, "10.0.0.2");
        let third = silent(&pool, "10.0.0.2");
        assert_eq!([&other, &first, &second, &third].map(is_evicted), [false, true, false, false]);
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_goes() {
        let pool = with_places(4);
        let places: Vec<Place> = (0..5).map(|i| silent(&pool, &format!("10.0.0.{i}"))).collect();
        let evicted: Vec<bool> = places.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false, false]);
    }

    #[test]
    fn nobody_gives_way_before_its_moment_is_over() {
        let pool = with_places(2);
        let next = from("10.0.0.1");
        let enters_at = |at: Instant| pool.try_enter(next, at).is_ok();
        let first = pool.try_enter(from("10.0.0.1"), Instant::now()).unwrap();
        let later = Instant::now() + MOMENT;
        assert!(!enters_at(later), "nobody has looked yet at what it says");
        first.mark_greeted();
        assert!(!enters_at(later));
        first.mark_heard();
        assert!(!enters_at(Instant::now()));
        assert!(enters_at(Instant::now() + MOMENT) && is_evicted(&first));
    }

    #[test]
    fn who_has_greeted_goes_after_who_is_silent() {
        let pool = with_places(2);
        let greeted = silent(&pool, "10.0.0.1");
        let silent_one = silent(&pool, "10.0.0.2");
        greeted.mark_greeted();
        let _next = silent(&pool, "10.0.0.3");
        assert_eq!([&greeted, &silent_one].map(is_evicted), [false, true]);
        drop(silent_one);
        let _later = silent(&pool, "10.0.0.3");
        assert!(!is_evicted(&greeted));
    }

    /// Who plays recorded messages holds no place for good, and none of theirs is
    /// worth more than that of one who is just coming.
    #[test]
    fn who_is_coming_stays_where_most_have_greeted() {
        let pool = with_places(8);
        let players: Vec<Place> = (0..7).map(|i| silent(&pool, &format!("10.0.0.{i}"))).collect();
        players.iter().for_each(Place::mark_greeted);
        let coming = silent(&pool, "10.0.1.1");
        let later = Instant::now() + 3 * MOMENT;
        let next = pool.try_enter(from("10.0.1.2"), later).unwrap();
        assert!(is_evicted(&players[0]) && !is_evicted(&coming));
        drop((players, coming, next));
        let pool = pool.lock();
        assert_eq!((pool.greeted, pool.entries.len(), pool.sources.len()), (0, 0, 0));
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
                    if let Ok(place) = pool.try_enter(from("10.0.0.1"), now) {
                        break place;
                    }
                    now += RETRY;
                };
                pool.lock().entries.last_entry().unwrap().get_mut().state = State::Silent(now);
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
        let mut places: Vec<Place> = (0..4).map(|_| silent(&pool, "10.0.0.1")).collect();
        places.push(silent(&pool, "10.0.0.1"));
        let next = from("10.0.0.1");
        let later = Instant::now() + 2 * MOMENT;
        assert!(pool.try_enter(next, later).is_err());
        drop(places.remove(0));
        assert!(pool.try_enter(next, later).is_ok());
    }

    #[test]
    fn after_a_rush_there_is_a_whole_moment_again() {
        for max in [1, 4, 100] {
            let pool = Strangers::new(max);
            let source = from("10.0.0.1");
            let mut rush = VecDeque::new();
            for _ in 0..2 * max {
                rush.push_back(silent(&pool, "10.0.0.1"));
                let _left = rush.pop_front_if(|oldest| is_evicted(oldest));
            }
            assert!(*pool.lock().moment_of(source) < MOMENT);
            drop(rush);
            let _next = silent(&pool, "10.0.0.1");
            assert_eq!(*pool.lock().moment_of(source), MOMENT);
        }
    }

    /// Nor may any of them lose its place sooner.
    #[test]
    fn a_rush_of_one_source_shortens_no_other_ones_moment() {
        let pool = with_places(8);
        let mut rush = VecDeque::new();
        for _ in 0..1000 {
            rush.push_back(silent(&pool, "10.0.0.1"));
            let _left = rush.pop_front_if(|oldest| is_evicted(oldest));
        }
        assert_eq!(*pool.lock().moment_of(from("10.0.0.1")), Duration::ZERO);
        let _others: Vec<_> = (0..4).map(|_| silent(&pool, "10.0.0.2")).collect();
        let next = pool.try_enter(from("10.0.0.2"), Instant::now());
        assert_eq!(next.err(), Some(Full::Source("10.0.0.2".parse().unwrap())));
        let next = pool.try_enter(from("10.0.0.3"), Instant::now());
        assert_eq!(next.err(), Some(Full::Pool));
    }

    #[test]
    fn places_are_given_back() {
        let pool = with_places(2);
        for _ in 0..10 {
            let place = pool.try_enter(from("10.0.0.1"), Instant::now()).unwrap();
            assert!(!is_evicted(&place));
        }
        let pool = pool.lock();
        assert!(pool.entries.is_empty() && pool.sources.is_empty() && pool.leaving == 0);
    }
}
