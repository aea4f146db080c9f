//! See `spiped::fuzzing::opener`.
#![no_main]
use spiped::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::opener(data));
