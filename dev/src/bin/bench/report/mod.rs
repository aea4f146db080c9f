//! The results of a run: JSON, and the files made from it: tables, charts, README's part.

mod chart;
mod figures;
mod json;
mod readme;
mod results;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::measure::Values;
use crate::peers::Peer;
use results::Results;

/// All samples, by figure and peer, round by round.
#[derive(Default)]
pub struct Samples {
    values: BTreeMap<(&'static str, String), BTreeMap<usize, f64>>,
    /// The figures that could not be measured, and why.
    pub failures: Vec<String>,
    /// The number of rounds.
    pub rounds: usize,
}

/// At least one value, in ascending order.
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Samples {
    pub fn add(&mut self, peer: &Peer, values: Values) {
        let round = self.rounds;
        // Without a tunnel, no process of a tunnel uses the processor.
        let has_tunnel = !peer.is_direct();
        let known =
            values.into_iter().filter(|(figure, _)| has_tunnel || !figure.ends_with("/cpu"));
        for (figure, value) in known {
            self.values.entry((figure, peer.name.clone())).or_default().insert(round, value);
        }
    }

    pub fn fail(&mut self, text: String) {
        eprintln!("failed: {text}");
        self.failures.push(text);
    }

    /// The samples of a peer, by round.
    fn of(&self, figure: &'static str, peer: &str) -> Option<&BTreeMap<usize, f64>> {
        self.values.get(&(figure, peer.to_owned()))
    }

    fn spread(&self, figure: &'static str, peer: &str) -> Option<Spread> {
        Spread::of(self.of(figure, peer)?.values().copied())
    }

    /// The ratios of two peers within each round.
    fn ratio(&self, figure: &'static str, one: &str, other: &str) -> Option<Spread> {
        let (one, other) = (self.of(figure, one)?, self.of(figure, other)?);
        Spread::of(one.iter().filter_map(|(round, value)| Some(value / other.get(round)?)))
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { min, median: f64::midpoint(lower, upper), max })
    }
}

pub use json::all as json;

/// The destination of the report.
pub enum Output<'a> {
    /// All files go to this folder.
    Folder(&'a Path),
    /// The published figures go to `dev/figures` and README.
    Published,
}

/// Prints the tables, and writes them, the charts, README's part, and the JSON from which
/// all of them are made.
pub fn write(json: &Value, output: &Output<'_>) -> Result<()> {
    let results = Results::read(json)?;
    let folder = match output {
        Output::Folder(folder) => folder,
        Output::Published => Path::new("dev/figures"),
    };
    fs::create_dir_all(folder)?;
    let tables = table::all(&results);
    fs::write(folder.join("table.md"), &tables)?;
    fs::write(folder.join("all.svg"), chart::draw(&results, figures::main()))?;
    fs::write(folder.join("chart.svg"), chart::draw(&results, figures::of_readme()))?;
    fs::write(folder.join("bench.json"), serde_json::to_string_pretty(json)? + "\n")?;
    let part = readme::part(&results);
    match output {
        Output::Folder(folder) => fs::write(folder.join("readme.md"), part)?,
        Output::Published => readme::replace(Path::new("README.md"), &part)?,
    }
    let folder = folder.display();
    writeln!(io::stdout(), "{tables}\n{folder}: table.md, all.svg, chart.svg, bench.json")?;
    Ok(())
}

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
