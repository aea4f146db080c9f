//! File descriptors of the connections that may be open. Those that no connection
//! needs now are lent to peers that wait for a slot before authentication: such a peer
//! is parked, and nothing that it sends is read. Parked peers are closed at once when a
//! connection needs their descriptors, so they take nothing from a peer that has proved
//! the key.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::PER_CONNECTION;

/// The descriptors, and who is parked on them.
pub(crate) struct FdBudget<T> {
    max_connections: usize,
    state: Mutex<State<T>>,
    /// Somebody was parked.
    parked: Notify,
}

struct State<T> {
    connections: usize,
    /// Descriptors that nobody has.
    free: usize,
    /// By source address; of each the oldest first. None of them is empty.
    parked: HashMap<IpAddr, VecDeque<T>>,
}

impl<T> FdBudget<T> {
    pub(crate) fn new(max_connections: usize, descriptors: usize) -> Self {
        let state = State { connections: 0, free: descriptors, parked: HashMap::new() };
        Self { max_connections, state: Mutex::new(state), parked: Notify::new() }
    }

    /// Takes what a connection needs, unless there are as many as there may be.
    /// Returns who gives way to it: to be closed before anything is opened.
    pub(crate) fn open(&self) -> Option<Vec<T>> {
        let mut state = self.lock();
        if state.connections >= self.max_connections {
            return None;
        }
        let mut gone = Vec::new();
        while state.free < PER_CONNECTION {
            gone.push(state.longest_gives_way()?);
            state.free += 1;
        }
        state.free -= PER_CONNECTION;
        state.connections += 1;
        Some(gone)
    }

    /// Gives back what a connection had.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.free += PER_CONNECTION;
        state.connections -= 1;
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Parks a peer. Returns who is not parked any more: where no descriptor is
    /// free, the oldest of the source that has parked the most; where nobody is
    /// parked, the peer itself.
    pub(crate) fn park(&self, source: IpAddr, peer: T) -> Option<T> {
        let mut state = self.lock();
        let gone = if state.free == 0 {
            let Some(gone) = state.longest_gives_way() else { return Some(peer) };
            Some(gone)
        } else {
            state.free -= 1;
            None
        };
        state.parked.entry(source).or_default().push_back(peer);
        self.parked.notify_one();
        gone
    }

    /// The source addresses that peers are parked of.
    pub(crate) fn parked_sources(&self) -> Vec<IpAddr> {
        self.lock().parked.keys().copied().collect()
    }

    /// Waits until somebody is parked.
    pub(crate) async fn somebody_is_parked(&self) {
        while self.lock().parked.is_empty() {
            self.parked.notified().await;
        }
    }

    /// Whether the oldest that is parked of a source is such a one.
    pub(crate) fn is_parked(&self, source: IpAddr, which: impl FnOnce(&T) -> bool) -> bool {
        self.lock().parked.get(&source).and_then(VecDeque::front).is_some_and(which)
    }

    /// Takes the oldest that is parked of a source.
    pub(crate) fn unpark(&self, source: IpAddr) -> Option<T> {
        let mut state = self.lock();
        let peer = state.unpark(source)?;
        state.free += 1;
        Some(peer)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing here panics half-way; a panic elsewhere must not end this.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Only sources that had more peers than places have any parked: a few.
    fn longest_gives_way(&mut self) -> Option<T> {
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
    fn a_connection_displaces_who_is_parked() {
        let budget = FdBudget::new(2, 4);
        assert!([1, 2, 3, 4].iter().all(|peer| budget.park(A, *peer).is_none()));
        assert_eq!(budget.open(), Some(vec![1, 2]));
        assert_eq!(budget.open(), Some(vec![3, 4]));
        assert_eq!(budget.open(), None);
        assert_eq!(budget.park(A, 5), Some(5), "nothing is free");
        budget.close();
        assert_eq!((budget.park(A, 6), budget.connections()), (None, 1));
        assert_eq!(budget.open(), Some(vec![6]));
    }

    #[test]
    fn connections_are_limited_whatever_is_free() {
        let budget = FdBudget::<u8>::new(1, 100);
        assert_eq!((budget.open(), budget.open()), (Some(vec![]), None));
        budget.close();
        assert_eq!(budget.open(), Some(vec![]));
    }

    #[test]
    fn who_has_parked_the_most_gives_way() {
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
