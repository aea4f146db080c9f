//! What was seen: counts of all, of each key and of each reason, and the open connections.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::durations::Durations;
use crate::config::{KeyName, as_given};
use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::traffic::Traffic;
use crate::keys::set::Key;
use crate::protocol::carrier::StreamId;
use crate::protocol::{Client, ConnectionId, KeyId, Session, Suite};
use crate::status::{Failure, OpenConnection, Target, Totals, UnixTime};

/// The result of a handshake that ended in a session.
pub(super) const OK: &str = "ok";
/// What a connection counts as that a panic has ended.
pub(super) const PANIC: &str = "panic";

#[derive(Default)]
pub(super) struct Seen {
    /// By result: [`OK`], or the name of the reason.
    pub(super) handshakes: BTreeMap<&'static str, u64>,
    pub(super) handshakes_took: Durations,
    pub(super) connects_took: Durations,
    pub(super) target: TargetSeen,
    /// Open connections by their id. Boxed, since a map of many leaves half of its room free.
    pub(super) open: BTreeMap<u64, Box<Open>>,
    pub(super) all: Counts,
    /// Connections that ended without a key, by the name of the reason.
    pub(super) closed_without_key: BTreeMap<&'static str, u64>,
    pub(super) keys: HashMap<KeyId, KeySeen>,
    pub(super) failures: BTreeMap<&'static str, Failed>,
}

/// Connections, and the bytes that they have moved.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// By the name of the reason.
    pub(super) closed: BTreeMap<&'static str, u64>,
}

/// What was seen of a key.
#[derive(Clone, Default)]
pub(super) struct KeySeen {
    pub(super) counts: Counts,
    /// How many connections are open.
    open: usize,
    /// The latest handshake, and what it agreed on.
    pub(super) last_used: Option<(UnixTime, Suite)>,
}

/// The last connect to the target.
#[derive(Clone, Default)]
pub(super) struct TargetSeen {
    tried: Option<UnixTime>,
    error: Option<String>,
}

/// The last connection that failed for a reason, and how many did.
#[derive(Clone)]
pub(super) struct Failed {
    count: u64,
    /// Its place among all failures: many have the same second.
    pub(super) number: u64,
    last: UnixTime,
    peer: Peer,
    /// Not the key itself: its secret must not outlast it.
    key: Option<KeyName>,
    message: String,
    hint: Option<String>,
}

/// A connection whose relay has begun.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) who: Who,
    pub(super) opened: UnixTime,
    pub(super) traffic: Arc<Traffic>,
    /// Bytes that count already.
    counted: (u64, u64),
}

/// What both ends have agreed on.
#[derive(Clone, Copy)]
pub(crate) struct Agreed {
    pub(crate) suite: Suite,
    pub(crate) id: ConnectionId,
    /// Which of the streams of that connection, if it is a carrier.
    pub(crate) stream: Option<StreamId>,
}

/// The name of a connection in the logs of both ends: of a stream, its carrier's and its number.
#[derive(Clone, Copy)]
pub(crate) struct Conn(ConnectionId, Option<StreamId>);

#[cfg(test)]
impl Conn {
    /// The name of a connection with a session of its own.
    pub(crate) const fn of(id: ConnectionId) -> Self {
        Self(id, None)
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id, stream) = self;
        id.fmt(f)?;
        stream.map_or(Ok(()), |stream| write!(f, "/{stream}"))
    }
}

impl Agreed {
    /// The connection's name.
    pub(crate) const fn conn(&self) -> Conn {
        Conn(self.id, self.stream)
    }

    pub(crate) const fn of(session: &Session) -> Self {
        Self { suite: session.suite, id: session.connection_id, stream: None }
    }
}

/// Who a connection is of.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) key: Arc<Key>,
    pub(crate) agreed: Agreed,
    pub(crate) peer: Peer,
    /// Who the sender says that its client is.
    pub(crate) client: Option<Box<Client>>,
}

impl Seen {
    pub(super) fn count_handshake(&mut self, result: Result<(KeyId, Suite), &'static str>) {
        let name = result.as_ref().map_or_else(|reason| *reason, |_agreed| OK);
        *self.handshakes.entry(name).or_default() += 1;
        if let Ok((key, suite)) = result {
            self.keys.entry(key).or_default().last_used = Some((UnixTime::now(), suite));
        }
    }

    pub(super) fn open(&mut self, id: u64, who: Who, traffic: Arc<Traffic>) {
        self.all.opened += 1;
        let key = self.keys.entry(who.key.id()).or_default();
        key.counts.opened += 1;
        key.open += 1;
        let open = Open { who, opened: UnixTime::now(), traffic, counted: (0, 0) };
        self.open.insert(id, Box::new(open));
    }

    /// Adds what a part of the open connections have moved, those from this id on. Returns
    /// where the next part begins.
    pub(super) fn count_part(&mut self, from: u64, most: usize) -> Option<u64> {
        let Self { open, all, keys, .. } = self;
        let mut last = None;
        for (id, open) in open.range_mut(from..).take(most) {
            count_moved(open, all, keys);
            last = Some(*id);
        }
        last.map(|id| id.saturating_add(1))
    }

    /// Counts a connection that ended, opened or not. Returns the bytes out of its local
    /// socket, and into it.
    pub(super) fn close(
        &mut self,
        id: u64,
        key: Option<KeyId>,
        reason: &'static str,
    ) -> (u64, u64) {
        // A connection that was never opened has moved no bytes.
        let open = self.open.remove(&id);
        let moved = open.map_or((0, 0), |mut open| {
            count_moved(&mut open, &mut self.all, &mut self.keys);
            self.keys.entry(open.who.key.id()).or_default().open -= 1;
            open.counted
        });
        *self.all.closed.entry(reason).or_default() += 1;
        let closed = match key {
            Some(key) => &mut self.keys.entry(key).or_default().counts.closed,
            None => &mut self.closed_without_key,
        };
        *closed.entry(reason).or_default() += 1;
        moved
    }

    /// Forgets those of these keys that no open connection has.
    pub(super) fn forget_unused(&mut self, keys: &[KeyId]) {
        for key in keys {
            if self.keys.get(key).is_some_and(|seen| seen.open == 0) {
                self.keys.remove(key);
            }
        }
    }

    pub(super) fn fail(&mut self, peer: &Peer, key: Option<&Arc<Key>>, reason: &CloseReason) {
        let count = self.failures.get(reason.name()).map_or(0, |before| before.count);
        let number = self.failures.values().map(|failed| failed.number).max().unwrap_or(0);
        let failed = Failed {
            count: count.saturating_add(1),
            number: number.saturating_add(1),
            last: UnixTime::now(),
            peer: peer.clone(),
            key: key.map(|key| key.name.clone()),
            message: as_given(&reason.to_string()).into_owned(),
            hint: reason.hint().map(|hint| as_given(hint).into_owned()),
        };
        self.failures.insert(reason.name(), failed);
    }
}

fn count_moved(open: &mut Open, all: &mut Counts, keys: &mut HashMap<KeyId, KeySeen>) {
    let now = (open.traffic.sent(), open.traffic.received());
    let (sent, received) = (now.0 - open.counted.0, now.1 - open.counted.1);
    open.counted = now;
    for counts in [all, &mut keys.entry(open.who.key.id()).or_default().counts] {
        counts.sent += sent;
        counts.received += received;
    }
}

impl Counts {
    pub(super) fn told(&self) -> Totals {
        Totals {
            connections: self.opened,
            sent_bytes: self.sent,
            received_bytes: self.received,
            closed: named(&self.closed),
        }
    }
}

/// Counts with names that last as long as those who are told.
pub(super) fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

impl TargetSeen {
    pub(super) fn of(result: Result<(), String>) -> Self {
        let error = result.err().map(|error| as_given(&error).into_owned());
        Self { tried: Some(UnixTime::now()), error }
    }

    pub(super) fn told(self, address: String) -> Target {
        let Self { tried, error } = self;
        Target { address, reachable: tried.map(|_tried| error.is_none()), tried, error }
    }
}

impl Failed {
    pub(super) fn told(self, reason: &str) -> Failure {
        Failure {
            reason: reason.to_owned(),
            count: self.count,
            last: self.last,
            peer: self.peer.to_string(),
            key: self.key.map(|name| name.to_string()),
            message: self.message,
            hint: self.hint,
        }
    }
}

impl Open {
    pub(super) fn told(self) -> OpenConnection {
        let Who { key, agreed, peer, client } = self.who;
        let waiting = self.traffic.waiting();
        OpenConnection {
            conn: agreed.conn().to_string(),
            key: key.name.to_string(),
            key_id: key.id().to_string(),
            peer: peer.to_string(),
            client: client.map(|client| client.to_string()),
            opened: self.opened,
            kex: agreed.suite.kex.to_string(),
            cipher: agreed.suite.cipher.to_string(),
            sent_bytes: self.traffic.sent(),
            received_bytes: self.traffic.received(),
            waiting_for_tunnel_bytes: waiting.for_tunnel.into(),
            waiting_for_local_bytes: waiting.for_local.into(),
            waiting_seconds: waiting.since.as_secs(),
        }
    }
}
