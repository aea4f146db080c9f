//! The charts: one panel for each figure, with one bar for each peer.

use super::figures::{Better, Figure};
use super::results::{Found, Results, Subject};
use super::{short, table};

/// The width of the names on the left of the bars.
const NAMES: f64 = 200.0;
/// The width of the longest bar.
const BARS: f64 = 190.0;
/// The width of the number on the right of a bar, with a gap.
const NUMBER: f64 = 80.0;
const LINE: f64 = 20.0;
/// The height above all panels.
const TOP: f64 = 54.0;
/// The height above the bars of a panel.
const HEAD: f64 = 46.0;
const MARGIN: f64 = 20.0;
/// The panels in a row; only the first has the names.
const COLUMNS: usize = 3;

/// An SVG for a light background.
pub fn draw<'a>(results: &Results, figures: impl Iterator<Item = &'a Figure>) -> String {
    let panels: Vec<_> = figures
        .map(|figure| (figure, bars(results, figure)))
        .filter(|(_, bars)| bars.iter().any(|bar| bar.found.is_some()))
        .collect();
    let height = HEAD + results.peers.len() as f64 * LINE;
    let rows = panels.len().div_ceil(COLUMNS);
    let wide = MARGIN + NAMES + COLUMNS as f64 * (BARS + NUMBER);
    let high = TOP + rows as f64 * height + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" \
         height=\"{high}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let small = "font-size=\"11\" fill=\"#555555\"";
    let said = [format!("{}. {}", results.machine(), table::PLAINTEXT), results.method()];
    svg += &text(MARGIN, 24.0, small, &said[0]);
    svg += &text(MARGIN, 40.0, small, &format!("{}.", said[1]));
    for (index, (figure, bars)) in panels.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let left = MARGIN + NAMES + column as f64 * (BARS + NUMBER);
        let top = TOP + row as f64 * height;
        svg += &panel(left, top, figure, bars);
        if column == 0 {
            svg += &names(left, top, bars);
        }
    }
    svg + "</svg>\n"
}

struct Bar<'a> {
    peer: &'a Subject,
    found: Option<Found>,
}

fn bars<'a>(results: &'a Results, figure: &Figure) -> Vec<Bar<'a>> {
    let bar = |peer| Bar { peer, found: results.found(figure, peer) };
    results.peers.iter().map(bar).collect()
}

/// The vertical position of the bar with this number.
fn line(top: f64, index: usize) -> f64 {
    top + HEAD - 6.0 + index as f64 * LINE
}

fn names(left: f64, top: f64, bars: &[Bar<'_>]) -> String {
    let name = |(index, bar): (usize, &Bar<'_>)| {
        let weight = if bar.peer.is_ours { " font-weight=\"bold\"" } else { "" };
        let style = format!("text-anchor=\"end\" fill=\"#222222\"{weight}");
        text(left - 6.0, line(top, index) + 12.0, &style, &bar.peer.title)
    };
    bars.iter().enumerate().map(name).collect()
}

fn panel(left: f64, top: f64, figure: &Figure, bars: &[Bar<'_>]) -> String {
    let better = match figure.better {
        Better::Lower => "shorter is better",
        Better::Higher => "longer is better",
    };
    let title = "font-size=\"11\" font-weight=\"bold\" fill=\"#222222\"";
    let mut svg = text(left, top + 18.0, title, &figure.title());
    svg += &text(left, top + 32.0, "font-size=\"11\" fill=\"#888888\"", better);
    let found = bars.iter().filter_map(|bar| bar.found.as_ref());
    let most = found.map(|found| found.max).fold(f64::MIN_POSITIVE, f64::max);
    for (index, Bar { peer, found }) in bars.iter().enumerate() {
        let y = line(top, index);
        let Some(found) = found else {
            svg += &text(left + 2.0, y + 12.0, "fill=\"#888888\"", "–");
            continue;
        };
        let place = |value: f64| left + value.max(0.0) / most * BARS;
        let colour = match (peer.is_ours, peer.is_encrypted) {
            (true, _) => "#1f6fb2",
            (_, true) => "#9aa7b3",
            (_, false) => "#dde3e8",
        };
        let middle = y + 7.0;
        let shapes = format!(
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\"/>\n",
            place(found.median) - left,
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
