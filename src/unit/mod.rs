//! What the units of spiped need: a check before the start, a handover at a restart, and
//! notifications to systemd.

pub(crate) mod check;
pub(crate) mod configuration;
pub(crate) mod files;
pub(crate) mod handover;
pub(crate) mod keeper;
pub(crate) mod notify;
pub(crate) mod systemd;
