//! Stalls: nothing moves, for check after check, though the connection is not over.

use std::mem;

use super::error::RelayError;
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::traffic::{Progress, Traffic};
use crate::daemon::net::sides::{LocalStream, TunnelStream};

/// For how many checks, ten minutes in all, nothing may move where nobody would notice it:
/// once the local peer has had and has ended all, and once the tunnel has failed while the
/// local peer does not read.
pub(crate) const STALLED: u32 = 40;

/// In how many checks in a row nothing has moved.
#[derive(Default)]
pub(crate) struct Stall {
    checks: u32,
    progress: Option<Progress>,
}

impl Stall {
    /// To be called in every check from the first one on that counts. Returns how many have
    /// been in a row without progress, this one included.
    pub(crate) fn checks(&mut self, progress: Progress) -> u32 {
        let has_moved = self.progress.replace(progress).is_some_and(|before| before != progress);
        self.checks = if has_moved { 0 } else { self.checks.saturating_add(1) };
        self.checks
    }
}

/// What waits on either side, as the status tells it. Each direction waits on its own: a
/// client that does not read may go on sending.
#[derive(Default)]
pub(crate) struct WaitingBytes {
    for_tunnel: Stall,
    for_local: Stall,
}

impl WaitingBytes {
    /// Notes what waits now. To be called in every check; `local` is `None` once the local
    /// peer needs nothing.
    pub(super) fn check(
        &mut self,
        (local, tunnel): (Option<&LocalStream>, &TunnelStream),
        (outbound, inbound): (&Outbound, &Inbound),
    ) -> Result<(), RelayError> {
        let ((sent, unwritten), (received, unpassed)) = (outbound.progress(), inbound.progress());
        let for_tunnel = unwritten + tunnel.unacknowledged().map_err(RelayError::Tunnel)?;
        let at_local = local.map_or(Ok(0), |local| local.unacknowledged());
        let for_local = unpassed + at_local.map_err(RelayError::Local)?;
        self.note(outbound.traffic(), (sent, for_tunnel), (received, for_local));
        Ok(())
    }

    /// Notes how many bytes have gone either way, and how many wait. To be called in every
    /// check.
    pub(crate) fn note(&mut self, traffic: &Traffic, out: Progress, inward: Progress) {
        let stuck_at_tunnel = stuck_checks(&mut self.for_tunnel, out);
        let stuck_at_local = stuck_checks(&mut self.for_local, inward);
        traffic.set_waiting(out.1, inward.1, stuck_at_tunnel.max(stuck_at_local));
    }
}

/// In how many checks in a row these bytes have waited and none has moved.
fn stuck_checks(stall: &mut Stall, progress: Progress) -> u32 {
    if progress.1 == 0 {
        *stall = Stall::default();
        return 0;
    }
    // The bytes may have come just before the first check that sees them.
    stall.checks(progress).saturating_sub(1)
}

/// The stalls of the tunnel.
#[derive(Default)]
pub(super) struct TunnelStalls {
    was_ended: bool,
    inbound: Stall,
    outbound: Stall,
}

impl TunnelStalls {
    /// Fails where the other end is gone, and its end is not read, since the local peer does
    /// not read. Where END is sent, the rest of the other stream may have come: it has ten
    /// minutes to be read.
    pub(super) fn check_gone(
        &mut self,
        tunnel: &TunnelStream,
        inbound: &Inbound,
        outbound: &Outbound,
    ) -> Result<(), RelayError> {
        let is_gone = if outbound.has_sent_end() {
            tunnel.has_failed() && self.inbound.checks(inbound.progress()) >= STALLED
        } else {
            tunnel.is_ended_by_peer() && mem::replace(&mut self.was_ended, true)
        };
        if is_gone { Err(RelayError::Truncated) } else { Ok(()) }
    }

    /// Fails once nothing was sent for ten minutes. To be called where only that is left.
    pub(super) fn check_sending(
        &mut self,
        tunnel: &TunnelStream,
        outbound: &Outbound,
    ) -> Result<(), RelayError> {
        let (read, unwritten) = outbound.progress();
        let unsent = unwritten + tunnel.unacknowledged().map_err(RelayError::Tunnel)?;
        let is_stalled = self.outbound.checks((read, unsent)) >= STALLED;
        if is_stalled { Err(RelayError::Unconfirmed) } else { Ok(()) }
    }
}
