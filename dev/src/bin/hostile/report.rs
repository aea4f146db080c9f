//! The tables.

use std::time::Duration;

use spiped::protocol::Kex;

use crate::KEYS;
use crate::attack::Kind;
use crate::client::Came;
use crate::receiver::Receiver;

/// A receiver and a load, and what was measured in all rounds.
pub struct Row {
    keys: usize,
    pub kind: Kind,
    pub rate: f64,
    /// The times of each round, sorted.
    rounds: Vec<Vec<Duration>>,
    failures: Vec<String>,
    /// Of each round, the part of one core that the receiver took, and this process.
    cpu: Vec<f64>,
    own: Vec<f64>,
    reached: Vec<f64>,
}

/// What clients one after another cost.
pub struct Cost {
    pub keys: usize,
    pub kex: Kex,
    /// Microseconds of the receiver's processor time for each, and from one to the next.
    pub cpu: f64,
    pub time: f64,
}

impl Row {
    pub fn new(receiver: &Receiver, kind: Kind, rate: f64) -> Self {
        let (rounds, failures) = (vec![], vec![]);
        let (cpu, own, reached) = (vec![], vec![], vec![]);
        Self { keys: receiver.keys.len(), kind, rate, rounds, failures, cpu, own, reached }
    }

    pub fn add(&mut self, came: Came, cpu: f64, own: f64, reached: f64) {
        let Came { mut times, failures } = came;
        times.sort_unstable();
        self.rounds.push(times);
        self.failures.extend(failures);
        self.cpu.push(cpu);
        self.own.push(own);
        self.reached.push(reached);
    }

    /// The time at this part of all rounds' times.
    fn percentile(&self, part: f64) -> Duration {
        let mut all = self.rounds.concat();
        all.sort_unstable();
        at(&all, part)
    }
}

/// Prints what the clients had beside each load. The ratio is the median of the ratios of
/// each round.
pub fn loads(rows: &[Row]) {
    println!(
        "{:>5} {:<20}{:>8}{:>7}{:>9}{:>9}{:>9}{:>8}{:>7}{:>8}",
        "keys",
        "load, a second",
        "clients",
        "failed",
        "p50 ms",
        "p99 ms",
        "max ms",
        "p99 x",
        "cpu %",
        "load %"
    );
    for row in rows {
        let alone = rows.iter().find(|alone| alone.keys == row.keys && alone.rate == 0.0);
        let ratios = alone.into_iter().flat_map(|alone| {
            let p99 = |times: &Vec<Duration>| at(times, 0.99);
            row.rounds
                .iter()
                .zip(&alone.rounds)
                .map(move |(own, alone)| p99(own).div_duration_f64(p99(alone)))
        });
        let load = match row.kind {
            _ if row.rate == 0.0 => "nothing".to_owned(),
            Kind::NoMessage => format!("no message {:.0}", median(row.reached.clone())),
            Kind::Attack => format!("attack {:.0}", median(row.reached.clone())),
        };
        let ms = |part| row.percentile(part).as_secs_f64() * 1e3;
        println!(
            "{:>5} {load:<20}{:>8}{:>7}{:>9.2}{:>9.2}{:>9.2}{:>8.2}{:>7.1}{:>8.0}",
            row.keys,
            row.rounds.iter().map(Vec::len).sum::<usize>(),
            row.failures.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            median(ratios.collect()),
            100.0 * median(row.cpu.clone()),
            100.0 * median(row.own.clone()),
        );
        for failure in &row.failures {
            println!("      failed: {failure}");
        }
    }
}

/// Prints the medians of all rounds.
pub fn costs(costs: &[Cost]) {
    println!("\n{:>5} {:<20}{:>10}{:>10}", "keys", "one by one", "cpu us", "time us");
    for kex in Kex::ALL {
        for keys in KEYS {
            let of = |value: fn(&Cost) -> f64| {
                let these = costs.iter().filter(|cost| cost.kex == kex && cost.keys == keys);
                median(these.map(value).collect())
            };
            println!(
                "{keys:>5} {:<20}{:>10.1}{:>10.1}",
                kex.to_string(),
                of(|it| it.cpu),
                of(|it| it.time)
            );
        }
    }
    println!();
}

fn at(sorted: &[Duration], part: f64) -> Duration {
    let index = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
