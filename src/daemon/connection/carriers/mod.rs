//! The carriers of this process.
//!
//! ```text
//! sender:    keeper ─ handshake ─ CARRY, CARRIED ─ carrier of a worker ◀─ stream ─ client
//! receiver:  handshake ─ CARRY ─ answer, CARRIED ─ carrier ─▶ stream ─ target
//! ```

pub(crate) mod answer;
pub(crate) mod join;
pub(crate) mod keeper;
mod log;
mod stream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::observer::Agreed;
use crate::daemon::carrier::link::Link;
use crate::daemon::carrier::owner::Joins;
use crate::daemon::carrier::stream::CarriedStream;
use crate::daemon::limits::SENDER_CARRIERS;
use crate::daemon::net::peer::Peer;
use crate::keys::set::Key;
use crate::protocol::carrier::CarrierSecret;
use crate::protocol::{ConnectionId, Extensions};
use crate::status::{self, UnixTime};

/// The most streams of a carrier at once: each may hold 64 KiB at either end.
const STREAMS: u32 = 1024;

/// The carriers of this process.
pub(crate) struct Carriers {
    of_workers: Vec<OfWorker>,
    all: Mutex<HashMap<ConnectionId, Arc<OpenCarrier>>>,
}

/// The carriers of a sender's worker: streams are opened on them.
#[derive(Default)]
struct OfWorker {
    carriers: Mutex<Vec<Arc<OpenCarrier>>>,
    /// Notified when one more may be needed.
    changed: Notify,
}

/// An open carrier.
pub(crate) struct OpenCarrier {
    pub(crate) link: Arc<Link>,
    joins: Joins,
    /// What a session that joins proves to know.
    secret: CarrierSecret,
    pub(crate) key: Arc<Key>,
    pub(crate) agreed: Agreed,
    /// The other end: at a sender, the receiver.
    pub(crate) peer: Peer,
    /// At a receiver, its own address.
    local: Option<SocketAddr>,
    /// The address that a sender's target resolved to.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) since: UnixTime,
    /// How many streams may live at once.
    pub(crate) allowed: u32,
}

/// Guard: a carrier counts as open until this is dropped.
struct Registered<'a> {
    carriers: &'a Carriers,
    carrier: Arc<OpenCarrier>,
}

impl OpenCarrier {
    /// What the status tells of it.
    pub(crate) fn told(&self) -> status::Carrier {
        status::Carrier {
            conn: self.agreed.conn().to_string(),
            key: self.key.name.to_string(),
            key_id: self.key.id().to_string(),
            peer: self.peer.to_string(),
            opened: self.since,
            streams: u64::try_from(self.link.streams()).unwrap_or(u64::MAX),
            stream_limit: self.allowed.into(),
            is_taking: self.link.is_usable(),
        }
    }

    /// Whether another carrier is soon needed.
    fn is_nearly_full(&self) -> bool {
        let allowed = usize::try_from(self.allowed).unwrap_or(usize::MAX);
        self.link.streams() >= allowed - allowed / 4
    }
}

impl Carriers {
    /// Of a process with so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let of_workers = (0..workers).map(|_| OfWorker::default()).collect();
        Self { of_workers, all: Mutex::default() }
    }

    /// Opens a stream on a carrier of this worker and key, if there is one with room.
    pub(super) fn open_stream(
        &self,
        worker: usize,
        key: &Key,
        extensions: Extensions,
    ) -> Option<(Arc<OpenCarrier>, CarriedStream)> {
        let of_worker = self.of_workers.get(worker)?;
        let carriers = lock(&of_worker.carriers);
        let opened =
            carriers.iter().filter(|carrier| carrier.key.id() == key.id()).find_map(|carrier| {
                let stream = CarriedStream::open(&carrier.link, extensions).ok()?;
                Some((Arc::clone(carrier), stream))
            });
        if opened.as_ref().is_none_or(|(carrier, _)| carrier.is_nearly_full()) {
            of_worker.changed.notify_one();
        }
        opened
    }

    /// How many carriers of this key are open.
    fn of_key(&self, key: &Key) -> usize {
        lock(&self.all).values().filter(|carrier| carrier.key.id() == key.id()).count()
    }

    /// All that are open.
    pub(crate) fn all(&self) -> Vec<Arc<OpenCarrier>> {
        lock(&self.all).values().cloned().collect()
    }

    /// Has streams of this worker opened on a carrier.
    fn add_to_worker(&self, worker: usize, carrier: &Arc<OpenCarrier>) {
        if let Some(of_worker) = self.of_workers.get(worker) {
            lock(&of_worker.carriers).push(Arc::clone(carrier));
        }
    }

    fn register(&self, carrier: Arc<OpenCarrier>) -> Registered<'_> {
        lock(&self.all).insert(carrier.agreed.id, Arc::clone(&carrier));
        Registered { carriers: self, carrier }
    }
}

impl OfWorker {
    /// Whether the worker has no carrier with room for more.
    fn needs_one(&self) -> bool {
        let carriers = lock(&self.carriers);
        let has_room =
            |carrier: &Arc<OpenCarrier>| carrier.link.is_usable() && !carrier.is_nearly_full();
        carriers.len() < SENDER_CARRIERS && !carriers.iter().any(has_room)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(&self.carriers.all).remove(&self.carrier.agreed.id);
        for of_worker in &self.carriers.of_workers {
            let mut carriers = lock(&of_worker.carriers);
            let before = carriers.len();
            carriers.retain(|carrier| !Arc::ptr_eq(carrier, &self.carrier));
            if carriers.len() != before {
                of_worker.changed.notify_one();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
