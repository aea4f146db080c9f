//! The observer: counts every handshake, and every connection that is opened, moves bytes
//! and is closed. What is counted is in the status, and a part of it in the unit's line.
//!
//! ```text
//! handshake, connect, open, moved, closed ─▶ seen ─┬▶ samples: every few seconds
//!                                                  └▶ told: when somebody asks
//! ```
//!
//! Bytes are counted by their connection alone, without a lock. They are added up when a
//! sample is taken, when the connection ends, and when somebody asks: some connections at a
//! time, so that nobody waits for the lock.

mod durations;
mod samples;
mod seen;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub(crate) use self::samples::INTERVAL;
use self::samples::{Sample, Samples};
pub(crate) use self::seen::{Agreed, Conn, Who};
use self::seen::{OK, Open, PANIC, Seen, TargetSeen, named};
use super::close_reason::CloseReason;
use crate::config::as_given;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::traffic::Traffic;
use crate::keys::set::Key;
use crate::protocol::{KeyId, Suite};
use crate::status::{
    FAILURES_MAX, Failure, Histogram, OPEN_MAX, OpenConnection, Recent, Reloads, Target, Totals,
    UnixTime, utc_now,
};
use crate::unit::notify::Notifier;

/// How many open connections are looked at before others get the lock.
const AT_ONCE: usize = 256;
/// How long the lock is left to others. A thread that takes it again at once would have it
/// before those that wait for it have woken up.
const PAUSE: Duration = Duration::from_micros(50);

/// The counts, and the end of the unit's status line.
pub(crate) struct Observer {
    notifier: Notifier,
    pub(crate) since: UnixTime,
    seen: Arc<Mutex<Seen>>,
    samples: Mutex<Samples>,
    of_process: Mutex<OfProcess>,
}

/// What was seen of the process itself.
#[derive(Default)]
struct OfProcess {
    listening: Vec<String>,
    reloads: Reloads,
    last_served: Option<String>,
    /// When, which peer, and why.
    last_failed: Option<String>,
}

/// A connection whose relay has begun. Guard: where nobody has said how the connection
/// ended, a panic has ended it, and that is counted when this is dropped.
pub(crate) struct OpenGuard {
    seen: Arc<Mutex<Seen>>,
    id: u64,
}

/// The counts of the whole process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) target: Target,
    pub(crate) totals: Totals,
    pub(crate) closed_without_key: BTreeMap<String, u64>,
    pub(crate) handshakes: BTreeMap<String, u64>,
    pub(crate) handshake_seconds: Histogram,
    pub(crate) target_connect_seconds: Histogram,
    pub(crate) recent: Recent,
    pub(crate) failures: Vec<Failure>,
}

impl Observer {
    pub(crate) fn new(notifier: Notifier) -> Self {
        let since = UnixTime::now();
        let reloads = Reloads { last_successful: None, last_success: Some(since) };
        Self {
            notifier,
            since,
            seen: Arc::default(),
            samples: Mutex::new(Samples::new(Instant::now())),
            of_process: Mutex::new(OfProcess { reloads, ..OfProcess::default() }),
        }
    }

    /// Notes the addresses that the process listens on; none once it does not any more.
    pub(crate) fn listening_on(&self, names: &[String]) {
        lock(&self.of_process).listening = names.to_vec();
    }

    /// Notes a reload of the keys. Forgets keys that are neither in force nor in use.
    pub(crate) fn keys_reloaded(&self, is_in_force: impl Fn(KeyId) -> bool) {
        let last_success = Some(UnixTime::now());
        lock(&self.of_process).reloads = Reloads { last_successful: Some(true), last_success };
        // Which keys are in force is found without the lock.
        let known: Vec<_> = self.seen().keys.keys().copied().collect();
        let out_of_force: Vec<_> = known.into_iter().filter(|id| !is_in_force(*id)).collect();
        self.seen().forget_unused(&out_of_force);
    }

    /// Notes a reload of the keys that was refused.
    pub(crate) fn keys_not_reloaded(&self) {
        lock(&self.of_process).reloads.last_successful = Some(false);
    }

    /// Counts a handshake that ended in a session, or for the reason of this name, and how
    /// long a peer that proved the key took.
    pub(crate) fn handshake_ended(
        &self,
        result: Result<(KeyId, Suite), &'static str>,
        took: Duration,
    ) {
        let mut seen = self.seen();
        if result.is_ok() {
            seen.handshakes_took.add(took);
        }
        seen.count_handshake(result);
    }

    /// Notes a connect to the target, or why it failed.
    pub(crate) fn target_tried(&self, result: Result<(), String>, took: Duration) {
        let mut seen = self.seen();
        if result.is_ok() {
            seen.connects_took.add(took);
        }
        seen.target = TargetSeen::of(result);
    }

    /// Notes a connection whose relay begins. The counters are of its bytes.
    pub(crate) fn connection_opened(&self, id: u64, who: Who, traffic: Arc<Traffic>) -> OpenGuard {
        self.seen().open(id, who, traffic);
        OpenGuard { seen: Arc::clone(&self.seen), id }
    }

    /// Counts a connection that ended, opened or not. Returns how many bytes came out of its
    /// local socket, and how many went into it.
    pub(crate) fn connection_closed(
        &self,
        id: u64,
        (peer, key): (&Peer, Option<&Arc<Key>>),
        reason: &CloseReason,
    ) -> (u64, u64) {
        let mut seen = self.seen();
        let (sent, received) = seen.close(id, key.map(|key| key.id()), reason.name());
        if reason.is_failure() {
            seen.fail(peer, key, reason);
        }
        drop(seen);
        let mut process = lock(&self.of_process);
        if reason.is_failure() {
            let why = reason.to_string();
            process.last_failed = Some(format!("{}: {peer}: {}", utc_now(), as_given(&why)));
        } else if reason.is_clean() || received > 0 {
            process.last_served = Some(utc_now());
        }
        drop(process);
        self.status_changed();
        (sent, received)
    }

    /// Takes a sample; so many connections have a permit at its end.
    pub(crate) async fn sample(&self, connections: impl Fn() -> usize) {
        let mut from = Some(0);
        while let Some(id) = from {
            from = self.seen().count_part(id, AT_ONCE);
            // This is on an event loop, which goes on meanwhile.
            sleep(PAUSE).await;
        }
        let sample = self.counted(connections());
        lock(&self.samples).push(sample);
    }

    /// Marks the status as changed.
    pub(crate) fn status_changed(&self) {
        self.notifier.changed();
    }

    /// Notifies systemd of the status, now and whenever it changes.
    pub(crate) async fn keep_telling(
        &self,
        status: impl Fn() -> String,
    ) -> std::convert::Infallible {
        self.notifier.keep_telling(status).await
    }

    /// The addresses that the process listens on.
    pub(crate) fn listening(&self) -> Vec<String> {
        lock(&self.of_process).listening.clone()
    }

    pub(crate) fn reloads(&self) -> Reloads {
        lock(&self.of_process).reloads.clone()
    }

    /// All counts until now; `connections` have a permit. Pauses, so that no event loop has
    /// to wait: not for an event loop itself.
    pub(crate) fn told(&self, target: String, connections: usize) -> Told {
        let mut from = Some(0);
        while let Some(id) = from {
            from = self.seen().count_part(id, AT_ONCE);
            thread::sleep(PAUSE);
        }
        let now = self.counted(connections);
        let recent = lock(&self.samples).told(&now);
        let seen = self.seen();
        let mut failures: Vec<_> = seen.failures.clone().into_iter().collect();
        let (target_seen, totals) = (seen.target.clone(), seen.all.told());
        let closed_without_key = named(&seen.closed_without_key);
        let handshakes = named(&seen.handshakes);
        let handshake_seconds = seen.handshakes_took.told();
        let target_connect_seconds = seen.connects_took.told();
        drop(seen);
        failures.sort_by_key(|(_, failed)| std::cmp::Reverse(failed.number));
        failures.truncate(FAILURES_MAX);
        Told {
            target: target_seen.told(target),
            totals,
            closed_without_key,
            handshakes,
            handshake_seconds,
            target_connect_seconds,
            recent,
            failures: failures.into_iter().map(|(reason, failed)| failed.told(reason)).collect(),
        }
    }

    /// The counts of a key, and its latest handshake.
    pub(crate) fn told_of_key(&self, key: KeyId) -> (Totals, Option<(UnixTime, Suite)>) {
        let seen = self.seen().keys.get(&key).cloned().unwrap_or_default();
        (seen.counts.told(), seen.last_used)
    }

    /// The open connections, those first that have waited longest, then the oldest.
    pub(crate) fn told_open(&self) -> Vec<OpenConnection> {
        let mut all: Vec<Box<Open>> = Vec::new();
        let mut from = Some(0);
        while let Some(id) = from {
            let seen = self.seen();
            let part = seen.open.range(id..).take(AT_ONCE);
            from = None;
            for (id, open) in part {
                all.push(open.clone());
                from = Some(id.saturating_add(1));
            }
            drop(seen);
            thread::sleep(PAUSE);
        }
        // Each is looked at once: it changes meanwhile, and a sort without an order panics.
        all.sort_by_cached_key(|open| std::cmp::Reverse(open.traffic.waiting().since));
        all.truncate(OPEN_MAX);
        all.into_iter().map(|open| open.told()).collect()
    }

    /// What has been counted until now.
    fn counted(&self, connections: usize) -> Sample {
        let seen = self.seen();
        let handshakes: u64 = seen.handshakes.values().sum();
        let handshakes_ok = seen.handshakes.get(OK).copied().unwrap_or_default();
        Sample {
            at: Instant::now(),
            connections,
            opened: seen.all.opened,
            sent: seen.all.sent,
            received: seen.all.received,
            handshakes_ok,
            handshakes_failed: handshakes - handshakes_ok,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        if let Some(key) = seen.open.get(&self.id).map(|open| open.who.key.id()) {
            seen.close(self.id, Some(key), PANIC);
        }
    }
}

/// The end of the status line: when a connection was last served, and which one failed
/// last.
impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = lock(&self.of_process);
        if let Some(served) = &process.last_served {
            write!(f, "; last served {served}")?;
        }
        process.last_failed.as_ref().map_or(Ok(()), |failed| write!(f, "; last failed {failed}"))
    }
}

#[cfg(test)]
mod tests;
