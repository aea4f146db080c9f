//! Answers that stayed unproved, by source address (rule H5).
//!
//! Whoever has recorded more first messages than the replay set keeps can still have some
//! of them answered, at the price of a key exchange each. A sender proves the key behind
//! nearly each answer, though not if its client gives up meanwhile: so the budget is far
//! above that, and a proof forgives all answers to its address. An answer takes about 70 µs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How soon an answer that stayed unproved is forgiven.
const EACH: Duration = Duration::from_millis(1);
/// How many answers may be unforgiven.
const MOST: u32 = 4096;
/// How many source addresses are remembered before those that are forgiven are dropped.
const SOURCES: usize = 4096;

/// For each source address, when all its answers are forgiven.
#[derive(Default)]
pub(super) struct UnprovedAnswers(HashMap<IpAddr, Instant>);

impl UnprovedAnswers {
    /// Whether the address gets no further answer now.
    pub(super) fn are_too_many(&self, source: IpAddr, now: Instant) -> bool {
        let left = self.0.get(&source).map(|forgiven| forgiven.saturating_duration_since(now));
        left.is_some_and(|left| left >= EACH * MOST)
    }

    /// Forgives all answers to an address.
    pub(super) fn forgive(&mut self, source: IpAddr) {
        self.0.remove(&source);
    }

    /// Counts an answer that stayed unproved.
    pub(super) fn add(&mut self, source: IpAddr, now: Instant) {
        if self.0.len() >= SOURCES {
            self.0.retain(|_, forgiven| *forgiven > now);
        }
        let forgiven = self.0.entry(source).or_insert(now);
        *forgiven = (*forgiven).max(now) + EACH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn h5_a_source_has_a_budget_that_comes_back() {
        let (mut answers, now) = (UnprovedAnswers::default(), Instant::now());
        for _ in 0..MOST {
            assert!(!answers.are_too_many(SOURCE, now));
            answers.add(SOURCE, now);
        }
        assert!(answers.are_too_many(SOURCE, now));
        assert!(!answers.are_too_many([192, 0, 2, 2].into(), now));
        let next = now + EACH;
        assert!(!answers.are_too_many(SOURCE, next));
        answers.add(SOURCE, next);
        assert!(answers.are_too_many(SOURCE, next));
        let later = next + EACH * MOST;
        for _ in 0..MOST {
            assert!(!answers.are_too_many(SOURCE, later));
            answers.add(SOURCE, later);
        }
        assert!(answers.are_too_many(SOURCE, later));
        answers.forgive(SOURCE);
        assert!(!answers.are_too_many(SOURCE, later));
    }

    #[test]
    fn sources_that_are_forgiven_are_forgotten() {
        let (mut answers, now) = (UnprovedAnswers::default(), Instant::now());
        let source = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for number in 0..SOURCES {
            answers.add(source(number), now);
        }
        answers.add(SOURCE, now + EACH);
        assert_eq!(answers.0.len(), 1);
    }
}
