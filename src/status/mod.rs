//! What a running spiped tells of itself: the answer to `spiped status`.
//!
//! ```text
//! daemon: what was seen ─▶ Status ─▶ control socket ─▶ spiped status
//! ```
//!
//! Times are whole seconds since 1970, in UTC. `sent` is what came out of the local socket
//! and went into the tunnel, `received` what went into the local socket. Reasons are those
//! after `reason=` in the log. There is no secret in it.

mod bounds;
pub(crate) mod metrics;
pub(crate) mod tab;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

use crate::config::Role;

/// The version of this form. A later one may have more fields, and keeps these.
pub(crate) const VERSION: u32 = 1;
/// How many failures are told, each of another reason.
pub(crate) const FAILURES_MAX: usize = 32;
/// How many open connections are told, those first that have waited longest.
pub(crate) const OPEN_MAX: usize = 20_000;
/// How many keys are told: twice as many as can be in force.
pub(crate) const KEYS_MAX: usize = 2000;
/// How many carriers are told, the oldest first.
pub(crate) const CARRIERS_MAX: usize = LIST_MAX;
/// How long another list may be in an answer that is understood.
const LIST_MAX: usize = 512;
/// How long a text may be in an answer that is understood.
pub(crate) const TEXT_MAX: usize = 4096;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All but the single connections.
    Summary,
    /// Each open connection, too.
    Connections,
}

/// A point in time: seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct UnixTime(pub(crate) u64);

/// One process of a pipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The version of the program.
    pub(crate) spiped: String,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) pid: u32,
    /// The unit of systemd.
    pub(crate) unit: Option<String>,
    pub(crate) since: UnixTime,
    pub(crate) now: UnixTime,
    /// The addresses of the source; none before they are known and while it drains.
    pub(crate) listening: Vec<String>,
    pub(crate) target: Target,
    /// What `--kex` says.
    pub(crate) kex: String,
    pub(crate) connections: u64,
    pub(crate) connection_limit: u64,
    /// Peers of a receiver that have not proved a key yet.
    pub(crate) strangers: u64,
    pub(crate) stranger_limit: u64,
    /// Sessions that many connections share, [`CARRIERS_MAX`] at most.
    pub(crate) carriers: Vec<Carrier>,
    /// In the order in which they were given; then those out of force that have
    /// connections.
    pub(crate) keys: Vec<Key>,
    pub(crate) keys_reloaded: Reloads,
    pub(crate) totals: Totals,
    /// How many ended for which reason without a key: a peer that proved none.
    pub(crate) closed_without_key: BTreeMap<String, u64>,
    /// How many handshakes had which result: `ok`, or the reason.
    pub(crate) handshakes: BTreeMap<String, u64>,
    pub(crate) handshake_seconds: Histogram,
    pub(crate) target_connect_seconds: Histogram,
    pub(crate) recent: Recent,
    /// The newest first, one for each reason.
    pub(crate) failures: Vec<Failure>,
    /// Where they were asked for.
    pub(crate) open: Option<Vec<OpenConnection>>,
}

/// What came of asking one process for its status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Asked {
    /// The name of the pipe, by which it can be asked for again.
    pub(crate) name: String,
    /// The path of the control socket.
    pub(crate) socket: String,
    /// The process that listens there, as the kernel tells.
    #[serde(skip)]
    pub(crate) pid: Option<u32>,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Told(Box<Status>),
    /// Why there is none.
    Failed {
        error: String,
        hint: String,
    },
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It cannot listen yet, and tries again.
    Waiting,
    Serving,
    /// It only lets its open connections end.
    Draining,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) address: String,
    /// Whether the last connect succeeded; `None` before the first one.
    pub(crate) reachable: Option<bool>,
    /// When the last connect ended.
    pub(crate) tried: Option<UnixTime>,
    /// Why the last connect failed.
    pub(crate) error: Option<String>,
}

/// A session that many connections share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Carrier {
    /// With which the names of its connections begin.
    pub(crate) conn: String,
    pub(crate) key: String,
    pub(crate) key_id: String,
    /// The other end.
    pub(crate) peer: String,
    pub(crate) opened: UnixTime,
    /// Connections that it carries.
    pub(crate) streams: u64,
    pub(crate) stream_limit: u64,
    /// Whether it takes further ones.
    pub(crate) is_taking: bool,
}

/// A key and all connections that have had it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Key {
    #[serde(rename = "key")]
    pub(crate) name: String,
    #[serde(rename = "key_id")]
    pub(crate) id: String,
    pub(crate) in_force: bool,
    pub(crate) connections: u64,
    pub(crate) connection_limit: Option<u64>,
    /// Where its connections to the target come from, with `--bind-per-key`.
    pub(crate) address: Option<String>,
    /// When its latest handshake ended, and what it agreed on.
    pub(crate) last_used: Option<UnixTime>,
    pub(crate) kex: Option<String>,
    pub(crate) cipher: Option<String>,
    pub(crate) totals: Totals,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Connections whose relay has begun.
    pub(crate) connections: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// How many ended for which reason, those included whose relay never began.
    pub(crate) closed: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloads {
    /// `None` before the first reload.
    pub(crate) last_successful: Option<bool>,
    /// The start counts.
    pub(crate) last_success: Option<UnixTime>,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// Upper bounds in seconds.
    pub(crate) le: Vec<f64>,
    /// How often it took at most so long.
    pub(crate) counts: Vec<u64>,
    /// How often in all.
    pub(crate) count: u64,
    /// Seconds in all.
    pub(crate) sum: f64,
}

/// The last minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recent {
    /// How many seconds; fewer soon after the start.
    pub(crate) seconds: u64,
    pub(crate) handshakes_ok: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) connections_opened: u64,
    /// Now: over the last interval of the samples.
    pub(crate) sent_bytes_per_second: u64,
    pub(crate) received_bytes_per_second: u64,
    pub(crate) samples: Samples,
}

/// One value for each interval, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) interval_seconds: u64,
    /// Open at the end of each interval.
    pub(crate) connections: Vec<u64>,
    pub(crate) sent_bytes_per_second: Vec<u64>,
    pub(crate) received_bytes_per_second: Vec<u64>,
    pub(crate) handshakes_failed: Vec<u64>,
}

/// Connections that failed for one reason, and the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) count: u64,
    pub(crate) last: UnixTime,
    pub(crate) peer: String,
    pub(crate) key: Option<String>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// A connection whose relay has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenConnection {
    pub(crate) conn: String,
    pub(crate) key: String,
    pub(crate) key_id: String,
    pub(crate) peer: String,
    /// The client behind a receiver's peer, where the sender tells it.
    pub(crate) client: Option<String>,
    pub(crate) opened: UnixTime,
    pub(crate) kex: String,
    pub(crate) cipher: String,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Sent into the tunnel, and not acknowledged by the other host.
    pub(crate) waiting_for_tunnel_bytes: u64,
    /// Received, and not taken by the local program.
    pub(crate) waiting_for_local_bytes: u64,
    /// For how long bytes have waited on either side without any progress.
    pub(crate) waiting_seconds: u64,
}

impl UnixTime {
    pub(crate) fn now() -> Self {
        Self::of(SystemTime::now())
    }

    pub(crate) fn of(time: SystemTime) -> Self {
        // A clock before 1970 is wrong anyway.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(since.as_secs())
    }
}

/// The time in UTC, to the second: 2026-11-27T12:03:04Z.
pub(crate) fn utc_now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = time::SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.trim_end_matches('Z'))
}

impl Asked {
    pub(crate) fn status(&self) -> Option<&Status> {
        match &self.answer {
            Answer::Told(status) => Some(status),
            Answer::Failed { .. } => None,
        }
    }
}

/// All of them as JSON of one line, in ASCII.
pub(crate) fn to_json(asked: &[Asked]) -> String {
    match serde_json::to_string(asked) {
        Ok(json) => ascii(&json),
        Err(error) => unreachable!("numbers, texts and lists have a form: {error}"),
    }
}

impl Status {
    /// As JSON of one line, in ASCII.
    pub(crate) fn to_json(&self) -> String {
        match serde_json::to_string(self) {
            Ok(json) => ascii(&json),
            Err(error) => unreachable!("numbers, texts and lists have a form: {error}"),
        }
    }

    /// Reads what [`Self::to_json`] has made.
    ///
    /// # Errors
    /// What is wrong in it.
    pub(crate) fn from_json(json: &str) -> Result<Self, String> {
        let status: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if status.is_bounded() { Ok(status) } else { Err("a text or a list is too long".into()) }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        })
    }
}

/// Escapes what is not printable ASCII, such as in the path of a socket; only texts have that.
pub(crate) fn ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\x7f' {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _written = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}
