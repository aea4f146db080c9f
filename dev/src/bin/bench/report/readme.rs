//! README's part: a small table, and the notes that it needs.

use std::fs;
use std::path::Path;

use super::results::Results;
use super::{figures, table};
use crate::Result;

/// The comments around the part in README.
const BEGIN: &str = "<!-- Made by scripts/bench --publish, from dev/figures/bench.json. -->\n";
const END: &str = "<!-- Until here. -->";

pub fn part(results: &Results) -> String {
    let shown: Vec<_> = figures::of_readme().collect();
    let mut parts = vec![
        format!(
            "Both ends on one machine ({});\nmedian of {} interleaved rounds. CPU is that of \
             both ends together.\n{} {}",
            results.machine(),
            results.machine["rounds"],
            table::REDIS,
            table::PLAINTEXT
        ),
        table::overview(results, &shown),
        busy_poll(results),
        "![What the pipe and others cost](dev/figures/chart.svg)".into(),
    ];
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n") + "\n"
}

/// The reason why a figure may be better than the one without a tunnel.
fn busy_poll(results: &Results) -> String {
    let has_busy_poll = |peer: &&super::results::Subject| peer.options.contains("--busy-poll");
    if !results.peers.iter().any(|peer| has_busy_poll(&peer)) {
        return String::new();
    }
    "spiped ran with `--busy-poll`: it stays awake for a moment after a small read. So 64 bytes can\n\
     be faster through it than with no tunnel, whose client and server sleep between two of\n\
     them. Without `--busy-poll`, the default, they take about as long as through haproxy."
        .into()
}

/// Replaces the old part in README.
pub fn replace(readme: &Path, part: &str) -> Result<()> {
    let text = fs::read_to_string(readme)?;
    let missing = || format!("{} has no part for the figures", readme.display());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    fs::write(readme, format!("{before}{BEGIN}\n{part}\n{END}{after}"))?;
    Ok(())
}
