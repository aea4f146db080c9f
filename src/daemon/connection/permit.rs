//! Connection permits: the right of a connection to be open.

use std::sync::Arc;

use super::close_reason::CloseReason;
use super::context::Context;
use super::guarded::Guarded;
use super::handshake_error::PreAuthError;
use super::log::turn_away;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::Tunnel;
use crate::keys::set::{Key, KeyUse};

/// The right of a connection to be open. Guard: gives the permit back when dropped, which
/// must be after the connection's sockets are closed.
pub(crate) struct ConnectionPermit {
    context: Arc<Context>,
    /// Counts the connection as one of its key, once that is known.
    of_key: Option<KeyUse>,
}

/// A connection that is ready to be relayed.
pub(super) type Established = Guarded<(LocalStream, Tunnel), ConnectionPermit>;

impl ConnectionPermit {
    /// Gets a permit. Turns away peers that are parked on the descriptors that the
    /// connection needs.
    ///
    /// # Errors
    /// When the connection limit is reached.
    pub(crate) fn get(context: &Arc<Context>) -> Result<Self, CloseReason> {
        let Some(parked) = context.fd_budget.take_for_connection() else {
            return Err(CloseReason::Limit(context.limits.connections));
        };
        // Made first, so that it is given back whatever happens here.
        let permit = Self { context: Arc::clone(context), of_key: None };
        for parked in parked {
            turn_away(context, parked, &PreAuthError::NoSlot.into());
        }
        context.observer.status_changed();
        Ok(permit)
    }

    /// Counts the connection as one of this key.
    ///
    /// # Errors
    /// When the key has as many connections as it may have.
    pub(crate) fn count_for(&mut self, key: &Arc<Key>) -> Result<(), CloseReason> {
        let most = self.context.config.connections.per_key.0;
        self.of_key = Some(key.count(most).map_err(CloseReason::KeyLimit)?);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.context.fd_budget.give_back();
        self.context.observer.status_changed();
    }
}
