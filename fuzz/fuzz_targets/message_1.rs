//! See `spiped::fuzzing::message_1`.
#![no_main]
use spiped::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::message_1(data));
