//! Samples of the last minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::status::{Recent, Samples as Told};

/// How far samples are apart.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Five minutes, and where they begin.
const MOST: usize = 61;

/// Counts at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Open.
    pub(super) connections: usize,
    /// Since the start.
    pub(super) opened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) handshakes_ok: u64,
    pub(super) handshakes_failed: u64,
}

/// The samples of the last minutes, the oldest first; never none.
pub(super) struct Samples(VecDeque<Sample>);

impl Sample {
    /// When nothing has happened yet.
    const fn first(at: Instant) -> Self {
        Self {
            at,
            connections: 0,
            opened: 0,
            sent: 0,
            received: 0,
            handshakes_ok: 0,
            handshakes_failed: 0,
        }
    }

    /// Bytes a second since an earlier sample.
    fn rates_since(&self, before: &Self) -> (u64, u64) {
        let millis = self.at.duration_since(before.at).as_millis();
        let rate = |now: u64, before: u64| {
            let rate = (u128::from(now.saturating_sub(before)) * 1000).checked_div(millis);
            // Right after the start there is no time to divide by.
            u64::try_from(rate.unwrap_or(0)).unwrap_or(u64::MAX)
        };
        (rate(self.sent, before.sent), rate(self.received, before.received))
    }
}

impl Samples {
    pub(super) fn new(now: Instant) -> Self {
        Self([Sample::first(now)].into())
    }

    pub(super) fn push(&mut self, sample: Sample) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What is told of the time from the first sample until now. No lock is held from the
    /// count of `now` until here, so that samples may have been taken since: what has become
    /// less counts as nothing.
    pub(super) fn told(&self, now: &Sample) -> Recent {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            unreachable!("there is always a sample")
        };
        // The last one may be of this very moment.
        let before = self.0.iter().rev().nth(1).unwrap_or(last);
        let (sent_bytes_per_second, received_bytes_per_second) = now.rates_since(before);
        let pairs = || self.0.iter().zip(self.0.iter().skip(1));
        Recent {
            seconds: now.at.duration_since(first.at).as_secs(),
            handshakes_ok: now.handshakes_ok.saturating_sub(first.handshakes_ok),
            handshakes_failed: now.handshakes_failed.saturating_sub(first.handshakes_failed),
            connections_opened: now.opened.saturating_sub(first.opened),
            sent_bytes_per_second,
            received_bytes_per_second,
            samples: Told {
                interval_seconds: INTERVAL.as_secs(),
                connections: pairs()
                    .map(|(_, now)| u64::try_from(now.connections).unwrap_or(u64::MAX))
                    .collect(),
                sent_bytes_per_second: pairs().map(|(a, b)| b.rates_since(a).0).collect(),
                received_bytes_per_second: pairs().map(|(a, b)| b.rates_since(a).1).collect(),
                handshakes_failed: pairs()
                    .map(|(a, b)| b.handshakes_failed.saturating_sub(a.handshakes_failed))
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_five_minutes_are_told_and_nothing_before() {
        let start = Instant::now();
        let mut samples = Samples::new(start);
        let at = |number: u64| Sample {
            at: start + INTERVAL * u32::try_from(number).unwrap(),
            connections: 2,
            opened: number,
            sent: number * 500,
            received: 0,
            handshakes_ok: number * 2,
            handshakes_failed: number / 100,
        };
        let recent = samples.told(&at(0));
        assert_eq!((recent.seconds, recent.samples.connections.len()), (0, 0));
        assert_eq!(recent.sent_bytes_per_second, 0);
        for number in 1..=100 {
            samples.push(at(number));
        }
        let recent = samples.told(&at(101));
        assert_eq!(recent.seconds, 305);
        assert_eq!((recent.handshakes_ok, recent.handshakes_failed), (122, 1));
        assert_eq!(recent.connections_opened, 61);
        assert_eq!(recent.sent_bytes_per_second, 100);
        assert_eq!(recent.samples.sent_bytes_per_second, [100; 60]);
        assert_eq!(recent.samples.handshakes_failed.iter().sum::<u64>(), 1);
        // A thread that has counted and then had to wait.
        let late = samples.told(&at(3));
        assert_eq!((late.seconds, late.handshakes_ok, late.sent_bytes_per_second), (0, 0, 0));
    }
}
