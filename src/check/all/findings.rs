//! What of the facts is not as an auditor wants it: a pure judgement.

use std::fmt;

use serde::{Serialize, Serializer};

use super::facts::{Facts, IdleSocket, Key, Place, Plaintext, Proof, Refusal, Source};
use crate::config::Role;
use crate::status::{State, UnixTime};

const DAY: u64 = 86_400;

/// The stable name of a kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PlaintextServed,
    PlaintextUnproved,
    PlaintextSourceExposed,
    PlaintextTargetExposed,
    PlaintextTargetRemote,
    PlaintextTargetUnknown,
    TargetDown,
    StatusExposed,
    ClassicalAccepted,
    ClassicalUsed,
    KeyOld,
    KeyFileDiffers,
    StartRefused,
    PipeBroken,
}

impl Kind {
    /// All that there are.
    pub(crate) const ALL: [Self; 14] = [
        Self::PlaintextServed,
        Self::PlaintextUnproved,
        Self::PlaintextSourceExposed,
        Self::PlaintextTargetExposed,
        Self::PlaintextTargetRemote,
        Self::PlaintextTargetUnknown,
        Self::TargetDown,
        Self::StatusExposed,
        Self::ClassicalAccepted,
        Self::ClassicalUsed,
        Self::KeyOld,
        Self::KeyFileDiffers,
        Self::StartRefused,
        Self::PipeBroken,
    ];

    /// Whether a kind has this name.
    pub(crate) fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|kind| kind.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PlaintextServed => "plaintext-served",
            Self::PlaintextUnproved => "plaintext-unproved",
            Self::PlaintextSourceExposed => "plaintext-source-exposed",
            Self::PlaintextTargetExposed => "plaintext-target-exposed",
            Self::PlaintextTargetRemote => "plaintext-target-remote",
            Self::PlaintextTargetUnknown => "plaintext-target-unknown",
            Self::TargetDown => "target-down",
            Self::StatusExposed => "status-exposed",
            Self::ClassicalAccepted => "classical-accepted",
            Self::ClassicalUsed => "classical-used",
            Self::KeyOld => "key-old",
            Self::KeyFileDiffers => "key-file-differs",
            Self::StartRefused => "start-refused",
            Self::PipeBroken => "pipe-broken",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

/// What is not as it must be, where, and what to do.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    #[serde(rename = "finding")]
    pub(crate) kind: Kind,
    /// An address, a key or a setting.
    #[serde(rename = "where")]
    pub(crate) place: String,
    pub(crate) what: String,
    pub(crate) hint: String,
}

impl Finding {
    fn new(kind: Kind, place: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, place: place.to_owned(), what: what.into(), hint: hint.into() }
    }
}

/// What is found of a process. One that only drains is not judged: the next one is.
pub(super) fn judge(facts: &Facts, key_age_days: u64, now: UnixTime) -> Vec<Finding> {
    if facts.state == State::Draining {
        return vec![];
    }
    let sources = facts.listening.iter().filter_map(of_source);
    let mut found: Vec<_> = of_no_source(facts).into_iter().chain(sources).collect();
    found.extend(of_target(facts));
    found.extend(of_server(facts));
    found.extend(facts.status_http.iter().filter(|it| is_exposed(it)).map(|at| {
        let what = "the status is shown to other hosts, without encryption";
        Finding::new(Kind::StatusExposed, at, what, "set SPIPED_STATUS to an address of loopback")
    }));
    found.extend(of_exchange(facts));
    found.extend(facts.keys.iter().flat_map(|key| of_key(key, key_age_days, now)));
    let unit = facts.unit.as_deref().unwrap_or("its unit");
    found.extend(of_start(unit, facts.refused.as_ref()));
    if let Some(Proof::Failed { error, hint }) = &facts.proof {
        found.push(Finding::new(Kind::PipeBroken, &facts.target.address, error, hint));
    }
    found
}

/// What is found of a socket unit whose service has not been started.
pub(super) fn judge_idle(idle: &IdleSocket) -> Vec<Finding> {
    let sources = idle.listening.iter().filter_map(of_source);
    sources.chain(of_start(&idle.unit, idle.refused.as_ref())).collect()
}

fn of_start(unit: &str, refused: Option<&Refusal>) -> Option<Finding> {
    let Refusal { error, hint } = refused?;
    Some(Finding::new(Kind::StartRefused, unit, error, hint))
}

/// A receiver that listens nowhere has proved nothing.
fn of_no_source(facts: &Facts) -> Option<Finding> {
    let hint = "its log says why; a port may be in use";
    (facts.role == Role::Decrypt && facts.listening.is_empty()).then(|| {
        Finding::new(Kind::PlaintextUnproved, "nowhere", "the receiver does not listen", hint)
    })
}

fn of_source(source: &Source) -> Option<Finding> {
    let found = |kind, what: &str, hint| Some(Finding::new(kind, &source.address, what, hint));
    match &source.plaintext {
        Plaintext::Refused { .. }
        | Plaintext::Loopback
        | Plaintext::UnixSocket(_)
        | Plaintext::NotTried => None,
        Plaintext::Served { error } => found(
            Kind::PlaintextServed,
            error,
            "another program answers where the receiver says that it listens: find it with \
             'ss -ltnp', and end it",
        ),
        Plaintext::Unproved { error } => {
            found(Kind::PlaintextUnproved, error, "make this check again; its log may say more")
        }
        Plaintext::Exposed => found(
            Kind::PlaintextSourceExposed,
            "the sender takes plaintext from other hosts",
            "set SPIPED_SOURCE, or ListenStream= of its socket unit, to an address of loopback, or \
             to a unix socket",
        ),
    }
}

fn of_target(facts: &Facts) -> Vec<Finding> {
    let target = &facts.target.address;
    match &facts.target.place {
        Place::Receiver | Place::UnixSocket(_) | Place::NotLooked => vec![],
        Place::ThisHost { listeners, .. } => {
            let exposed = listeners.iter().filter(|it| it.is_exposed);
            let found = exposed.map(|listener| {
                let program = listener.told();
                let what = format!("{program} listens there, for other hosts, in plaintext");
                let hint = "bind it to loopback, such as 127.0.0.1, or to a unix socket";
                Finding::new(Kind::PlaintextTargetExposed, &listener.address, what, hint)
            });
            found.collect()
        }
        Place::OtherHost => vec![Finding::new(
            Kind::PlaintextTargetRemote,
            target,
            "the target is on another host, so that plaintext crosses the network",
            "run the receiver on the host of the target, before its loopback",
        )],
        Place::Unknown { error } => vec![Finding::new(
            Kind::PlaintextTargetUnknown,
            target,
            error,
            "name the target by its IP address, such as 127.0.0.1",
        )],
    }
}

/// Whether the server behind a receiver is there.
fn of_server(facts: &Facts) -> Option<Finding> {
    let what = match (&facts.target.place, &facts.target.error) {
        (Place::ThisHost { is_served: false, .. }, _) => {
            "nothing of this host listens there".to_owned()
        }
        (_, Some(error)) => format!("the last connect failed: {error}"),
        _ => return None,
    };
    let hint = "start the server of the target, see spiped-status(1)";
    Some(Finding::new(Kind::TargetDown, &facts.target.address, what, hint))
}

fn of_exchange(facts: &Facts) -> Vec<Finding> {
    const HINT: &str = "SPIPED_KEX=x25519mlkem768, and a restart, refuse it";
    let kex = &facts.kex;
    let place = format!("kex {}", kex.setting);
    let mut found = Vec::new();
    if kex.accepted.iter().any(|it| it == "x25519") {
        let what = match facts.role {
            Role::Decrypt => "senders may use x25519 alone, which is not hybrid",
            Role::Encrypt => "the sender uses x25519 alone, which is not hybrid",
        };
        let hint = match facts.role {
            Role::Decrypt => HINT,
            Role::Encrypt => "remove SPIPED_KEX, and restart it: the default is hybrid",
        };
        found.push(Finding::new(Kind::ClassicalAccepted, &place, what, hint));
    }
    if kex.classical > 0 || !kex.classical_keys.is_empty() {
        let keys = match &kex.classical_keys[..] {
            [] => String::new(),
            keys => format!("; the latest handshake of {} was with it", keys.join(", ")),
        };
        let (some, all) = (kex.classical, kex.connections);
        let what = format!("{some} of {all} open connections use x25519 alone{keys}");
        let hint = "find those senders by 'spiped status --connections', and remove their \
                    SPIPED_KEX";
        found.push(Finding::new(Kind::ClassicalUsed, &place, what, hint));
    }
    found
}

fn of_key(key: &Key, key_age_days: u64, now: UnixTime) -> Vec<Finding> {
    // Without a file, nothing of it is known.
    let Some(file) = &key.file else { return vec![] };
    let place = format!("key {} {}", key.name, key.id);
    let mut found = Vec::new();
    // The file of another key tells no age of this one.
    if key.is_in_force == Some(false) {
        let what = format!("{file} has another key than the one in force");
        let hint = "'systemctl reload' puts the key of the file in force";
        found.push(Finding::new(Kind::KeyFileDiffers, &place, what, hint));
    } else if key.age(now).is_some_and(|age| age > key_age_days.saturating_mul(DAY)) {
        let days = key.age(now).unwrap_or(0) / DAY;
        let what = format!("{file} was written {days} days ago, more than {key_age_days}");
        let hint = "'spiped setup rotate' at the receiver makes a new one, see spiped-keys(7)";
        found.push(Finding::new(Kind::KeyOld, &place, what, hint));
    }
    found
}

impl Key {
    /// How many seconds ago its file was written; a clock may have been set back.
    pub(super) fn age(&self, now: UnixTime) -> Option<u64> {
        self.written.map(|written| now.0.saturating_sub(written.0))
    }
}

fn is_exposed(address: &str) -> bool {
    address.parse().is_ok_and(super::sockets::is_exposed)
}
