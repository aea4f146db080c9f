//! Both ends in any interleaving, see `crate::fuzzing::carrier`.

use crate::fuzzing::carrier;
use crate::fuzzing::input::Seeded;

/// More with `SPIPED_CARRIER_RUNS`.
fn runs() -> u32 {
    std::env::var("SPIPED_CARRIER_RUNS").map_or(400, |runs| runs.parse().unwrap())
}

#[test]
fn nothing_is_lost_repeated_reordered_or_left_whatever_fails_meanwhile() {
    for run in 0..runs() {
        let mut steps = Seeded::new(&run.to_be_bytes());
        // Short ones fail less.
        let bytes = match run % 4 {
            0 => steps.array::<300>().to_vec(),
            1 => steps.array::<1_000>().to_vec(),
            2 => steps.array::<4_000>().to_vec(),
            _ => steps.array::<12_000>().to_vec(),
        };
        carrier(&bytes);
    }
}
