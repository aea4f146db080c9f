//! What a running spiped tells of itself: the answer to `spiped status`.
//!
//! ```text
//! daemon: what was seen ─▶ Status ─▶ control socket ─▶ spiped status
//! ```
//!
//! Times are whole seconds since 1970, in UTC. `sent` is what came out of the local socket
//! and went into the tunnel, `received` what went into the local socket. Reasons are those
//! after `reason=` in the log. There is no secret in it.

pub(crate) mod metrics;
pub(crate) mod tab;
mod table;
pub(crate) mod text;
mod words;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Role;

/// The version of this form. A later one may have more fields, and keeps these.
pub(crate) const VERSION: u32 = 1;
/// How many failures are told, each of another reason.
pub(crate) const FAILURES_MAX: usize = 32;
/// How many open connections are told, those first that have waited longest.
pub(crate) const OPEN_MAX: usize = 20_000;

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
        // A clock before 1970 is wrong anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(since.as_secs())
    }
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
        serde_json::from_str(json).map_err(|error| error.to_string())
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
fn ascii(json: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A process with a target that is down, and one open connection.
    pub(super) fn asked(name: &str) -> Asked {
        let at = |ago: u64| UnixTime(1_000_000 - ago);
        let totals = Totals { connections: 9, sent_bytes: 5000, ..Totals::default() };
        let key = Key {
            name: "alice".to_owned(),
            id: "3f9a-12bc-07de-5581".to_owned(),
            in_force: true,
            connections: 2,
            connection_limit: Some(10),
            address: None,
            last_used: Some(at(5)),
            kex: Some("x25519mlkem768".to_owned()),
            cipher: Some("aes-256-gcm".to_owned()),
            totals: totals.clone(),
        };
        let failure = Failure {
            reason: "target-refused".to_owned(),
            count: 3,
            last: at(200),
            peer: "10.0.0.9:4000".to_owned(),
            key: Some("alice".to_owned()),
            message: "cannot connect to the target: connection refused".to_owned(),
            hint: Some("start it".to_owned()),
        };
        let open = OpenConnection {
            conn: "7-1".to_owned(),
            key: key.name.clone(),
            key_id: key.id.clone(),
            peer: "10.0.0.9:4001".to_owned(),
            client: None,
            opened: at(60),
            kex: "x25519mlkem768".to_owned(),
            cipher: "aes-256-gcm".to_owned(),
            sent_bytes: 1,
            received_bytes: 2,
            waiting_for_tunnel_bytes: 0,
            waiting_for_local_bytes: 0,
            waiting_seconds: 0,
        };
        let status = Status {
            version: VERSION,
            spiped: "2.0.0".to_owned(),
            role: Role::Decrypt,
            state: State::Serving,
            pid: 4711,
            unit: Some(format!("spiped-receive@{name}.service")),
            since: at(7300),
            now: at(0),
            listening: vec!["10.0.0.5:6379".to_owned()],
            target: Target {
                address: "127.0.0.1:6379".to_owned(),
                reachable: Some(false),
                tried: Some(at(200)),
                error: Some("connection refused".to_owned()),
            },
            kex: "auto".to_owned(),
            connections: 2,
            connection_limit: 100,
            strangers: 1,
            stranger_limit: 12,
            keys: vec![key],
            keys_reloaded: Reloads { last_successful: None, last_success: Some(at(7300)) },
            totals,
            closed_without_key: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            handshake_seconds: Histogram {
                le: vec![0.005, 0.01],
                counts: vec![5, 7],
                count: 7,
                sum: 0.03,
            },
            target_connect_seconds: Histogram::default(),
            recent: Recent {
                seconds: 300,
                handshakes_ok: 7,
                handshakes_failed: 2,
                ..Recent::default()
            },
            failures: vec![failure],
            open: Some(vec![open]),
        };
        let answer = Answer::Told(Box::new(status));
        Asked { name: name.to_owned(), socket: format!("/run/{name}/control"), answer }
    }

    /// One with a reader that has stalled.
    pub(super) fn stalled(name: &str) -> Asked {
        let mut asked = asked(name);
        let Answer::Told(status) = &mut asked.answer else { unreachable!() };
        for open in status.open.iter_mut().flatten() {
            (open.waiting_for_local_bytes, open.waiting_seconds) = (64 << 10, 300);
        }
        asked
    }

    /// One that does not answer.
    pub(super) fn silent(name: &str) -> Asked {
        let answer = Answer::Failed {
            error: "it does not answer".to_owned(),
            hint: "restart it".to_owned(),
        };
        Asked { name: name.to_owned(), socket: format!("/run/{name}/control"), answer }
    }

    #[test]
    fn the_json_of_all_has_the_model_or_the_error_of_each() {
        let json = to_json(&[asked("redis"), silent("spiped-send")]);
        let all: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&all[0]["name"], &all[0]["pid"]), (&"redis".into(), &4711.into()));
        assert_eq!(all[0]["error"], serde_json::Value::Null);
        assert_eq!(all[1]["error"], "it does not answer");
        assert!(!json.contains('\n'));
    }

    #[test]
    fn a_text_in_any_language_arrives_as_it_was() {
        let text = "\u{7f} caf\u{e9} \u{1f980} \u{202e}\n\"";
        let json = ascii(&serde_json::to_string(text).unwrap());
        assert!(json.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
