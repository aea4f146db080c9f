//! 64 bytes there and back, while other programs want the processor.

use super::ping::continuous_times;
use super::{Load, Values, percentile};
use crate::Result;
use crate::peers::Peer;
use crate::process::Process;

/// The number of busy loops that run beside the measure, and the names of its figures.
const NEIGHBOURS: [(usize, [&str; 4]); 4] = [
    (0, ["busy-0/p50", "busy-0/p90", "busy-0/p99", "busy-0/p99.9"]),
    (1, ["busy-1/p50", "busy-1/p90", "busy-1/p99", "busy-1/p99.9"]),
    (2, ["busy-2/p50", "busy-2/p90", "busy-2/p99", "busy-2/p99.9"]),
    (4, ["busy-4/p50", "busy-4/p90", "busy-4/p99", "busy-4/p99.9"]),
];

pub fn run(load: &Load, peer: &Peer) -> Result<Values> {
    let mut values = vec![];
    for (count, figures) in NEIGHBOURS {
        let log = load.folder.join("neighbour.log");
        let endless = ["sh", "-c", "while :; do :; done"].map(str::to_owned);
        // Each loop ends when it is dropped, and when the bench ends.
        let _neighbours: Vec<Process> =
            (0..count).map(|_| Process::start(&endless, &log)).collect::<Result<_>>()?;
        let mut times = continuous_times(load, peer)?;
        for (figure, part) in figures.into_iter().zip([0.5, 0.9, 0.99, 0.999]) {
            values.push((figure, percentile(&mut times, part).as_secs_f64() * 1e6));
        }
    }
    Ok(values)
}
