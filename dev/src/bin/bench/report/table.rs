//! The page with all figures, in Markdown.

use super::figures::{self, Better, FIGURES, Figure};
use super::results::{Found, Results};
use super::short;

/// The note about relays of plaintext.
pub const PLAINTEXT: &str = "haproxy and socat relay plaintext here.";

/// The note about redis-benchmark.
pub const REDIS: &str = "Redis is asked by redis-benchmark with these options.";

/// The medians of the main figures, the goals, and each figure by itself.
pub fn all(results: &Results) -> String {
    let main: Vec<_> = figures::main().collect();
    let mut parts = vec![
        "# What the pipe costs, and what others cost".into(),
        format!(
            "{}; {}.\nCPU is that of both ends together. {REDIS}\n{PLAINTEXT} Made by `scripts/bench`, whose head says how it measures.",
            results.machine(),
            results.method()
        ),
        options(results),
        overview(results, &main),
        "![All figures](all.svg)".into(),
        goals(results),
        details(results),
        "Left out, as Debian has no packages of them: ghostunnel, rathole.".into(),
    ];
    if !results.failures.is_empty() {
        parts.push(format!("Not measured:\n- {}", results.failures.join("\n- ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n") + "\n"
}

/// The options of ours that are not defaults.
pub fn options(results: &Results) -> String {
    let peers = results.peers.iter().filter(|peer| !peer.options.is_empty());
    let lines: Vec<_> =
        peers.map(|peer| format!("{} ran with `{}`.", peer.title, peer.options)).collect();
    lines.join("\n")
}

/// One line for each peer, with the medians of these figures.
pub fn overview(results: &Results, figures: &[&Figure]) -> String {
    let is_there =
        |figure: &&&Figure| results.peers.iter().any(|peer| results.found(figure, peer).is_some());
    let shown: Vec<_> = figures.iter().filter(is_there).collect();
    let heads: Vec<_> = shown.iter().map(|figure| format!(" {} |", figure.title())).collect();
    let mut lines =
        vec![format!("| |{}", heads.concat()), format!("|---|{}", "---:|".repeat(shown.len()))];
    for peer in &results.peers {
        let cell = |found: Option<Found>| {
            found.map_or(" – |".into(), |found| format!(" {} |", short(found.median)))
        };
        let cells: Vec<_> = shown.iter().map(|figure| cell(results.found(figure, peer))).collect();
        let title = if peer.is_ours { format!("**{}**", peer.title) } else { peer.title.clone() };
        lines.push(format!("| {title} |{}", cells.concat()));
    }
    lines.join("\n")
}

fn goals(results: &Results) -> String {
    if results.targets.is_empty() {
        return String::new();
    }
    let mut lines = vec![
        "The goals of this project, as ratios within each round:\n".into(),
        "| | goal | median (least – most) | reached |".into(),
        "|---|---|---|---|".into(),
    ];
    for target in &results.targets {
        let found = &target.found;
        lines.push(format!(
            "| {} | {} | {} ({} – {}) | {} |",
            target.what,
            target.wanted,
            short(found.median),
            short(found.min),
            short(found.max),
            if target.is_met { "yes" } else { "**no**" }
        ));
    }
    lines.join("\n")
}

fn details(results: &Results) -> String {
    let Some(first) = results.peers.first() else { return String::new() };
    let mut lines = vec![
        format!("| | | least | median | most | {} by this |", first.title),
        "|---|---|---:|---:|---:|---:|".into(),
    ];
    for figure in FIGURES {
        let better = match figure.better {
            Better::Lower => "less",
            Better::Higher => "more",
        };
        for peer in &results.peers {
            let Some(found) = results.found(figure, peer) else { continue };
            lines.push(format!(
                "| {} ({better} is better) | {} | {} | {} | {} | {} |",
                figure.title(),
                peer.title,
                short(found.min),
                short(found.median),
                short(found.max),
                found.ratio.map_or("–".into(), short),
            ));
        }
    }
    lines.join("\n")
}
