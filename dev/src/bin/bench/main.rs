//! Measures the pipe beside its alternatives: the program that `scripts/bench` builds and
//! runs.
//!
//! A run has several rounds. In each round, every measure is taken once of every peer, in
//! an order that changes from round to round, so that other work of the machine affects
//! all peers. Figures are compared within a round, and the median of these ratios is what
//! counts.
//!
//! ```text
//! client ──▶ entry   one side ═════▶ other side ──▶ server
//! └─ this process ─┘ └──── a peer's two processes ────┘ └─ this process (or Redis) ─┘
//! ```
//!
//! [`measure`] loads a tunnel of [`peers`] with bytes of [`pattern`] and asks [`process`]
//! for the cost; [`report`] shows the results.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to be read")]
#![allow(clippy::arithmetic_side_effects, reason = "figures that stay small")]
#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures to read, not to the last digit"
)]
#![allow(missing_docs, unreachable_pub, reason = "nobody else sees it")]
#![allow(clippy::indexing_slicing, reason = "of arrays, by constants")]

mod machine;
mod materials;
mod measure;
mod pattern;
mod peers;
mod report;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use spiped_dev::process::{self, PATIENCE, Result};

use measure::{Load, MEASURES, Measure};
use peers::{Build, Peer};
use report::{Output, Samples};

/// With `--quick`, no round begins that would not end by then.
const QUICK: Duration = Duration::from_secs(280);

/// Measures the pipe beside its alternatives; see the head of scripts/bench.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
struct Arguments {
    /// How often each figure is measured [default: 5, with --quick 2]
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// A look that takes less than five minutes
    #[arg(long)]
    quick: bool,
    /// How long each load lasts [default: 2, with --quick 0.3]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// The number of connections that "many" means [default: 1000, with --quick 300]
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// How many idle connections a pipe of ours has to hold
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    held: usize,
    /// Only these measures: bulk, both-ways, ping, busy, sparse, redis, short, idle, held, many, crowd, redis-many, threads
    #[arg(long, value_name = "MEASURES", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers, such as ours,haproxy,direct
    #[arg(long, value_name = "PEERS", value_delimiter = ',')]
    peers: Vec<String>,
    /// Another build of ours, with further options; options after -e are for its sender
    /// only; given twice, compares two
    #[arg(long, value_name = "[NAME=]PATH [OPTIONS] [-e OPTIONS]")]
    ours: Vec<Build>,
    /// The folder for tables, charts and JSON
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    output: PathBuf,
    /// Measure nothing: make tables and charts from the bench.json of an earlier run
    #[arg(long, value_name = "JSON")]
    from: Option<PathBuf>,
    /// Write dev/figures and README's figures instead
    #[arg(long, conflicts_with = "output")]
    publish: bool,
}

impl Arguments {
    /// The given number, or the default for a whole run or for a quick one.
    fn or<T>(&self, given: Option<T>, whole: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { whole })
    }

    fn load(&self, folder: PathBuf, redis: SocketAddr) -> Result<Load> {
        let descriptors = process::raise_limit()?;
        Ok(Load {
            time: Duration::try_from_secs_f64(self.or(self.seconds, 2.0, 0.3))?,
            connections: self.or(self.connections, 1000, 300).max(2),
            // Each connection needs two descriptors, here and at each end; a receiver
            // keeps an eighth of its descriptors for strangers.
            held: self.held.min((descriptors * 7 / 8).saturating_sub(200) / 2),
            folder,
            redis,
        })
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(_shown) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scripts/bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<String>> {
    let output =
        if arguments.publish { Output::Published } else { Output::Folder(&arguments.output) };
    if let Some(from) = &arguments.from {
        let json = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        report::write(&serde_json::from_slice(&json)?, &output)?;
        return Ok(vec![]);
    }
    let (json, failures) = measured(arguments)?;
    report::write(&json, &output)?;
    Ok(failures)
}

/// Takes all measures; returns the figures, and what could not be measured.
fn measured(arguments: &Arguments) -> Result<(Value, Vec<String>)> {
    let mut ours = arguments.ours.clone();
    if ours.is_empty() {
        ours.push("target/release/spiped".parse()?);
    }
    let peers = chosen(peers::all(&ours), &arguments.peers, |peer| &peer.name)?;
    let (there, missing): (Vec<_>, Vec<_>) =
        peers.into_iter().partition(|peer| peer.version().is_some());
    for Peer { name, .. } in missing {
        eprintln!("{name} is left out: its program is not installed");
    }
    let measures = chosen(MEASURES.iter().collect(), &arguments.only, |measure| measure.name)?;

    let folder = tempfile::Builder::new().prefix("spiped-bench-").tempdir()?;
    end_on_signals(folder.path().to_owned());
    materials::make(folder.path(), there.iter().find_map(Peer::program))?;
    let (redis, _server) = materials::redis(folder.path())?;
    let load = arguments.load(folder.path().to_owned(), redis)?;

    let rounds = arguments.or(arguments.rounds, 5, 2);
    let limit = if arguments.quick { QUICK } else { Duration::MAX };
    let mut samples = Samples::default();
    let started = Instant::now();
    while samples.rounds < rounds && started.elapsed() + longest(&samples, started) < limit {
        round(&load, &there, &measures, &mut samples);
    }
    let json = report::json(&samples, &there, &machine::facts(&load, samples.rounds));
    Ok((json, samples.failures))
}

/// The items with the given names, or all.
fn chosen<T>(all: Vec<T>, names: &[String], name: impl Fn(&T) -> &str) -> Result<Vec<T>> {
    if let Some(unknown) = names.iter().find(|given| !all.iter().any(|one| name(one) == *given)) {
        let known: Vec<_> = all.iter().map(name).collect();
        return Err(format!("there is no '{unknown}', only {}", known.join(", ")).into());
    }
    Ok(all
        .into_iter()
        .filter(|one| names.is_empty() || names.iter().any(|given| given == name(one)))
        .collect())
}

/// The expected time of a round, judged by the earlier ones.
fn longest(samples: &Samples, started: Instant) -> Duration {
    let done = u32::try_from(samples.rounds).unwrap_or(u32::MAX);
    started.elapsed().checked_div(done).unwrap_or_default()
}

/// Takes each measure of each peer once.
fn round(load: &Load, peers: &[Peer], measures: &[&Measure], samples: &mut Samples) {
    for measure in measures {
        let started = Instant::now();
        let (first, second) = peers.split_at(samples.rounds % peers.len().max(1));
        for peer in second.iter().chain(first).filter(|peer| !measure.leaves_out(peer)) {
            match measure.run(load, peer) {
                Ok(values) => samples.add(peer, values),
                Err(error) => samples.fail(format!("{}, {}: {error}", measure.name, peer.name)),
            }
        }
        let (round, took) = (samples.rounds + 1, started.elapsed());
        eprintln!("round {round}: {:<10} {took:5.1?}", measure.name);
    }
    samples.rounds += 1;
}

/// A run that is told to end leaves nothing behind: its processes end with it, see
/// [`process::Process::start`].
fn end_on_signals(folder: PathBuf) {
    thread::spawn(move || -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            drop(fs::remove_dir_all(&folder));
            std::process::exit(130)
        })
    });
}
