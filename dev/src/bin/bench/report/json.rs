//! All results, for programs.

use serde_json::{Value, json};

use super::figures::FIGURES;
use super::{Samples, targets};
use crate::peers::Peer;

pub fn all(samples: &Samples, peers: &[Peer], facts: &Value) -> Value {
    let subjects: Vec<_> = peers
        .iter()
        .map(|peer| {
            json!({
                "name": peer.name, "title": peer.title(), "version": peer.version(),
                "options": peer.options(), "ours": peer.is_ours(),
                "encrypted": peer.is_encrypted(),
            })
        })
        .collect();
    let figures: Vec<_> = FIGURES
        .iter()
        .flat_map(|figure| peers.iter().map(move |peer| (figure, peer)))
        .filter_map(|(figure, peer)| {
            let found = samples.spread(figure.id, &peer.name)?;
            let ratio = samples.ratio(figure.id, &peers.first()?.name, &peer.name);
            Some(json!({
                "figure": figure.id, "what": figure.what, "unit": figure.unit,
                "better": format!("{:?}", figure.better).to_lowercase(), "peer": peer.name,
                "min": found.min, "median": found.median, "max": found.max,
                "rounds": samples.of(figure.id, &peer.name)?.values().collect::<Vec<_>>(),
                "first_by_this": ratio.map(|ratio| ratio.median),
            }))
        })
        .collect();
    let targets: Vec<_> = peers
        .iter()
        .filter(|peer| peer.is_ours())
        .flat_map(|peer| targets::outcomes(samples, &peer.name))
        .map(|outcome| {
            json!({
                "peer": outcome.peer, "figure": outcome.figure, "wanted": outcome.wanted,
                "found": outcome.found.median, "min": outcome.found.min, "max": outcome.found.max,
                "met": outcome.met,
            })
        })
        .collect();
    json!({
        "machine": facts, "peers": subjects, "figures": figures, "targets": targets,
        "failures": samples.failures,
    })
}
