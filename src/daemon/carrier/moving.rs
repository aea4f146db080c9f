//! Moving: a stream leaves its carrier for a session of its own (C9 to C16).
//!
//! ```text
//! sender    bulk ─ a session, JOIN ─ OPENED ┬ half ─ a relay as any
//! receiver  JOIN ─ MOVED, OPENED ─ half ────┘
//! ```
//!
//! In a half, this side already speaks in the session, and what came over the carrier is still
//! on its way to the local socket. The session is complete in itself: a direction that had
//! ended on the carrier ends there again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::sleep;

use super::entry::Came;
use super::moves::Moves;
use super::relay::{CarriedRelay, LAST_WORDS, open};
use super::stream::entry;
use crate::config::Role;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::CHECK;
use crate::daemon::relay::abort::abort;
use crate::daemon::relay::busy_poll::BusyPoller;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::inbound::{Inbound, LocalEnd};
use crate::daemon::relay::local_peer::is_broken_pipe;
use crate::daemon::relay::outbound::Outbound;
use crate::daemon::relay::{Relay, Tunnel};
use crate::protocol::AbortReason;

/// How long a side that has moved into a session which has failed waits for the other one to do
/// so.
const LOST: Duration = Duration::from_secs(15);

impl CarriedRelay {
    /// Goes on in a session of the stream's own, to its end.
    pub(super) async fn run_moved(
        mut self,
        Tunnel { stream: tunnel, session }: Tunnel,
        local_end: LocalEnd,
        moving: &Moves<'_>,
    ) -> Result<(), RelayError> {
        let traffic = self.traffic();
        let padding = moving.config.padding.0;
        let mut outbound = Outbound::new(session.sealer, padding, Arc::clone(&traffic));
        let half = match moving.role {
            Role::Encrypt => Ok(()),
            Role::Decrypt => outbound.queue_opened(),
        };
        let half = match half {
            Ok(()) => self.run_half((&tunnel, &mut outbound), moving).await,
            Err(error) => Err(error),
        };
        if let Err(error) = half {
            return self.give_up_moving(tunnel, outbound, error).await;
        }
        let Some(local) = self.take_local() else {
            unreachable!("a stream that moves has not ended");
        };
        let inbound = Inbound::behind(session.opener, traffic, local_end);
        let mut relay = Relay::moved((local, tunnel), (outbound, inbound), moving.config);
        let result = relay.run(moving.role, &moving.ending).await;
        relay.close(result).await
    }

    /// Speaks in the session, and passes on what came over the carrier, until all of that is
    /// passed on and the other end speaks in the session as well.
    async fn run_half(
        &mut self,
        (tunnel, outbound): (&TunnelStream, &mut Outbound),
        moving: &Moves<'_>,
    ) -> Result<(), RelayError> {
        let local = open(self.local.as_ref());
        let mut failing = pin!(local.failed());
        let mut ending = pin!(moving.ending.begun());
        let mut check = pin!(sleep(CHECK));
        let mut busy = BusyPoller::new(moving.config.busy_poll);
        let mut said = Poll::Pending;
        let mut lost = pin!(sleep(LOST));
        let half = poll_fn(|cx| {
            if let Poll::Ready(why) = ending.as_mut().poll(cx) {
                return Poll::Ready(Err(why));
            }
            if said.is_pending() {
                match outbound.poll(cx, &local, tunnel, &mut busy) {
                    Poll::Ready(Err(RelayError::Local(error))) => {
                        return Poll::Ready(Err(RelayError::Local(error)));
                    }
                    outcome @ (Poll::Pending | Poll::Ready(_)) => said = outcome,
                }
            }
            match self.poll_half(cx)? {
                (true, true) => return Poll::Ready(Ok(())),
                // Until then, how the session ends means nothing (C13).
                (_, true) if matches!(said, Poll::Ready(Err(_))) => {
                    return std::mem::replace(&mut said, Poll::Pending);
                }
                _ => {}
            }
            if let Poll::Ready(error) = self.peer.poll_failed(cx, failing.as_mut())
                && !is_broken_pipe(&error)
            {
                return Poll::Ready(Err(RelayError::Local(error)));
            }
            // But not for ever: what stays here is held only for an end that breaks the rules.
            if matches!(said, Poll::Ready(Err(_))) && lost.as_mut().poll(cx).is_ready() {
                return std::mem::replace(&mut said, Poll::Pending);
            }
            while check.as_mut().poll(cx).is_ready() {
                local.bound_unacknowledged().map_err(RelayError::Local)?;
                tunnel.bound_unacknowledged().map_err(RelayError::Tunnel)?;
                check.set(sleep(CHECK));
            }
            Poll::Pending
        });
        unconstrained(half).await
    }

    /// Passes on what came over the carrier. Returns whether nothing of it waits, and whether
    /// the other end has moved.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Result<(bool, bool), RelayError> {
        let mut state = self.stream.link.lock();
        let end = state.end;
        let entry = entry(&mut state, self.stream.id);
        entry.wait(cx);
        let has_moved = entry.has_moved();
        if has_moved {
            // From here on, the carrier's fate is not the stream's (C15).
            self.stream.is_over = true;
        } else if let Some(reason) = entry.aborted() {
            return Err(RelayError::Aborted(reason));
        } else if let Some(end) = end {
            return Err(end.to_stream());
        }
        // No credit is owed any more (C11).
        let is_passed_on = match entry.poll_write(cx, |_bytes| {}) {
            Poll::Ready(came) => came.map(|_came: Came| true)?,
            Poll::Pending => false,
        };
        Ok((is_passed_on, has_moved))
    }

    /// Says why, on the carrier if MOVED has not gone there, or else in the session (C16).
    async fn give_up_moving(
        mut self,
        tunnel: TunnelStream,
        mut outbound: Outbound,
        error: RelayError,
    ) -> Result<(), RelayError> {
        let local = open(self.local.as_ref());
        let last_words = async {
            match &error {
                RelayError::Local(_) => outbound.send_rest(&local, &tunnel).await,
                RelayError::Aborted(_) => self.write_rest(&local).await,
                RelayError::ShuttingDown | RelayError::KeyRevoked => {
                    outbound.write_held(&tunnel).await
                }
                RelayError::Truncated
                | RelayError::Unconfirmed
                | RelayError::Tunnel(_)
                | RelayError::Record(_)
                | RelayError::Seal(_) => Ok(()),
            }
        };
        let _arrived = Deadline::after(LAST_WORDS).bound(last_words).await;
        let reason = error.abort_reason().unwrap_or(AbortReason::LocalPeerReset);
        let is_said = self.stream.abort(reason);
        // Before the tunnel, which may take a while.
        drop((local, self));
        if !is_said {
            abort(tunnel, outbound.abort(&error)).await;
        }
        Err(error)
    }

    /// The local socket, which nothing else holds any more.
    fn take_local(self) -> Option<LocalStream> {
        let Self { local, stream, .. } = self;
        drop(stream);
        Arc::into_inner(local?)
    }
}
