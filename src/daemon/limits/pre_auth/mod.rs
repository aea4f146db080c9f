//! Slots for peers that have not proved the key. They have a pool of their own, so that
//! strangers take nothing from peers that have proved it.
//!
//! When all slots are taken, or all that one source address may have, a peer is evicted
//! for the next one. The peer that has been waiting longest for its first message goes
//! first; then the peer that has been waiting longest for its proof. Where more than
//! half of the slots wait for a proof, as when somebody replays recorded messages, the
//! order is the other way round: otherwise each peer that has just come would have to go.
//!
//! A peer keeps its slot for a moment, though, since many holders of the key may come
//! at once, from one address if a single sender makes their connections, and must not
//! evict each other. While no moment is over, the next peer gets no slot.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a peer that says nothing keeps its slot at least; twice as long once its
/// first message fits a key. Each eviction shortens it for the next, so that however many
/// strangers come, the peer behind them waits no longer than about 1.6 times this.
const MOMENT: Duration = Duration::from_millis(300);
/// The retry interval while there is no slot.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// The pool.
pub(crate) struct PreAuthPool {
    pool: Mutex<Pool>,
    max: usize,
    max_per_source: usize,
    /// How many evicted peers may still have their sockets open, beside the slots.
    max_leaving: usize,
}

/// A slot of the pool. Guard: gives the slot back when dropped, which has to be after
/// the peer's socket.
pub(crate) struct PreAuthSlot {
    pool: Arc<PreAuthPool>,
    number: u64,
    evicted: Arc<Notify>,
}

/// Why there is no slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// This source address has as many as it may have.
    Source(IpAddr),
    /// All slots are taken.
    Pool,
}

struct Pool {
    /// By number: the oldest first.
    entries: BTreeMap<u64, Entry>,
    sources: HashMap<IpAddr, Source>,
    /// Slots of peers whose first message fits a key.
    authenticated: usize,
    next_number: u64,
    /// Evicted peers whose sockets are still open.
    leaving: usize,
    /// `MOMENT`, or what evictions have left of it.
    moment: Duration,
}

/// A source address that has slots.
struct Source {
    count: usize,
    /// Slots of peers whose first message fits a key.
    authenticated: usize,
    /// The moment among the peers of this source: what one source does leaves the
    /// moment of others as it is.
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
    Accepted,
    /// It has not said its first message.
    Reading(Instant),
    /// Its first message fits a key.
    Authenticated(Instant),
}

impl PreAuthPool {
    /// A pool for `max` sockets, of whose slots one source address may have
    /// half.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let max_leaving = (max / 8).max(1);
        let max = max.saturating_sub(max_leaving).max(1);
        let pool = Pool {
            entries: BTreeMap::new(),
            sources: HashMap::new(),
            authenticated: 0,
            next_number: 0,
            leaving: 0,
            moment: MOMENT,
        };
        let max_per_source = max.div_ceil(2);
        Arc::new(Self { pool: pool.into(), max, max_per_source, max_leaving })
    }

    /// Takes a slot, from another stranger if need be. `None` as a source is
    /// one that may have them all.
    pub(crate) fn try_enter(
        self: &Arc<Self>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<PreAuthSlot, Full> {
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
    fn admit(&mut self, pool: &Arc<PreAuthPool>, source: Option<IpAddr>) -> PreAuthSlot {
        if let Some(ip) = source {
            self.sources
                .entry(ip)
                .or_insert(Source { count: 0, authenticated: 0, moment: MOMENT })
                .count += 1;
        }
        let evicted = Arc::new(Notify::new());
        self.next_number += 1;
        let number = self.next_number;
        let entry = Entry { source, state: State::Accepted, evicted: Arc::clone(&evicted) };
        self.entries.insert(number, entry);
        PreAuthSlot { pool: Arc::clone(pool), number, evicted }
    }

    /// Frees the slot of one of this source, or of all, whose moment is over;
    /// whether there was one, and not too many are leaving already.
    fn evict(&mut self, pool: &PreAuthPool, source: Option<IpAddr>, now: Instant) -> bool {
        if self.leaving >= pool.max_leaving {
            return false;
        }
        let Some(number) = self.who_goes(source, now) else { return false };
        let Some(entry) = self.remove(number) else { return false };
        entry.evicted.notify_one();
        self.leaving += 1;
        let turn = u32::try_from(pool.max_per_source).unwrap_or(u32::MAX);
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
            |state| matches!(state, State::Reading(since) if now.duration_since(since) >= moment);
        let is_late = |state| matches!(state, State::Authenticated(since) if now.duration_since(since) >= 2 * moment);
        let (count, authenticated) = match source.and_then(|ip| self.sources.get(&ip)) {
            Some(source) => (source.count, source.authenticated),
            None => (self.entries.len(), self.authenticated),
        };
        if authenticated > count / 2 {
            oldest(&is_late).or_else(|| oldest(&is_silent_too_long))
        } else {
            oldest(&is_silent_too_long).or_else(|| oldest(&is_late))
        }
    }

    /// To be followed by `forget`, once nobody of the source is let in.
    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        let authenticated = usize::from(entry.state.is_authenticated());
        self.authenticated -= authenticated;
        if let Some(source) = entry.source.and_then(|ip| self.sources.get_mut(&ip)) {
            source.count -= 1;
            source.authenticated -= authenticated;
        }
        Some(entry)
    }

    fn set(&mut self, number: u64, state: State) {
        // One that was evicted is not there any more.
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let was_authenticated = mem::replace(&mut entry.state, state).is_authenticated();
        let of_source = entry.source.and_then(|ip| self.sources.get_mut(&ip));
        let of_source = of_source.map(|source| &mut source.authenticated);
        for authenticated in of_source.into_iter().chain([&mut self.authenticated]) {
            *authenticated -= usize::from(was_authenticated);
            *authenticated += usize::from(state.is_authenticated());
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

impl State {
    const fn is_authenticated(self) -> bool {
        matches!(self, Self::Authenticated(_))
    }
}

impl PreAuthSlot {
    /// What the peer says is looked at from now on.
    pub(crate) fn mark_reading(&self) {
        self.set(State::Reading(Instant::now()));
    }

    /// The peer's first message fits a key.
    pub(crate) fn mark_authenticated(&self) {
        self.set(State::Authenticated(Instant::now()));
    }

    fn set(&self, state: State) {
        self.pool.lock().set(self.number, state);
    }

    /// Waits until the slot has been given to another.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for PreAuthSlot {
    fn drop(&mut self) {
        let mut pool = self.pool.lock();
        match pool.remove(self.number) {
            Some(entry) => pool.forget(entry.source),
            None => pool.leaving -= 1,
        }
    }
}
