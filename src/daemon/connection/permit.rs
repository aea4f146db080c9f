//! Permission for one of the connections that may be open at once.

use std::sync::Arc;

use super::close_reason::CloseReason;
use super::context::Context;
use super::guarded::Guarded;
use super::handshake_error::PreAuthError;
use super::log::turn_away;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::Tunnel;

/// One of the connections there may be. Guard: gives it back when dropped, which has to
/// be after the sockets.
pub(crate) struct ConnectionPermit(Arc<Context>);

/// A connection that has all it needs.
pub(super) type Open = Guarded<(LocalStream, Tunnel), ConnectionPermit>;

impl ConnectionPermit {
    /// A permit, unless there are as many connections as there may be. Peers that are
    /// parked on the descriptors it is for are turned away.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn get(context: &Arc<Context>) -> Result<Self, CloseReason> {
        let Some(parked) = context.fd_budget.open() else {
            return Err(CloseReason::Limit(context.limits.connections));
        };
        for parked in parked {
            turn_away(context, parked, &PreAuthError::NoSlot.into());
        }
        context.observer.changed();
        Ok(Self(Arc::clone(context)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fd_budget.close();
        self.0.observer.changed();
    }
}
