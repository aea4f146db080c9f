//! See `spiped::fuzzing::relay`.
#![no_main]
use spiped::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::relay(data));
