//! The report as a text that an auditor can file.

use std::iter;

use super::facts::{
    Exchange, Facts, IdleSocket, Key, Listener, Place, Plaintext, Proof, Rights, Source, Told,
};
use super::findings::Finding;
use super::{HostReport, Judged};
use crate::check::form::milliseconds;
use crate::config::Role;
use crate::status::words::{age, clean, count};
use crate::status::{State, UnixTime};

/// A fact: its name, and what it is.
type Line = (&'static str, String);

impl HostReport {
    /// A heading, a block for each pipe, and the sum.
    pub(crate) fn text(&self) -> String {
        let Self { host, date, spiped, not_seen, .. } = self;
        let heading = format!("check of all pipes of {}, {date}, spiped {spiped}\n", clean(host));
        let not_seen = not_seen.iter().map(|what| format!("not seen: {}\n", clean(what)));
        let blocks = self.pipes.iter().map(|judged| format!("\n{}", self.block(judged)));
        let text: String = iter::once(heading).chain(not_seen).chain(blocks).collect();
        format!("{text}\n{}\n", self.sum())
    }

    fn sum(&self) -> String {
        let number = |number: usize, what| count(u64::try_from(number).unwrap_or(u64::MAX), what);
        let (pipes, findings) =
            (number(self.pipes.len(), "pipe"), number(self.findings, "finding"));
        let drains = |it: &&Judged| it.pipe.facts().is_some_and(|it| it.state == State::Draining);
        let drain = self.pipes.iter().filter(drains).count();
        let is_idle = |it: &&Judged| matches!(it.pipe.told, Told::Idle(_));
        let idle = self.pipes.iter().filter(is_idle).count();
        let [drain, idle, not_asked] =
            [(drain, "draining"), (idle, "idle"), (self.not_asked, "not asked")].map(
                |(number, what)| {
                    if number == 0 { String::new() } else { format!(", {number} {what}") }
                },
            );
        format!("{pipes}{drain}{idle}, {findings}{not_asked}")
    }

    fn block(&self, Judged { pipe, findings, accepted }: &Judged) -> String {
        let (about, mut lines) = match &pipe.told {
            Told::Facts(facts) => (heading(facts), self.lines(facts)),
            Told::Idle(idle) => idle.block(),
            Told::Failed { error, hint } => {
                (String::new(), vec![("not asked", format!("{error}; hint: {hint}"))])
            }
        };
        lines.extend(findings.iter().map(|it| ("FINDING", it.line())));
        lines.extend(accepted.iter().map(|it| ("accepted", it.line())));
        let lines = lines.iter().map(|(name, what)| format!("  {name:<9}  {}\n", clean(what)));
        format!("{}{about}\n{}", clean(&pipe.name), lines.collect::<String>())
    }

    fn lines(&self, facts: &Facts) -> Vec<Line> {
        let mut lines = Vec::new();
        lines.extend(facts.listening.iter().map(Source::line));
        lines.push(("target", format!("{}: {}", facts.target.address, facts.target.place.told())));
        lines.extend(facts.status_http.iter().map(|at| ("status", format!("over HTTP at {at}"))));
        lines.push(("kex", facts.kex.told(facts.role)));
        lines.extend(facts.keys.iter().map(|key| ("key", key.told(self.now))));
        lines.extend(facts.not_judged.as_ref().map(|why| ("start", why.clone())));
        lines.extend(facts.proof.as_ref().map(|proof| ("proof", proof.told())));
        lines
    }
}

impl IdleSocket {
    /// What follows the name, and the lines.
    fn block(&self) -> (String, Vec<Line>) {
        let Self { role, unit, listening, not_judged, .. } = self;
        let about = format!(" ({role}): idle, {unit}, no client has started its service yet");
        let mut lines: Vec<_> = listening.iter().map(Source::line).collect();
        lines.extend(not_judged.as_ref().map(|why| ("start", why.clone())));
        (about, lines)
    }
}

impl Source {
    fn line(&self) -> Line {
        ("listens", format!("{}: {}", self.address, self.plaintext.told()))
    }
}

fn heading(facts: &Facts) -> String {
    let unit = facts.unit.as_ref().map(|unit| format!("{unit}, ")).unwrap_or_default();
    let Facts { role, state, pid, .. } = facts;
    clean(&format!(" ({role}): {state}, {unit}process {pid}"))
}

impl Finding {
    /// One line: what, where, and what to do.
    fn line(&self) -> String {
        let Self { kind, place, what, hint } = self;
        format!("{kind}: {place}: {what}; hint: {hint}")
    }
}

impl Plaintext {
    fn told(&self) -> String {
        match self {
            Self::Refused { seconds } => {
                format!(
                    "encrypted only, plaintext was tried and refused in {:.2} ms",
                    seconds * 1e3
                )
            }
            Self::Served { error } => format!("plaintext was tried: {error}"),
            Self::Unproved { error } => format!("plaintext was tried, and proves nothing: {error}"),
            Self::Loopback => "takes plaintext of this host, on loopback".to_owned(),
            Self::UnixSocket(rights) => {
                format!("takes plaintext of this host, on a unix socket, {}", rights.told())
            }
            Self::Exposed => "takes plaintext, beyond loopback".to_owned(),
            Self::NotTried => "not tried, as nothing serves there".to_owned(),
        }
    }
}

impl Place {
    fn told(&self) -> String {
        match self {
            Self::Receiver => "what goes there is encrypted".to_owned(),
            Self::UnixSocket(rights) => format!("a unix socket, {}", rights.told()),
            Self::ThisHost { listeners, is_served: false } if listeners.is_empty() => {
                "on this host, where nothing listens on that port".to_owned()
            }
            Self::ThisHost { listeners, .. } if listeners.is_empty() => {
                "on this host, where a pipe listens".to_owned()
            }
            Self::ThisHost { listeners, .. } => {
                let at = |it: &Listener| format!("{} listens at {}", it.told(), it.address);
                let all: Vec<_> = listeners.iter().map(at).collect();
                format!("on this host, {}", all.join(", "))
            }
            Self::OtherHost => "on another host".to_owned(),
            Self::Unknown { error } => error.clone(),
            Self::NotLooked => "not looked at".to_owned(),
        }
    }
}

impl Rights {
    fn told(&self) -> String {
        match (&self.mode, self.owner, self.group) {
            (Some(mode), Some(owner), Some(group)) => {
                format!("mode {mode}, user {owner}, group {group}")
            }
            _ => "whose mode cannot be seen".to_owned(),
        }
    }
}

impl Listener {
    /// The program, as far as it is known.
    pub(super) fn told(&self) -> String {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => format!("{program} (process {pid})"),
            _ => "a program".to_owned(),
        }
    }
}

impl Exchange {
    fn told(&self, role: Role) -> String {
        let verb = match role {
            Role::Decrypt => "accepts",
            Role::Encrypt => "uses",
        };
        let accepted = self.accepted.join(" and ");
        let Self { setting, classical, connections, .. } = self;
        format!(
            "{setting}: {verb} {accepted}; {classical} of {connections} open connections with \
             x25519 alone"
        )
    }
}

impl Key {
    fn told(&self, now: UnixTime) -> String {
        let Self { name, id, file, written, is_in_force } = self;
        let age = match (file, written) {
            (Some(file), Some(written)) => {
                let differs = if *is_in_force == Some(false) { ", has another key" } else { "" };
                format!("{file}, written {} ago{differs}", age(now, *written))
            }
            _ => "its file is not known".to_owned(),
        };
        format!("{name} {id}: {age}")
    }
}

impl Proof {
    fn told(&self) -> String {
        match self {
            Self::Works(pipe) => {
                let proof = &pipe.proof;
                let [connect, handshake, target] =
                    [proof.connect, proof.handshake, proof.target].map(milliseconds);
                format!(
                    "works, connect {connect}, handshake {handshake}, target {target}, {} {}, key \
                     {} {}",
                    proof.suite.kex, proof.suite.cipher, pipe.key, pipe.key_id
                )
            }
            Self::Failed { error, .. } => format!("failed: {error}"),
            Self::NotTried { error } => format!("not tried: {error}"),
        }
    }
}
