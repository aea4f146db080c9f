//! What is known of a pipe. Nothing here is a judgement.

use std::fmt;

use serde::Serialize;

use crate::check;
use crate::config::Role;
use crate::status::{State, UnixTime};

/// What was seen on this host.
pub(super) struct Seen {
    pub(super) pipes: Vec<Pipe>,
    /// What this user cannot see.
    pub(super) not_seen: Vec<String>,
}

/// A process of a pipe.
#[derive(Debug, Serialize)]
pub(super) struct Pipe {
    pub(super) name: String,
    /// The path of its control socket.
    pub(super) socket: Option<String>,
    #[serde(flatten)]
    pub(super) told: Told,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Told {
    Facts(Box<Facts>),
    Idle(IdleSocket),
    /// Why it could not be asked.
    Failed {
        error: String,
        hint: String,
    },
}

impl Pipe {
    pub(super) fn facts(&self) -> Option<&Facts> {
        match &self.told {
            Told::Facts(facts) => Some(facts),
            Told::Idle(_) | Told::Failed { .. } => None,
        }
    }
}

/// A socket unit whose service no client has started yet.
#[derive(Debug, Serialize)]
pub(super) struct IdleSocket {
    pub(super) role: Role,
    pub(super) state: Waits,
    pub(super) unit: String,
    pub(super) listening: Vec<Source>,
    /// Why the start by the first client would be refused.
    pub(super) refused: Option<Refusal>,
    pub(super) not_judged: Option<String>,
}

/// The state of a process that is not there yet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Waits {
    Idle,
}

/// What this check itself lacks, such as descriptors: that is no fault of a pipe.
#[derive(Debug)]
pub(super) struct Lack(String);

impl Lack {
    /// What may help.
    pub(super) const HINT: &str =
        "raise the limits of file descriptors, of threads or of memory (ulimit), or try again";

    pub(super) fn of(error: &dyn fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system lacks what this check needs: {}", self.0)
    }
}

/// What a process tells, and what was tried at its sockets.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) pid: u32,
    /// The unit of systemd.
    pub(super) unit: Option<String>,
    pub(super) listening: Vec<Source>,
    pub(super) target: Target,
    pub(super) kex: Exchange,
    pub(super) keys: Vec<Key>,
    /// Of a unit of a pipe with a name: why its next start would be refused.
    pub(super) refused: Option<Refusal>,
    /// Why that cannot be judged.
    pub(super) not_judged: Option<String>,
    /// Of a sender: whether its pipe works, as `spiped check -k` tries it.
    pub(super) proof: Option<Proof>,
    /// TCP addresses of the process that are no source: where it serves its status. Only
    /// where its sockets can be seen.
    pub(super) status_http: Vec<String>,
}

/// An address where the process listens.
#[derive(Debug, Serialize)]
pub(super) struct Source {
    pub(super) address: String,
    #[serde(flatten)]
    pub(super) plaintext: Plaintext,
}

/// What plaintext gets at a source.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "plaintext", rename_all = "kebab-case")]
pub(super) enum Plaintext {
    /// A receiver: it was tried, and refused.
    Refused { seconds: f64 },
    /// A receiver: it was tried, and answered.
    Served { error: String },
    /// A receiver: it was tried, and neither.
    Unproved { error: String },
    /// A sender takes it from programs of this host.
    Loopback,
    /// A sender takes it from programs that may open the unix socket.
    UnixSocket(Rights),
    /// A sender takes it from other hosts.
    Exposed,
    /// The process only drains: nothing was tried.
    NotTried,
}

/// Who may open a unix socket.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rights {
    /// In octal, such as 0600; none where it cannot be seen.
    pub(super) mode: Option<String>,
    /// The uid.
    pub(super) owner: Option<u32>,
    /// The gid.
    pub(super) group: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) address: String,
    #[serde(flatten)]
    pub(super) place: Place,
    /// Of a receiver: why its last connect failed.
    pub(super) error: Option<String>,
}

/// Where the target of a pipe is.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "place", rename_all = "kebab-case")]
pub(super) enum Place {
    /// The target of a sender: what comes there is encrypted.
    Receiver,
    UnixSocket(Rights),
    /// What listens on the target's port on this host, sources of pipes left out.
    ThisHost {
        listeners: Vec<Listener>,
        /// Whether anything listens at its address, be it a source of a pipe.
        is_served: bool,
    },
    OtherHost,
    /// Why it cannot be told.
    Unknown {
        error: String,
    },
    /// The process only drains, or the sockets of this host cannot be seen.
    NotLooked,
}

/// A socket on the port of a target.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Listener {
    pub(super) address: String,
    /// Whether other hosts may reach it: it is no address of loopback.
    pub(super) is_exposed: bool,
    /// The process that has it, where that can be seen.
    pub(super) pid: Option<i32>,
    pub(super) program: Option<String>,
}

/// The key exchange.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Exchange {
    /// The value of `--kex`; of a sender what that means.
    pub(super) setting: String,
    /// What a receiver accepts, or a sender uses.
    pub(super) accepted: Vec<String>,
    /// Open connections.
    pub(super) connections: usize,
    /// Open connections with X25519 alone.
    pub(super) classical: usize,
    /// The keys whose latest handshake was with X25519 alone.
    pub(super) classical_keys: Vec<String>,
}

/// A key in force.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Key {
    #[serde(rename = "key")]
    pub(super) name: String,
    #[serde(rename = "key_id")]
    pub(super) id: String,
    /// The file of the unit with this name.
    pub(super) file: Option<String>,
    /// The last write of the file.
    pub(super) written: Option<UnixTime>,
    /// Whether the key in the file is the one in force; none where it was not read.
    pub(super) is_in_force: Option<bool>,
}

/// Why the next start of a unit would be refused.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) error: String,
    pub(super) hint: String,
}

/// Whether a sender's pipe works.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub(super) enum Proof {
    Works(Box<check::Pipe>),
    Failed { error: String, hint: String },
    NotTried { error: String },
}
