//! The relay moves bytes both ways at once: from the local socket into records, and from
//! records to the local socket. Each direction ends on its own.
//!
//! Measurements led to this design. Several records go in one read and one write of up to
//! 256 KiB, and are sealed and opened in place. Buffers are held only while bytes move. A
//! flow gets a large buffer once it fills small ones. Both directions are polled by hand,
//! since thousands of them may wait: a waiting direction keeps only the fields of its
//! struct, and its waker is one of the two of its socket, not an entry in a list.
//!
//! # What did not pay
//!
//! Small requests are 50 connections of redis-benchmark. The bare relay is a Rust program
//! with nothing but epoll, recv and send. It takes 0.8 of the CPU of haproxy's plaintext
//! relay, as the kernel's TCP alone does. spiped's relay takes 0.9 of haproxy's CPU with
//! one thread at each end, and as much as haproxy with two.
//!
//! - `io_uring` in the bare relay, small requests: with multishot receives 0 to 3 % less
//!   CPU; without `DEFER_TASKRUN` 38 % more; with a submitting kernel thread 2.4 times as
//!   much. Many containers refuse `io_uring`.
//! - All ready connections read before all are written (bare relay): 0 to 3 % less CPU.
//!   Only together with a ring for reads, a ring for writes and a second look before
//!   sleeping it took 12 % less; it was not built, since it needs a runtime of our own.
//! - One thread where there are two cores: see the default of `--threads`.
//! - `SO_REUSEPORT`, a listener for each thread: as cheap as one listener that gives to
//!   the least loaded thread, but two connections are on one thread in half of all cases.
//! - `sched_yield` before a thread sleeps, small requests: 0 to 3 % more of them,
//!   no less CPU.
//! - `SCHED_BATCH`, busy polling of epoll, no quick acknowledgements, epoll by
//!   level, reading until there is nothing: no difference above the noise of 5 %.
//! - Timers and the shutdown not polled at each message: no difference.
//! - Buffers above 256 KiB: no difference.
//! - `splice` cannot be used for bytes that must be sealed: it takes 0.26 CPU s/GB,
//!   copying takes 0.66, this relay 0.76.

pub(crate) mod abort;
mod budget;
mod buffer;
mod busy_poll;
pub(crate) mod error;
mod inbound;
mod local_peer;
mod outbound;
#[cfg(test)]
mod tests;
pub(crate) mod traffic;
mod write;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::sleep;

use self::abort::abort;
use self::busy_poll::BusyPoller;
use self::error::RelayError;
use self::inbound::Inbound;
use self::local_peer::{LocalPeer, is_broken_pipe};
use self::outbound::Outbound;
use self::traffic::Traffic;
use crate::config::{Role, TunnelConfig};
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::CHECK;
use crate::daemon::runtime::shutdown::Shutdown;
use crate::protocol::Session;

/// How long the last bytes of a side may take to be passed on, once it has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The tunnel, once both ends have agreed on a session.
pub(crate) struct Tunnel {
    pub(crate) stream: TunnelStream,
    pub(crate) session: Session,
}

/// An open connection: two sockets, and a session on one of them.
pub(crate) struct Relay {
    local: LocalStream,
    tunnel: TunnelStream,
    outbound: Outbound,
    inbound: Inbound,
    poller: BusyPoller,
    peer: LocalPeer,
}

impl Relay {
    /// A relay that counts its bytes in `traffic`.
    pub(crate) fn new(
        local: LocalStream,
        Tunnel { stream: tunnel, session }: Tunnel,
        traffic: Arc<Traffic>,
        config: &TunnelConfig,
    ) -> Self {
        Self {
            local,
            tunnel,
            outbound: Outbound::new(session.sealer, config.padding.0, Arc::clone(&traffic)),
            inbound: Inbound::new(session.opener, traffic),
            poller: BusyPoller::new(config.busy_poll),
            peer: LocalPeer::default(),
        }
    }

    /// Sends OPEN or OPENED, then relays until both directions have ended cleanly and the
    /// other end has passed on all that it was sent, or until one has failed.
    pub(crate) async fn run(&mut self, role: Role, shutdown: &Shutdown) -> Result<(), RelayError> {
        match role {
            Role::Encrypt => self.outbound.queue_open(&self.local)?,
            Role::Decrypt => self.outbound.queue_opened()?,
        }
        match self.relay_both(shutdown).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Whether the last bytes arrive or not, the connection has failed.
                let _arrived = Deadline::after(LAST_WORDS).bound(self.last_words(&error)).await;
                Err(error)
            }
        }
    }

    async fn relay_both(&mut self, shutdown: &Shutdown) -> Result<(), RelayError> {
        let Self { local, tunnel, outbound, inbound, poller, peer } = self;
        let (local, tunnel) = (&*local, &*tunnel);
        let mut failing = pin!(local.failed());
        let mut ending = pin!(shutdown.begun());
        let mut check = pin!(sleep(CHECK));
        let (mut sent, mut received, mut was_ended) = (false, false, false);
        let mut has_said_goodbye = false;
        let both = poll_fn(|cx| {
            received = received || inbound.poll(cx, tunnel, local, poller)?.is_ready();
            sent = sent || outbound.poll(cx, local, tunnel, poller)?.is_ready();
            if sent && received && !has_said_goodbye {
                // Tells the other end that all it has sent is passed on.
                tunnel.shutdown_write().map_err(RelayError::Tunnel)?;
                has_said_goodbye = true;
            }
            // While the local socket is read, the read returns the error; and once both
            // directions have ended there is nothing left for it.
            if (sent || outbound.is_blocked())
                && !has_said_goodbye
                && let Poll::Ready(error) = peer.poll_failed(cx, failing.as_mut())
                && (sent || !is_broken_pipe(&error))
            {
                return Poll::Ready(Err(RelayError::Local(error)));
            }
            if received && let Poll::Ready(error) = inbound.poll_after_end(cx, tunnel) {
                // At last: the other end has passed on all that this one has sent.
                let is_over = has_said_goodbye && matches!(error, RelayError::Truncated);
                return Poll::Ready(if is_over { Ok(()) } else { Err(error) });
            }
            if ending.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(RelayError::ShuttingDown));
            }
            while check.as_mut().poll(cx).is_ready() {
                local.bound_unacknowledged().map_err(RelayError::Local)?;
                tunnel.bound_unacknowledged().map_err(RelayError::Tunnel)?;
                // The other end is gone, but its end is not read, since the local peer
                // does not read.
                let is_ended = !sent && tunnel.is_ended_by_peer();
                if is_ended && was_ended {
                    return Poll::Ready(Err(RelayError::Truncated));
                }
                was_ended = is_ended;
                if !has_said_goodbye {
                    peer.check((!received).then_some(local), outbound.progress())?;
                }
                check.set(sleep(CHECK));
            }
            poller.keep(cx);
            Poll::Pending
        });
        // Each direction has a budget of bytes. With the runtime's budget, one direction
        // could use it up, and the other direction and the shutdown would not be polled.
        unconstrained(both).await
    }

    /// Passes on what a side has sent before it failed.
    async fn last_words(&mut self, error: &RelayError) -> Result<(), RelayError> {
        match error {
            RelayError::Local(_) => self.outbound.send_rest(&self.local, &self.tunnel).await,
            // ABORT can only follow whole records.
            RelayError::ShuttingDown => self.outbound.write_held(&self.tunnel).await,
            RelayError::Aborted(_) => self.inbound.write_rest(&self.local).await,
            RelayError::Tunnel(_) | RelayError::Truncated if self.inbound.is_ended() => {
                self.inbound.write_rest(&self.local).await
            }
            RelayError::Tunnel(_)
            | RelayError::Truncated
            | RelayError::Record(_)
            | RelayError::Seal(_) => Ok(()),
        }
    }

    /// Closes both sockets. Where the relay failed at this end, tells the other end why.
    pub(crate) async fn close(self, result: Result<(), RelayError>) -> Result<(), RelayError> {
        let Self { local, tunnel, mut outbound, .. } = self;
        // Its stream was ended before; otherwise the drop resets it.
        drop(local);
        match result {
            // Its end is written, so that it is not reset.
            Ok(()) => {
                drop(tunnel);
                Ok(())
            }
            Err(error) => {
                abort(tunnel, outbound.abort(&error)).await;
                Err(error)
            }
        }
    }
}
