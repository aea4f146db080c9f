//! What a systemd unit of ours needs: a check before its start, a restart beside open
//! connections, and a process that tells systemd how it is.

pub(crate) mod check;
pub(crate) mod handover;
pub(crate) mod keeper;
pub(crate) mod notify;
