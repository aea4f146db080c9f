//! See `spiped::fuzzing::carrier`.
#![no_main]
use spiped::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::carrier(data));
