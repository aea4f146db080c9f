//! The chart: a panel for each main figure, a bar for each peer.

use serde_json::Value;

use super::figures::{self, Better, Figure};
use super::{Samples, Spread, short, table};
use crate::peers::Peer;

const PANEL: f64 = 470.0;
const COLUMNS: usize = 2;
const NAMES: f64 = 120.0;
const BARS: f64 = 260.0;
const LINE: f64 = 20.0;
/// Above all panels.
const TOP: f64 = 54.0;
/// Above the bars of a panel.
const HEAD: f64 = 46.0;
const MARGIN: f64 = 20.0;

/// An SVG for a light background.
pub fn draw(samples: &Samples, peers: &[Peer], facts: &Value) -> String {
    let panels: Vec<_> = figures::main()
        .map(|figure| (figure, bars(samples, peers, figure)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let height = HEAD + peers.len() as f64 * LINE;
    let rows = panels.len().div_ceil(COLUMNS);
    let (wide, high) = (PANEL * COLUMNS as f64 + MARGIN, TOP + rows as f64 * height + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" \
         height=\"{high}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    svg += &text(MARGIN, 28.0, "font-size=\"11\" fill=\"#555555\"", &table::heading(facts));
    svg += &text(MARGIN, 44.0, "font-size=\"11\" fill=\"#555555\"", table::PLAINTEXT);
    for (index, (figure, bars)) in panels.iter().enumerate() {
        let left = MARGIN + (index % COLUMNS) as f64 * PANEL;
        let top = TOP + (index / COLUMNS) as f64 * height;
        svg += &panel(left, top, figure, bars);
    }
    svg + "</svg>\n"
}

struct Bar<'a> {
    peer: &'a Peer,
    found: Spread,
}

fn bars<'a>(samples: &Samples, peers: &'a [Peer], figure: &Figure) -> Vec<Bar<'a>> {
    peers
        .iter()
        .filter_map(|peer| Some(Bar { peer, found: samples.spread(figure.id, &peer.name)? }))
        .collect()
}

fn panel(left: f64, top: f64, figure: &Figure, bars: &[Bar<'_>]) -> String {
    let better = match figure.better {
        Better::Lower => "shorter is better",
        Better::Higher => "longer is better",
    };
    let title = format!("{}: {}", figure.what, figure.unit);
    let mut svg = text(left, top + 20.0, "font-weight=\"bold\" fill=\"#222222\"", &title);
    svg += &text(left + PANEL - MARGIN, top + 20.0, "text-anchor=\"end\" fill=\"#888888\"", better);
    let most = bars.iter().map(|bar| bar.found.max).fold(f64::MIN_POSITIVE, f64::max);
    for (index, Bar { peer, found }) in bars.iter().enumerate() {
        let y = top + HEAD - 16.0 + index as f64 * LINE;
        let place = |value: f64| left + NAMES + value.max(0.0) / most * BARS;
        let colour = match (peer.is_ours(), peer.is_encrypted()) {
            (true, _) => "#1f6fb2",
            (_, true) => "#9aa7b3",
            (_, false) => "#dde3e8",
        };
        svg +=
            &text(left + NAMES - 6.0, y + 12.0, "text-anchor=\"end\" fill=\"#222222\"", &peer.name);
        let (start, middle) = (left + NAMES, y + 7.0);
        let shapes = format!(
            "<rect x=\"{start:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\"/>\n",
            place(found.median) - start,
            place(found.min),
            place(found.max),
        );
        svg += &shapes;
        let label = short(found.median);
        svg += &text(place(found.max) + 6.0, y + 12.0, "fill=\"#222222\"", &label);
    }
    svg
}

fn text(x: f64, y: f64, style: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>\n")
}
