//! What waits on either side of a stream.

use super::stream::{CarriedStream, entry};
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::stall::WaitingBytes;

/// Notes what waits now, as the status tells it. To be called in every check; `local` is `None`
/// once the local peer needs nothing.
pub(super) fn note_waiting(
    waiting: &mut WaitingBytes,
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
    waiting.note(traffic, (traffic.sent(), for_tunnel), (traffic.received(), for_local));
    Ok(())
}
