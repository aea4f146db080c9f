//! The tables, in Markdown.

use serde_json::Value;

use super::figures::{self, Better, FIGURES};
use super::{Samples, short, targets};
use crate::peers::Peer;

/// Whose bytes anyone on the way can read.
pub const PLAINTEXT: &str = "haproxy and socat relay plaintext, direct is no tunnel at all.";

/// Medians of the main figures, the targets, and each figure by itself.
pub fn all(samples: &Samples, peers: &[Peer], facts: &Value) -> String {
    let mut parts = vec![format!("{}\n{PLAINTEXT}", heading(facts)), overview(samples, peers)];
    for build in peers.iter().filter(|peer| peer.is_ours()) {
        parts.push(target_table(samples, &build.name));
    }
    parts.push(details(samples, peers));
    parts.push("Left out, as Debian has no packages of them: ghostunnel, rathole.".into());
    if !samples.failures.is_empty() {
        parts.push(format!("Not measured:\n- {}", samples.failures.join("\n- ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

/// The machine, the day, and how long was measured.
pub fn heading(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
    format!(
        "{} cores of {}, Linux {}, {}, loopback; {}; median of {} interleaved rounds, {} s each; \
         {} connections where there are many.",
        facts["cores"],
        text("cpu"),
        text("kernel"),
        text("congestion_control"),
        text("date"),
        facts["rounds"],
        facts["seconds"],
        facts["connections"],
    )
}

fn overview(samples: &Samples, peers: &[Peer]) -> String {
    let shown: Vec<_> = figures::main()
        .filter(|figure| peers.iter().any(|peer| samples.of(figure.id, &peer.name).is_some()))
        .collect();
    let heads: Vec<_> =
        shown.iter().map(|figure| format!(" {}: {} |", figure.what, figure.unit)).collect();
    let mut lines =
        vec![format!("| |{}", heads.concat()), format!("|---|{}", "---:|".repeat(shown.len()))];
    for Peer { name, .. } in peers {
        let cells: Vec<_> = shown
            .iter()
            .map(|figure| samples.spread(figure.id, name))
            .map(|found| {
                found.map_or(" – |".into(), |found| format!(" {} |", short(found.median)))
            })
            .collect();
        lines.push(format!("| {name} |{}", cells.concat()));
    }
    lines.join("\n")
}

fn target_table(samples: &Samples, build: &str) -> String {
    let outcomes = targets::outcomes(samples, build);
    if outcomes.is_empty() {
        return String::new();
    }
    let mut lines =
        vec!["| figure | to reach | reached (min – max) | |".into(), "|---|---|---|---|".into()];
    for outcome in outcomes {
        let found = &outcome.found;
        lines.push(format!(
            "| {} {} | {} | {} ({} – {}) | {} |",
            outcome.peer,
            outcome.figure,
            outcome.wanted,
            short(found.median),
            short(found.min),
            short(found.max),
            if outcome.met { "yes" } else { "**no**" }
        ));
    }
    lines.join("\n")
}

fn details(samples: &Samples, peers: &[Peer]) -> String {
    let Some(ours) = peers.first() else { return String::new() };
    let mut lines = vec![
        format!("| figure | | min | median | max | {} / it |", ours.name),
        "|---|---|---:|---:|---:|---:|".into(),
    ];
    for figure in FIGURES {
        let better = match figure.better {
            Better::Lower => "less",
            Better::Higher => "more",
        };
        for Peer { name, .. } in peers {
            let Some(found) = samples.spread(figure.id, name) else { continue };
            let ratio = samples.ratio(figure.id, &ours.name, name);
            lines.push(format!(
                "| {}, {} ({better} is better) | {name} | {} | {} | {} | {} |",
                figure.what,
                figure.unit,
                short(found.min),
                short(found.median),
                short(found.max),
                ratio.map_or("–".into(), |ratio| short(ratio.median)),
            ));
        }
    }
    lines.join("\n")
}
