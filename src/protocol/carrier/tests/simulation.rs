//! Both ends in any interleaving, and one end whose other end says anything: see
//! `crate::fuzzing`, whose `carrier` and `carrier_hostile` are run here on random bytes.

use crate::fuzzing::input::Seeded;
use crate::fuzzing::{carrier, carrier_hostile};

/// Runs a target on inputs of several lengths: short ones fail less. There are 400 of them, or
/// as many as `SPIPED_CARRIER_RUNS` says, that many times.
fn run(target: fn(&[u8]), times: u32) {
    let runs = std::env::var("SPIPED_CARRIER_RUNS").map_or(400, |runs| runs.parse().unwrap());
    for run in 0..runs * times {
        let mut steps = Seeded::new(&run.to_be_bytes());
        let bytes = match run % 4 {
            0 => steps.array::<300>().to_vec(),
            1 => steps.array::<1_000>().to_vec(),
            2 => steps.array::<4_000>().to_vec(),
            _ => steps.array::<12_000>().to_vec(),
        };
        target(&bytes);
    }
}

#[test]
fn nothing_is_lost_repeated_reordered_or_left_whatever_fails_meanwhile() {
    run(carrier, 1);
}

#[test]
fn a_hostile_peer_is_told_as_far_as_it_keeps_the_rules_and_no_further() {
    // One end takes a tenth of the time.
    run(carrier_hostile, 10);
}
