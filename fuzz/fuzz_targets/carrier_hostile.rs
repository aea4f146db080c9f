//! See `spiped::fuzzing::carrier_hostile`.
#![no_main]
use spiped::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::carrier_hostile(data));
