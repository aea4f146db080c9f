//! The threads, each with its runtime, and the signals that end the process.

pub(crate) mod shutdown;
pub(crate) mod workers;
