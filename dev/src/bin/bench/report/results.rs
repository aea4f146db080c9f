//! The content of `bench.json`. Tables and charts are made from it alone, so that a
//! finished run can be shown again.

use serde_json::Value;

use super::figures::{FIGURES, Figure};
use crate::Result;

/// A finished run.
pub struct Results {
    /// The machine, the day, the number of rounds and the time of each load.
    pub machine: Value,
    /// The first peer is compared with the others.
    pub peers: Vec<Subject>,
    pub targets: Vec<Target>,
    /// The figures that could not be measured, and why.
    pub failures: Vec<String>,
    figures: Vec<Value>,
}

/// A peer that was measured.
pub struct Subject {
    /// The name in `--peers`.
    name: String,
    /// The name for readers.
    pub title: String,
    pub is_ours: bool,
    /// Whether the bytes on the wire are encrypted.
    pub is_encrypted: bool,
    /// The options of the run that are not defaults.
    pub options: String,
}

/// The minimum, the median and the maximum of all rounds.
pub struct Found {
    pub min: f64,
    pub median: f64,
    pub max: f64,
    /// The first peer's figure, divided by this one's.
    pub ratio: Option<f64>,
}

/// A bound, and the result.
pub struct Target {
    pub what: String,
    pub wanted: String,
    pub found: Found,
    pub is_met: bool,
}

impl Results {
    pub fn read(json: &Value) -> Result<Self> {
        let all =
            |name: &str| json[name].as_array().cloned().ok_or(format!("there are no {name} in it"));
        let peers: Vec<_> = all("peers")?.iter().map(Subject::read).collect();
        let targets = all("targets")?;
        Ok(Self {
            machine: json["machine"].clone(),
            targets: targets.iter().filter_map(|target| Target::read(target, &peers)).collect(),
            failures: all("failures")?.iter().map(text).collect(),
            figures: all("figures")?,
            peers,
        })
    }

    pub fn found(&self, figure: &Figure, peer: &Subject) -> Option<Found> {
        let is_it = |row: &&Value| row["figure"] == figure.id && row["peer"] == *peer.name;
        let row = self.figures.iter().find(is_it)?;
        Found::read(row, "median", "first_by_this")
    }

    /// The machine and the day.
    pub fn machine(&self) -> String {
        let fact = |key: &str| text(&self.machine[key]);
        let (cpu, kernel) = (fact("cpu"), fact("kernel"));
        // Only the well-known part of the kernel's release.
        let kernel: Vec<_> = kernel.splitn(3, '.').take(2).collect();
        let (cores, kernel) = (&self.machine["cores"], kernel.join("."));
        format!("{cores} cores of {cpu}, Linux {kernel}, loopback; {}", fact("date"))
    }

    /// The description of the measurement.
    pub fn method(&self) -> String {
        let fact = |key: &str| &self.machine[key];
        format!(
            "median of {} interleaved rounds, {} s each; {} connections where there are many; \
             congestion control: {}",
            fact("rounds"),
            fact("seconds"),
            fact("connections"),
            text(fact("congestion_control")),
        )
    }
}

impl Subject {
    fn read(json: &Value) -> Self {
        let is = |key: &str| json[key] == true;
        Self {
            name: text(&json["name"]),
            title: text(&json["title"]),
            is_ours: is("ours"),
            is_encrypted: is("encrypted"),
            options: text(&json["options"]),
        }
    }
}

impl Found {
    fn read(json: &Value, median: &str, ratio: &str) -> Option<Self> {
        let number = |key: &str| json[key].as_f64();
        let (min, max) = (number("min")?, number("max")?);
        Some(Self { min, median: number(median)?, max, ratio: number(ratio) })
    }
}

impl Target {
    fn read(json: &Value, peers: &[Subject]) -> Option<Self> {
        let in_full = |text: &str| {
            let words = text.split(' ').map(|word| in_full(word, peers));
            words.collect::<Vec<_>>().join(" ")
        };
        Some(Self {
            what: in_full(&format!("{}: {}", text(&json["peer"]), text(&json["figure"]))),
            wanted: in_full(&text(&json["wanted"])),
            found: Found::read(json, "found", "")?,
            is_met: json["met"] == true,
        })
    }
}

/// The readers' name of a peer or a figure; any other word stays unchanged.
fn in_full(word: &str, peers: &[Subject]) -> String {
    let (name, colon) = word.strip_suffix(':').map_or((word, ""), |name| (name, ":"));
    let peer = peers.iter().find(|peer| peer.name == name).map(|peer| peer.title.clone());
    let figure = || FIGURES.iter().find(|figure| figure.id == name).map(Figure::title);
    peer.or_else(figure).map_or_else(|| word.to_owned(), |title| title + colon)
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}
