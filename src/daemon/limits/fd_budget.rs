//! The budget of file descriptors for connections. Descriptors that no connection needs
//! now are lent to peers that wait for a slot before authentication: such a peer is
//! parked, and nothing that it sends is read. Parked peers are closed at once when a
//! connection needs their descriptors, so they take nothing from a peer that has proved
//! the key.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::PER_CONNECTION;

/// The descriptors, and the peers that are parked on them.
pub(crate) struct FdBudget<T> {
    max_connections: usize,
    state: Mutex<State<T>>,
    /// Notified when a peer is parked.
    parked: Notify,
}

struct State<T> {
    connections: usize,
    /// Descriptors that neither connections nor parked peers have.
    free: usize,
    /// Parked peers by source address, the oldest first. No queue is empty.
    parked: HashMap<IpAddr, VecDeque<T>>,
}

impl<T> FdBudget<T> {
    pub(crate) fn new(max_connections: usize, descriptors: usize) -> Self {
        let state = State { connections: 0, free: descriptors, parked: HashMap::new() };
        Self { max_connections, state: Mutex::new(state), parked: Notify::new() }
    }

    /// Takes the descriptors of a connection; `None` at the connection limit. Returns the
    /// parked peers that are displaced: they must be closed before a descriptor is opened.
    pub(crate) fn take_for_connection(&self) -> Option<Vec<T>> {
        let mut state = self.lock();
        if state.connections >= self.max_connections {
            return None;
        }
        let mut displaced = Vec::new();
        while state.free < PER_CONNECTION {
            displaced.push(state.displace_from_longest()?);
            state.free += 1;
        }
        state.free -= PER_CONNECTION;
        state.connections += 1;
        Some(displaced)
    }

    /// Gives back the descriptors of a connection.
    pub(crate) fn give_back(&self) {
        let mut state = self.lock();
        state.free += PER_CONNECTION;
        state.connections -= 1;
    }

    /// The number of connections.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Parks a peer. Where no descriptor is free, returns the peer that is displaced: the
    /// oldest of the source that has parked the most; where none is parked, the new peer
    /// itself.
    pub(crate) fn park(&self, source: IpAddr, peer: T) -> Option<T> {
        let mut state = self.lock();
        let displaced = if state.free == 0 {
            let Some(displaced) = state.displace_from_longest() else { return Some(peer) };
            Some(displaced)
        } else {
            state.free -= 1;
            None
        };
        state.parked.entry(source).or_default().push_back(peer);
        self.parked.notify_one();
        displaced
    }

    /// The source addresses that have parked peers.
    pub(crate) fn parked_sources(&self) -> Vec<IpAddr> {
        self.lock().parked.keys().copied().collect()
    }

    /// Waits until a peer is parked.
    pub(crate) async fn peer_is_parked(&self) {
        while self.lock().parked.is_empty() {
            self.parked.notified().await;
        }
    }

    /// Whether a source has parked peers, and the oldest is such a one.
    pub(crate) fn is_parked(&self, source: IpAddr, which: impl FnOnce(&T) -> bool) -> bool {
        self.lock().parked.get(&source).and_then(VecDeque::front).is_some_and(which)
    }

    /// Takes the oldest parked peer of a source.
    pub(crate) fn unpark(&self, source: IpAddr) -> Option<T> {
        let mut state = self.lock();
        let peer = state.unpark(source)?;
        state.free += 1;
        Some(peer)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No panic here leaves a state half changed, and a panic elsewhere must not spread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Takes the oldest peer of the longest queue. Only sources with more peers than slots
    /// have a queue, so there are few.
    fn displace_from_longest(&mut self) -> Option<T> {
        let longest = self.parked.iter().max_by_key(|(_, queue)| queue.len());
        let source = *longest?.0;
        self.unpark(source)
    }

    fn unpark(&mut self, source: IpAddr) -> Option<T> {
        let queue = self.parked.get_mut(&source)?;
        let peer = queue.pop_front();
        if queue.is_empty() {
            self.parked.remove(&source);
        }
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_connection_displaces_parked_peers() {
        let budget = FdBudget::new(2, 4);
        assert!([1, 2, 3, 4].iter().all(|peer| budget.park(A, *peer).is_none()));
        assert_eq!(budget.take_for_connection(), Some(vec![1, 2]));
        assert_eq!(budget.take_for_connection(), Some(vec![3, 4]));
        assert_eq!(budget.take_for_connection(), None);
        assert_eq!(budget.park(A, 5), Some(5), "nothing is free");
        budget.give_back();
        assert_eq!((budget.park(A, 6), budget.connections()), (None, 1));
        assert_eq!(budget.take_for_connection(), Some(vec![6]));
    }

    #[test]
    fn connections_are_limited_whatever_is_free() {
        let budget = FdBudget::<u8>::new(1, 100);
        assert_eq!(
            (budget.take_for_connection(), budget.take_for_connection()),
            (Some(vec![]), None)
        );
        budget.give_back();
        assert_eq!(budget.take_for_connection(), Some(vec![]));
    }

    #[test]
    fn a_peer_of_the_source_that_has_parked_the_most_is_displaced() {
        let budget = FdBudget::new(2, 4);
        for peer in 1..=3 {
            assert_eq!(budget.park(A, peer), None);
        }
        assert_eq!(budget.park(B, 10), None);
        assert_eq!(budget.park(B, 11), Some(1));
        assert_eq!(budget.unpark(B), Some(10));
        assert!(budget.is_parked(A, |peer| *peer == 2) && budget.is_parked(B, |peer| *peer == 11));
        assert_eq!(
            [budget.unpark(A), budget.unpark(A), budget.unpark(A)],
            [Some(2), Some(3), None]
        );
        assert_eq!(budget.unpark(B), Some(11));
        assert!(budget.parked_sources().is_empty());
        assert_eq!(budget.lock().free, 4);
    }
}
