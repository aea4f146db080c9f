//! Whether strangers' first messages slow down the clients of a receiver that has many keys,
//! and what a client's connection costs it:
//!
//! ```sh
//! cargo build --release && cargo run --release -p spiped-dev --bin hostile
//! cargo run --release -p spiped-dev --bin hostile -- /usr/bin/spiped --rounds 3
//! ```
//!
//! A receiver with 1 key and one with 1,000 run side by side, in front of one server. In each
//! round, each of them has clients, a fixed number a second, each with one of the keys and
//! from an address that it has not come from before, beside each of these loads:
//!
//! - `nothing`;
//! - `no message`: as many connections a second as the attack has, of which each sends as
//!   many bytes as a first message has, but none of our protocol: what an attack costs
//!   whatever the number of keys;
//! - `attack`, at a fifth of the rate and at the rate: random first messages, messages made
//!   with another key, and replays of recorded ones, a third each; of both key exchanges;
//!   one half from four addresses, the other half from 65,536.
//!
//! Load and clients keep their rate: nobody waits for another's answer. The tables show the
//! time from a client's connect to the first byte from the server; and the processor time of
//! the receiver and of this process, in percent of one core. Where both together come near
//! what the machine has, the load takes the processor from the receiver, as a stranger on
//! another host does not. Figures to compare need a quiet machine, or `chrt -r 5` before the
//! command, which then runs before all else.
//!
//! Then clients come one after another, and the receiver's processor time for each is shown
//! for receivers of 1, 10, 100 and 1,000 keys.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to be read")]
#![allow(clippy::arithmetic_side_effects, reason = "figures that stay small")]
#![allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures to read, not to the last digit"
)]
#![allow(clippy::indexing_slicing, reason = "of what is not empty, by a remainder")]
#![allow(missing_docs, unreachable_pub, reason = "nobody else sees it")]

mod attack;
mod client;
mod receiver;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::time::ClockId;
use spiped::protocol::{Cipher, Kex, Suite};
use spiped_dev::process::{Result, raise_limit};

use attack::{Attack, Kind};
use client::Clients;
use receiver::Receiver;
use report::{Cost, Row};

/// The numbers of keys.
const KEYS: [usize; 4] = [1, 10, 100, 1000];
/// How many of these keys' receivers are attacked: the first and the last.
const ATTACKED: [usize; 2] = [0, 3];
/// How many clients come one after another.
const ONE_BY_ONE: usize = 300;
/// How long a load lasts before the first client, and after the last.
const AROUND: Duration = Duration::from_millis(200);

/// Attacks a receiver that has many keys; see the head of dev/src/bin/hostile/main.rs.
#[derive(Debug, Parser)]
#[command(name = "hostile")]
struct Arguments {
    /// The spiped that is attacked
    #[arg(default_value = "target/release/spiped")]
    program: PathBuf,
    /// How often each figure is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    seconds: f64,
    /// Strangers a second
    #[arg(long, value_name = "NUMBER", default_value_t = 5000.0)]
    rate: f64,
    /// Clients a second
    #[arg(long, value_name = "NUMBER", default_value_t = 100.0)]
    clients: f64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    raise_limit()?;
    let time = Duration::try_from_secs_f64(arguments.seconds)?;
    let folder = tempfile::Builder::new().prefix("spiped-hostile-").tempdir()?;
    let target = receiver::echo()?;
    let start = |count| Receiver::start(&arguments.program, folder.path(), count, target);
    let receivers = KEYS.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let (full, part) = (arguments.rate, arguments.rate / 5.0);
    let loads = [
        (Kind::NoMessage, 0.0),
        (Kind::NoMessage, full),
        (Kind::Attack, part),
        (Kind::Attack, full),
    ];
    let mut rows: Vec<Row> = ATTACKED
        .iter()
        .flat_map(|&at| loads.map(|(kind, rate)| Row::new(&receivers[at], kind, rate)))
        .collect();
    for round in 0..arguments.rounds {
        // In an order that changes, so that other work of the machine affects all.
        for number in 0..rows.len() {
            let number = (number + round * 3) % rows.len();
            let receiver = &receivers[ATTACKED[number / loads.len()]];
            under(receiver, time, arguments.clients, &mut rows[number])?;
        }
        eprintln!("round {} of {}", round + 1, arguments.rounds);
    }
    report::loads(&rows);
    let mut costs = Vec::new();
    for _ in 0..arguments.rounds {
        for receiver in &receivers {
            for kex in Kex::ALL {
                costs.push(cost(receiver, Suite { kex, cipher: Cipher::Aes256Gcm })?);
            }
        }
    }
    report::costs(&costs);
    for receiver in &receivers {
        receiver.print_refusals()?;
    }
    Ok(())
}

/// Clients beside a load, which lasts a little longer at either end.
fn under(receiver: &Receiver, time: Duration, clients: f64, row: &mut Row) -> Result<()> {
    let attack = Attack::new(receiver, row.kind, row.rate)?;
    thread::scope(|scope| {
        let load = attack.start(scope, time + 2 * AROUND);
        thread::sleep(AROUND);
        let (started, cpu, own) = (Instant::now(), receiver.cpu()?, own_cpu()?);
        let came = Clients { receiver, rate: clients }.run(time);
        let took = started.elapsed();
        let cpu = receiver.cpu()?.saturating_sub(cpu).div_duration_f64(took);
        let own = own_cpu()?.saturating_sub(own).div_duration_f64(took);
        row.add(came, cpu, own, load.reached()?);
        Ok(())
    })
}

/// The processor time of this process: strangers, clients and the server.
fn own_cpu() -> Result<Duration> {
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}

/// Clients one after another.
fn cost(receiver: &Receiver, suite: Suite) -> Result<Cost> {
    let before = receiver.cpu()?;
    let started = Instant::now();
    for number in 0..ONE_BY_ONE {
        client::connection(receiver, number, suite)?;
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / ONE_BY_ONE as f64;
    let time = each(started.elapsed());
    // What is done once the client has gone.
    thread::sleep(Duration::from_millis(50));
    let cpu = each(receiver.cpu()?.saturating_sub(before));
    Ok(Cost { keys: receiver.keys.len(), kex: suite.kex, cpu, time })
}
