//! Places for peers that have not proved the key: a pool of their own, so that
//! they take none from those who have.
//!
//! When all places are taken, or all that one source address may have, the
//! peer that has been waiting longest gives up its own: a keyed peer proves
//! itself within a round trip, whoever needs longer is the likelier stranger.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::stream::Peer;

/// The pool.
pub(super) struct Strangers {
    waiting: Mutex<Waiting>,
    max: usize,
    max_per_source: usize,
}

/// A place in the pool, given back when dropped.
pub(super) struct Place {
    pool: Arc<Strangers>,
    number: u64,
    evicted: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    /// Oldest first.
    queue: VecDeque<Entry>,
    per_source: HashMap<IpAddr, usize>,
    next_number: u64,
}

struct Entry {
    number: u64,
    source: Option<IpAddr>,
    evicted: Arc<Notify>,
}

impl Strangers {
    /// A pool of `max` places, of which one source address may have half.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let max = max.max(1);
        Arc::new(Self { waiting: Mutex::default(), max, max_per_source: max.div_ceil(2) })
    }

    /// Takes a place, from another stranger if need be.
    pub(super) fn enter(self: &Arc<Self>, peer: &Peer) -> Place {
        let source = source(peer);
        let mut waiting = self.lock();
        let of_source = source.and_then(|ip| waiting.per_source.get(&ip)).copied().unwrap_or(0);
        if of_source >= self.max_per_source {
            waiting.evict(|entry| entry.source == source);
        } else if waiting.queue.len() >= self.max {
            waiting.evict(|_| true);
        }
        let evicted = waiting.admit(source);
        Place { pool: Arc::clone(self), number: waiting.next_number, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing here panics half-way; a panic elsewhere must not end this.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn admit(&mut self, source: Option<IpAddr>) -> Arc<Notify> {
        let evicted = Arc::new(Notify::new());
        self.next_number = self.next_number.wrapping_add(1);
        self.queue.push_back(Entry {
            number: self.next_number,
            source,
            evicted: Arc::clone(&evicted),
        });
        if let Some(ip) = source {
            let count = self.per_source.entry(ip).or_default();
            *count = count.saturating_add(1);
        }
        evicted
    }

    fn evict(&mut self, which: impl Fn(&Entry) -> bool) {
        if let Some(entry) = self.remove(which) {
            entry.evicted.notify_one();
        }
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
    /// Waits until the place has been given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // One that was evicted is not there any more.
        self.pool.lock().remove(|entry| entry.number == self.number);
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
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Inet(text.parse().unwrap())
    }

    fn is_evicted(place: &Place) -> bool {
        let mut evicted = std::pin::pin!(place.evicted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        evicted.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_oldest_of_the_same_source_goes_first() {
        let pool = Strangers::new(4);
        let other = pool.enter(&peer("10.0.0.1:1"));
        let first = pool.enter(&peer("10.0.0.2:1"));
        let second = pool.enter(&peer("10.0.0.2:2"));
        let third = pool.enter(&peer("10.0.0.2:3"));
        assert_eq!([&other, &first, &second, &third].map(is_evicted), [false, true, false, false]);
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_goes() {
        let pool = Strangers::new(4);
        let places: Vec<Place> =
            (0..5).map(|i| pool.enter(&peer(&format!("10.0.0.{i}:1")))).collect();
        let evicted: Vec<bool> = places.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false, false]);
    }

    #[test]
    fn places_are_given_back() {
        let pool = Strangers::new(2);
        for _ in 0..10 {
            let place = pool.enter(&peer("10.0.0.1:1"));
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
