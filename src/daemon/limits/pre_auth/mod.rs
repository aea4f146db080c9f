//! Slots for peers that have not proved the key. These slots are a pool of their own, so
//! that strangers take nothing from peers that have proved the key.
//!
//! When all slots are taken, or all that one source address may have, a peer is evicted
//! for the next one: the peer whose first message is awaited longest, else the peer whose
//! proof is awaited longest. Where more than half of the peers have a proof to give, as
//! when a stranger replays recorded messages, the order is reversed: otherwise each peer
//! that has just come would be evicted.
//!
//! A peer keeps its slot for a grace period, though: many holders of the key may come at
//! once, all from one address if a single sender connects, and must not evict each other.
//! While no grace period is over, the next peer gets no slot.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::answers::UnprovedAnswers;

/// The grace period of a peer that sends nothing. Each eviction shortens the grace period of the others, so that however many
/// strangers come, the peer behind them waits no longer than about 1.6 times this.
const GRACE: Duration = Duration::from_millis(300);
/// How many times as long it is once the first message fits a key: the sender may be far
/// away, or this host busy, and a stranger needs another recording for each such slot.
const PROOF: u32 = 8;
/// The retry interval while there is no slot.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// The pool of slots.
pub(crate) struct PreAuthPool {
    pool: Mutex<PoolState>,
    max: usize,
    max_per_source: usize,
    /// How many evicted peers may still have their sockets open, beside the slots.
    max_leaving: usize,
}

/// A slot of the pool. Guard: gives the slot back when dropped, which must be after the
/// peer's socket is closed.
pub(crate) struct PreAuthSlot {
    pool: Arc<PreAuthPool>,
    number: u64,
    evicted: Arc<Notify>,
}

/// Why there is no slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// This source address has as many slots as it may have.
    Source(IpAddr),
    /// All slots are taken.
    All,
}

struct PoolState {
    /// The oldest first.
    occupants: BTreeMap<u64, Occupant>,
    sources: HashMap<IpAddr, SourceSlots>,
    answers: UnprovedAnswers,
    /// Slots of peers whose first message fits a key.
    unproved: usize,
    next_number: u64,
    /// Evicted peers whose sockets are still open.
    leaving: usize,
    /// The grace period now: [`GRACE`], less what evictions have taken of it.
    grace: Duration,
}

/// The slots of a source address.
struct SourceSlots {
    count: usize,
    /// Slots of peers whose first message fits a key.
    unproved: usize,
    /// The grace period among the peers of this source, which other sources do not change.
    grace: Duration,
}

/// The peer that has a slot.
struct Occupant {
    source: Option<IpAddr>,
    state: PeerState,
    evicted: Arc<Notify>,
}

/// How far a peer has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    /// Nothing has been read from it.
    Accepted,
    /// Its first message is awaited.
    Reading(Instant),
    /// Its first message fits a key, and its proof is awaited.
    Unproved(Instant),
    /// It has proved the key, and soon gives its slot back.
    Proved(Instant),
}

impl PreAuthPool {
    /// A pool for `max` sockets. One source address may have half of the slots.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let max_leaving = (max / 8).max(1);
        let max = max.saturating_sub(max_leaving).max(1);
        let pool = PoolState {
            occupants: BTreeMap::new(),
            sources: HashMap::new(),
            answers: UnprovedAnswers::default(),
            unproved: 0,
            next_number: 0,
            leaving: 0,
            grace: GRACE,
        };
        let max_per_source = max.div_ceil(2);
        Arc::new(Self { pool: pool.into(), max, max_per_source, max_leaving })
    }

    /// How many peers have not proved a key yet, those included that are leaving.
    pub(crate) fn strangers(&self) -> usize {
        let pool = self.lock();
        pool.occupants.len().saturating_add(pool.leaving)
    }

    /// Takes a slot; evicts another stranger if need be. A peer without a source address
    /// counts for no source.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<PreAuthSlot, Full> {
        let mut pool = self.lock();
        let is_rush = |count: usize| count >= self.max_per_source.div_ceil(2);
        if !is_rush(pool.occupants.len()) {
            pool.grace = GRACE;
        }
        let of_source = source.and_then(|ip| pool.sources.get_mut(&ip)).map_or(0, |source| {
            if !is_rush(source.count) {
                source.grace = GRACE;
            }
            source.count
        });
        let (full, among) = match source {
            Some(ip) if of_source >= self.max_per_source => (Full::Source(ip), source),
            _ if pool.occupants.len() >= self.max => (Full::All, None),
            _ => return Ok(pool.admit(self, source)),
        };
        if pool.evict(self, among, now) { Ok(pool.admit(self, source)) } else { Err(full) }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        // No panic here leaves a state half changed, and a panic elsewhere must not spread.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    fn admit(&mut self, pool: &Arc<PreAuthPool>, source: Option<IpAddr>) -> PreAuthSlot {
        if let Some(ip) = source {
            self.sources
                .entry(ip)
                .or_insert(SourceSlots { count: 0, unproved: 0, grace: GRACE })
                .count += 1;
        }
        let evicted = Arc::new(Notify::new());
        self.next_number += 1;
        let number = self.next_number;
        let occupant =
            Occupant { source, state: PeerState::Accepted, evicted: Arc::clone(&evicted) };
        self.occupants.insert(number, occupant);
        PreAuthSlot { pool: Arc::clone(pool), number, evicted }
    }

    /// Evicts a peer of this source (`None`: of any source) whose grace period is over.
    /// Returns whether a slot is free now. Evicts no peer while too many evicted peers still
    /// have their sockets open.
    fn evict(&mut self, pool: &PreAuthPool, source: Option<IpAddr>, now: Instant) -> bool {
        if self.leaving >= pool.max_leaving {
            return false;
        }
        let Some(number) = self.next_to_evict(source, now) else { return false };
        let Some(occupant) = self.remove(number) else { return false };
        occupant.evicted.notify_one();
        self.leaving += 1;
        let parts = u32::try_from(pool.max_per_source).unwrap_or(u32::MAX);
        let grace = self.grace_of(source);
        let shorter = grace.saturating_sub(grace.checked_div(parts).unwrap_or(*grace));
        *grace = if shorter < RETRY { Duration::ZERO } else { shorter };
        // The source of the peer that is admitted next is kept.
        if occupant.source != source {
            self.forget(occupant.source);
        }
        true
    }

    fn grace_of(&mut self, source: Option<IpAddr>) -> &mut Duration {
        match source.and_then(|ip| self.sources.get_mut(&ip)) {
            Some(source) => &mut source.grace,
            None => &mut self.grace,
        }
    }

    fn next_to_evict(&mut self, source: Option<IpAddr>, now: Instant) -> Option<u64> {
        let grace = *self.grace_of(source);
        let oldest = |is_over: &dyn Fn(PeerState) -> bool| {
            let mut occupants = self.occupants.iter();
            let among = |occupant: &Occupant| source.is_none() || occupant.source == source;
            occupants
                .find(|(_, occupant)| among(occupant) && is_over(occupant.state))
                .map(|(number, _)| *number)
        };
        let is_silent_too_long = |state| matches!(state, PeerState::Reading(since) if now.duration_since(since) >= grace);
        let is_late = |state| matches!(state, PeerState::Unproved(since) | PeerState::Proved(since) if now.duration_since(since) >= PROOF * grace);
        let (count, unproved) = match source.and_then(|ip| self.sources.get(&ip)) {
            Some(source) => (source.count, source.unproved),
            None => (self.occupants.len(), self.unproved),
        };
        if unproved > count / 2 {
            oldest(&is_late).or_else(|| oldest(&is_silent_too_long))
        } else {
            oldest(&is_silent_too_long).or_else(|| oldest(&is_late))
        }
    }

    /// To be followed by `forget`, unless another peer of the source is admitted.
    fn remove(&mut self, number: u64) -> Option<Occupant> {
        let occupant = self.occupants.remove(&number)?;
        let unproved = usize::from(occupant.state.is_unproved());
        if let (Some(ip), PeerState::Unproved(_)) = (occupant.source, occupant.state) {
            self.answers.add(ip, Instant::now());
        }
        self.unproved -= unproved;
        if let Some(source) = occupant.source.and_then(|ip| self.sources.get_mut(&ip)) {
            source.count -= 1;
            source.unproved -= unproved;
        }
        Some(occupant)
    }

    fn set(&mut self, number: u64, state: PeerState) {
        // A peer that was evicted has no slot any more.
        let Some(occupant) = self.occupants.get_mut(&number) else { return };
        let was_unproved = mem::replace(&mut occupant.state, state).is_unproved();
        let of_source = occupant.source.and_then(|ip| self.sources.get_mut(&ip));
        let of_source = of_source.map(|source| &mut source.unproved);
        for unproved in of_source.into_iter().chain([&mut self.unproved]) {
            *unproved -= usize::from(was_unproved);
            *unproved += usize::from(state.is_unproved());
        }
    }

    /// Forgets a source that has no slots any more.
    fn forget(&mut self, source: Option<IpAddr>) {
        if let Some(ip) = source
            && self.sources.get(&ip).is_some_and(|source| source.count == 0)
        {
            self.sources.remove(&ip);
        }
    }
}

impl PeerState {
    const fn is_unproved(self) -> bool {
        matches!(self, Self::Unproved(_))
    }
}

impl PreAuthSlot {
    /// Marks that the peer's first message is awaited from now on.
    pub(crate) fn mark_reading(&self) {
        self.set(PeerState::Reading(Instant::now()));
    }

    /// Marks that the peer is answered, since its first message fits a key. Returns `false`
    /// where it may have no answer: it was evicted, or its source address has left too many
    /// answers unproved (rule H5).
    pub(crate) fn mark_unproved(&self) -> bool {
        let now = Instant::now();
        let mut pool = self.pool.lock();
        let Some(occupant) = pool.occupants.get(&self.number) else { return false };
        if occupant.source.is_some_and(|ip| pool.answers.are_too_many(ip, now)) {
            return false;
        }
        pool.set(self.number, PeerState::Unproved(now));
        true
    }

    /// Marks that the peer has proved the key.
    pub(crate) fn mark_proved(&self) {
        let mut pool = self.pool.lock();
        pool.set(self.number, PeerState::Proved(Instant::now()));
        if let Some(ip) = pool.occupants.get(&self.number).and_then(|occupant| occupant.source) {
            pool.answers.forgive(ip);
        }
    }

    fn set(&self, state: PeerState) {
        self.pool.lock().set(self.number, state);
    }

    /// Waits until the peer is evicted.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for PreAuthSlot {
    fn drop(&mut self) {
        let mut pool = self.pool.lock();
        match pool.remove(self.number) {
            Some(occupant) => pool.forget(occupant.source),
            None => pool.leaving -= 1,
        }
    }
}
