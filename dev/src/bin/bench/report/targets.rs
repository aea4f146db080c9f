//! The targets of the project, and whether they are reached.

use std::collections::BTreeMap;

use super::{Samples, Spread};

/// A bound for a figure of ours.
struct Target {
    figure: &'static str,
    against: Against,
    bound: Bound,
    factor: f64,
}

#[derive(Clone, Copy)]
enum Against {
    /// The figure of this peer.
    Peer(&'static str),
    /// The figure of this peer; the figure without a tunnel is subtracted from both.
    AddedBy(&'static str),
    /// Another figure of ours.
    Own(&'static str),
    /// Nothing: the factor itself is the bound.
    Nothing,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost,
    AtLeast,
}

use Against::{AddedBy, Nothing, Own, Peer};
use Bound::{AtLeast, AtMost};

/// The kind of ours (`""`, `"-chacha"`), the figures, what they are compared with, and
/// the bound.
type Row = (&'static str, &'static [&'static str], Against, Bound, f64);

const BULK_CPU: &[&str] = &["bulk-1/cpu", "bulk-4/cpu", "both-ways/cpu"];
const BULK_SPEED: &[&str] = &["bulk-1/speed", "bulk-4/speed", "both-ways/speed"];
#[rustfmt::skip]
const BUSY: &[&str] = &[
    "busy-0/p50", "busy-0/p90", "busy-0/p99", "busy-0/p99.9",
    "busy-1/p50", "busy-1/p90", "busy-1/p99", "busy-1/p99.9",
    "busy-2/p50", "busy-2/p90", "busy-2/p99", "busy-2/p99.9",
    "busy-4/p50", "busy-4/p90", "busy-4/p99", "busy-4/p99.9",
];
const REDIS_CPU: &[&str] = &["redis/cpu", "redis-p16/cpu", "redis-4k/cpu"];
const REDIS_SPEED: &[&str] = &["redis/speed", "redis-p16/speed", "redis-4k/speed"];

const TARGETS: &[Row] = &[
    ("", BULK_CPU, Peer("haproxy"), AtMost, 0.85),
    ("", BULK_CPU, Peer("stunnel"), AtMost, 0.45),
    ("", BULK_CPU, Peer("spiped"), AtMost, 0.14),
    ("-chacha", BULK_CPU, Peer("stunnel-chacha"), AtMost, 0.8),
    ("", BULK_SPEED, Peer("stunnel"), AtLeast, 2.4),
    ("", BULK_SPEED, Peer("spiped"), AtLeast, 8.0),
    ("", BULK_SPEED, Peer("haproxy"), AtLeast, 1.2),
    ("", &["ping/p50"], AddedBy("haproxy"), AtMost, 0.6),
    ("", &["ping/p99"], AddedBy("haproxy"), AtMost, 1.0),
    // These rows show whether --busy-poll pays on this host, with builds of these names:
    // --ours 'busy-poll=PATH --busy-poll' --ours without-busy-poll=PATH.
    ("", &["sparse/cpu"], Peer("without-busy-poll"), AtMost, 1.1),
    ("", BUSY, Peer("without-busy-poll"), AtMost, 1.2),
    ("", REDIS_CPU, Peer("haproxy"), AtMost, 0.9),
    ("", REDIS_SPEED, Peer("haproxy"), AtLeast, 1.0),
    ("", REDIS_CPU, Peer("ssh"), AtMost, 1.0),
    ("", &["short/cpu"], Peer("haproxy-tls"), AtMost, 0.35),
    ("", &["short/p99"], Peer("haproxy-tls"), AtMost, 0.5),
    ("", &["idle/memory"], Nothing, AtMost, 8.0),
    ("", &["held/count"], Nothing, AtLeast, 10_000.0),
    ("", &["many/cpu"], Own("bulk-1/cpu"), AtMost, 1.2),
    ("", &["redis-many/cpu"], Own("redis/cpu"), AtMost, 1.0),
    ("", &["threads-2/speed"], Own("threads-1/speed"), AtLeast, 1.0),
];

/// A target and its result.
pub struct Outcome {
    /// The peer that the target is for: `ours-chacha`.
    pub peer: String,
    pub figure: &'static str,
    /// The bound in words: `at most 0.85 of haproxy`.
    pub wanted: String,
    pub found: Spread,
    /// Whether the median is within the bound.
    pub met: bool,
}

/// The results of all targets of a peer, which is one of ours, as far as they were
/// measured.
pub fn outcomes(samples: &Samples, peer: &str) -> Vec<Outcome> {
    let own = peer.find("-chacha").and_then(|start| peer.get(start..)).unwrap_or_default();
    let targets = TARGETS.iter().filter(|row| row.0 == own).flat_map(
        |&(_, figures, against, bound, factor)| {
            let target = move |&figure| Target { figure, against, bound, factor };
            figures.iter().map(target)
        },
    );
    targets.filter_map(|target| target.outcome(samples, peer)).collect()
}

impl Target {
    fn outcome(&self, samples: &Samples, peer: &str) -> Option<Outcome> {
        let found = self.found(samples, peer)?;
        let (word, met) = match self.bound {
            AtMost => ("at most", found.median <= self.factor),
            AtLeast => ("at least", found.median >= self.factor),
        };
        let of = match self.against {
            Peer(name) => format!(" of {name}"),
            AddedBy(name) => format!(" of what {name} adds"),
            Own(figure) => format!(" of {figure}"),
            Nothing => String::new(),
        };
        let wanted = format!("{word} {}{of}", self.factor);
        Some(Outcome { peer: peer.into(), figure: self.figure, wanted, found, met })
    }

    /// The ratios of all rounds.
    fn found(&self, samples: &Samples, ours: &str) -> Option<Spread> {
        let one = samples.of(self.figure, ours)?;
        match self.against {
            Peer(name) => samples.ratio(self.figure, ours, name),
            AddedBy(name) => {
                let direct = samples.of(self.figure, "direct")?;
                divided(&less(one, direct), &less(samples.of(self.figure, name)?, direct))
            }
            Own(figure) => divided(one, samples.of(figure, ours)?),
            Nothing => Spread::of(one.values().copied()),
        }
    }
}

fn less(one: &BTreeMap<usize, f64>, other: &BTreeMap<usize, f64>) -> BTreeMap<usize, f64> {
    one.iter().filter_map(|(round, value)| Some((*round, value - other.get(round)?))).collect()
}

fn divided(one: &BTreeMap<usize, f64>, other: &BTreeMap<usize, f64>) -> Option<Spread> {
    Spread::of(one.iter().filter_map(|(round, value)| Some(value / other.get(round)?)))
}
