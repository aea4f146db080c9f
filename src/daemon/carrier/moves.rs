//! What a stream needs to be moved to a session of its own.

use std::pin::Pin;

use crate::config::{Role, TunnelConfig};
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Ending, Tunnel};

/// A session that a sender makes for a stream, in which OPENED has come.
pub(crate) type Joining = Pin<Box<dyn Future<Output = Result<Tunnel, RelayError>> + Send>>;

/// What a stream needs to be moved.
pub(crate) struct Moves<'a> {
    pub(crate) role: Role,
    pub(crate) ending: Ending<'a>,
    pub(crate) config: &'a TunnelConfig,
    /// Makes a session that joins; `None` at a receiver.
    pub(crate) join: Option<&'a (dyn Fn() -> Joining + Send + Sync)>,
}
