//! The observer: counts every handshake, and every connection that is opened, moves bytes
//! and is closed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::close_reason::CloseReason;
use crate::config::as_given;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::traffic::Traffic;
use crate::unit::notify::Notifier;

/// The result of a handshake that ended in a session.
const OK: &str = "ok";

/// What a connection counts as that a panic has ended.
const PANIC: &str = "panic";

/// The counts, and the end of the unit's status line.
pub(crate) struct Observer {
    notifier: Notifier,
    seen: Arc<Mutex<Seen>>,
}

/// A connection whose relay has begun. Guard: where nobody has said how the connection
/// ended, a panic has ended it, and that is counted when this is dropped.
pub(crate) struct OpenConnection {
    seen: Arc<Mutex<Seen>>,
    id: u64,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Seen {
    /// By result: [`OK`], or the name of the reason.
    handshakes: BTreeMap<&'static str, u64>,
    /// Open connections by their id.
    open: BTreeMap<u64, Arc<Traffic>>,
    /// Closed connections by the name of the reason.
    closed: BTreeMap<&'static str, u64>,
    /// Bytes of closed connections.
    sent: u64,
    received: u64,
    last_served: Option<String>,
    /// When, which peer, and why.
    last_failed: Option<String>,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Handshakes that both ends have finished.
    pub(crate) handshakes: u64,
    /// Connections that ended cleanly.
    pub(crate) served: u64,
    /// Bytes of all connections, open ones included.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Observer {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { notifier, seen: Arc::default() }
    }

    /// Counts a handshake that ended in a session, or for the reason of this name.
    pub(crate) fn handshake_ended(&self, result: Result<(), &'static str>) {
        let result = result.err().unwrap_or(OK);
        *self.seen().handshakes.entry(result).or_default() += 1;
    }

    /// Notes a connection whose relay begins.
    pub(crate) fn connection_opened(&self, id: u64) -> OpenConnection {
        let traffic = Arc::<Traffic>::default();
        self.seen().open.insert(id, Arc::clone(&traffic));
        OpenConnection { seen: Arc::clone(&self.seen), id, traffic }
    }

    /// Counts a connection that ended, opened or not. Returns how many bytes came out of its
    /// local socket, and how many went into it.
    pub(crate) fn connection_closed(
        &self,
        id: u64,
        peer: &Peer,
        reason: &CloseReason,
    ) -> (u64, u64) {
        let mut seen = self.seen();
        // A connection that was never opened has moved no bytes.
        let traffic = seen.open.remove(&id);
        let (sent, received) = seen.count_closed(traffic.as_deref(), reason.name());
        if reason.is_failure() {
            let why = reason.to_string();
            seen.last_failed = Some(format!("{}: {peer}: {}", now(), as_given(&why)));
        } else if reason.is_clean() || received > 0 {
            seen.last_served = Some(now());
        }
        drop(seen);
        self.status_changed();
        (sent, received)
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

    pub(crate) fn totals(&self) -> Totals {
        let seen = self.seen();
        let open = |bytes: fn(&Traffic) -> u64| seen.open.values().map(|it| bytes(it)).sum::<u64>();
        Totals {
            handshakes: seen.handshakes.get(OK).copied().unwrap_or_default(),
            served: seen.closed.get(CloseReason::Finished.name()).copied().unwrap_or_default(),
            sent: seen.sent + open(Traffic::sent),
            received: seen.received + open(Traffic::received),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Seen {
    /// Returns the bytes out of the local socket, and into it.
    fn count_closed(&mut self, traffic: Option<&Traffic>, reason: &'static str) -> (u64, u64) {
        let (sent, received) = traffic.map_or((0, 0), |it| (it.sent(), it.received()));
        self.sent += sent;
        self.received += received;
        *self.closed.entry(reason).or_default() += 1;
        (sent, received)
    }
}

impl OpenConnection {
    /// The counters of its bytes.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        if let Some(traffic) = seen.open.remove(&self.id) {
            seen.count_closed(Some(&traffic), PANIC);
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of the status line: when a connection was last served, and which one failed
/// last.
impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen();
        if let Some(served) = &seen.last_served {
            write!(f, "; last served {served}")?;
        }
        seen.last_failed.as_ref().map_or(Ok(()), |failed| write!(f, "; last failed {failed}"))
    }
}

/// The time in UTC, to the second: 2026-11-27T12:03:04Z.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::connection::handshake_error::PreAuthError;
    use crate::daemon::relay::error::RelayError;

    const ID: u64 = 7;

    fn observer() -> Observer {
        Observer::new(Notifier::from_env())
    }

    fn peer() -> Peer {
        Peer::Inet("192.0.2.7:1".parse().unwrap())
    }

    #[test]
    fn the_last_of_both_is_told_with_its_time() {
        let observer = observer();
        observer.connection_closed(ID, &peer(), &RelayError::ShuttingDown.into());
        observer.connection_closed(ID, &peer(), &PreAuthError::Probe.into());
        assert_eq!(observer.to_string(), "");
        observer.connection_closed(ID, &peer(), &CloseReason::Finished);
        observer.connection_closed(ID, &peer(), &PreAuthError::Replayed.into());
        observer.connection_closed(ID, &peer(), &CloseReason::Limit(1));
        let told = observer.to_string();
        let digits: String =
            told.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
        assert_eq!(
            digits,
            "; last served 0000-00-00T00:00:00Z; last failed 0000-00-00T00:00:00Z: \
             000.0.0.0:0: the connection limit of 0 is reached",
            "{told}"
        );
    }

    #[test]
    fn bytes_count_while_they_move_and_once_their_connection_is_closed() {
        let observer = observer();
        let open = observer.connection_opened(ID);
        let traffic = open.traffic();
        traffic.add_sent(5);
        traffic.add_received(7);
        let bytes = |totals: Totals| (totals.sent, totals.received);
        assert_eq!(bytes(observer.totals()), (5, 7));
        traffic.add_sent(1);
        assert_eq!(observer.connection_closed(ID, &peer(), &CloseReason::Finished), (6, 7));
        assert_eq!(bytes(observer.totals()), (6, 7));
        assert_eq!(observer.totals().served, 1);
    }

    #[test]
    fn a_connection_that_a_panic_has_ended_is_open_no_more() {
        let observer = observer();
        let open = observer.connection_opened(ID);
        open.traffic().add_sent(5);
        drop(open);
        let ended = observer.connection_opened(ID);
        observer.connection_closed(ID, &peer(), &CloseReason::Finished);
        drop(ended);
        assert_eq!(observer.totals().sent, 5);
        let seen = observer.seen();
        assert!(seen.open.is_empty());
        assert_eq!(seen.closed, [(PANIC, 1), (CloseReason::Finished.name(), 1)].into());
    }

    #[test]
    fn handshakes_count_by_their_result() {
        let observer = observer();
        observer.handshake_ended(Ok(()));
        observer.handshake_ended(Err("replay"));
        observer.handshake_ended(Err("replay"));
        assert_eq!(observer.totals().handshakes, 1);
        assert_eq!(observer.seen().handshakes, [(OK, 1), ("replay", 2)].into());
    }
}
