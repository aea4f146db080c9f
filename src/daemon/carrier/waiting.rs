//! What waits on either side of a stream.

use super::stream::{CarriedStream, entry};
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::stall::{Stall, stuck_checks};

/// What waits on either side, as the status tells it.
#[derive(Default)]
pub(super) struct WaitingBytes {
    for_tunnel: Stall,
    for_local: Stall,
}

impl WaitingBytes {
    /// Notes what waits now. To be called in every check; `local` is `None` once the local
    /// peer needs nothing.
    pub(super) fn check(
        &mut self,
        local: Option<&LocalStream>,
        stream: &CarriedStream,
    ) -> Result<(), RelayError> {
        let mut state = stream.link.lock();
        let has_credit = state.carrier.sendable(stream.id) > 0;
        let at_entry = entry(&mut state, stream.id).waiting();
        drop(state);
        let for_tunnel = if has_credit { 0 } else { stream.spent() };
        let at_local = local.map_or(Ok(0), |local| local.unacknowledged());
        let for_local = at_entry + at_local.map_err(RelayError::Local)?;
        let traffic = &stream.traffic;
        let stuck_at_tunnel = stuck_checks(&mut self.for_tunnel, (traffic.sent(), for_tunnel));
        let stuck_at_local = stuck_checks(&mut self.for_local, (traffic.received(), for_local));
        traffic.set_waiting(for_tunnel, for_local, stuck_at_tunnel.max(stuck_at_local));
        Ok(())
    }
}
