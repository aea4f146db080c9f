//! Headings of `--help`, in the order of their first options; the common options stand
//! above them.

pub(super) const PROCESS: &str = "Process";
pub(super) const CONNECTIONS: &str = "Connections";
pub(super) const LOG: &str = "Log";
pub(super) const FOR_SPIPED_1: &str = "Of spiped 1.6";
