//! How often something took how long.

use std::time::Duration;

use crate::status::Histogram;

/// Upper bounds in seconds: from a handshake within a host to one that times out.
const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Default)]
pub(super) struct Durations {
    /// How often it took at most so long, and longer than the bound before.
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Durations {
    pub(super) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(place) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[place] += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    pub(super) fn told(&self) -> Histogram {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Histogram {
            le: BOUNDS.to_vec(),
            counts: sums.collect(),
            count: self.count,
            sum: self.sum.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_counts_all_that_took_at_most_so_long() {
        let mut durations = Durations::default();
        for millis in [1, 2, 400, 20_000] {
            durations.add(Duration::from_millis(millis));
        }
        let Histogram { le, counts, count, sum } = durations.told();
        assert_eq!(le.len(), counts.len());
        // Up to 0.5 ms, 1 ms, 2.5 ms, 250 ms, 500 ms, 10 s.
        assert_eq!([0, 1, 2, 8, 9, 13].map(|bound| counts[bound]), [0, 1, 2, 2, 3, 3]);
        assert_eq!(count, 4);
        assert!((sum - 20.403).abs() < 1e-9);
    }
}
