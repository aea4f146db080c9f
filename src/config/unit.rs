//! Whether this process runs in a unit of ours.

use std::env;

/// The name of the unit that runs this process, where that is one of ours.
pub(crate) const UNIT: &str = "SPIPED_UNIT";

/// The name of the unit that runs this process, where that is one of ours.
#[must_use]
pub(crate) fn unit_name() -> Option<String> {
    env::var(UNIT).ok().filter(|name| !name.is_empty())
}
