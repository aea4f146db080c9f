//! Threads with a runtime each, and how the process ends.

pub(crate) mod shutdown;
pub(crate) mod workers;
