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
pub(crate) mod buffer;
pub(crate) mod busy_poll;
pub(crate) mod error;
pub(crate) mod inbound;
pub(crate) mod local_peer;
pub(crate) mod outbound;
pub(crate) mod stall;
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
use self::stall::{TunnelStalls, WaitingBytes};
use self::traffic::Traffic;
use crate::config::{Role, TunnelConfig};
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::CHECK;
use crate::daemon::runtime::shutdown::Shutdown;
use crate::keys::set::Key;
use crate::protocol::{Extensions, OpenError, Session};

/// How long a sender waits for its receiver to close first.
const PARTING: Duration = Duration::from_secs(1);
/// How long the last bytes of a side may take to be passed on, once it has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The tunnel, once both ends have agreed on a session.
pub(crate) struct Tunnel {
    pub(crate) stream: TunnelStream,
    pub(crate) session: Session,
}

/// The record that a relay begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FirstRecord {
    /// A sender's.
    Open(Extensions),
    /// A receiver's.
    Opened,
}

/// What ends an open connection from this side.
pub(crate) struct Ending<'a> {
    pub(crate) shutdown: &'a Shutdown,
    /// The connection's key; `None` where nobody can revoke it.
    pub(crate) key: Option<&'a Key>,
}

impl<'a> Ending<'a> {
    /// Only the shutdown ends the connection.
    pub(crate) const fn by(shutdown: &'a Shutdown) -> Self {
        Self { shutdown, key: None }
    }

    /// Waits until the connection is to end, and says why.
    pub(crate) async fn begun(&self) -> RelayError {
        let is_revoked = || self.key.is_some_and(Key::is_revoked);
        self.shutdown.begun_or(is_revoked).await;
        if is_revoked() { RelayError::KeyRevoked } else { RelayError::ShuttingDown }
    }
}

/// An open connection: two sockets, and a session on one of them.
pub(crate) struct Relay {
    /// `None` once nothing more is to be done with it.
    local: Option<LocalStream>,
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
            local: Some(local),
            tunnel,
            outbound: Outbound::new(session.sealer, config.padding.0, Arc::clone(&traffic)),
            inbound: Inbound::new(session.opener, traffic),
            poller: BusyPoller::new(config.busy_poll),
            peer: LocalPeer::default(),
        }
    }

    /// A relay of a stream that has left its carrier: each direction goes on.
    pub(crate) fn moved(
        (local, tunnel): (LocalStream, TunnelStream),
        (outbound, inbound): (Outbound, Inbound),
        config: &TunnelConfig,
    ) -> Self {
        let poller = BusyPoller::new(config.busy_poll);
        Self { local: Some(local), tunnel, outbound, inbound, poller, peer: LocalPeer::default() }
    }

    /// Queues the record that [`Self::run`] begins with.
    pub(crate) fn queue(&mut self, first: FirstRecord) -> Result<(), RelayError> {
        match first {
            FirstRecord::Open(extensions) => {
                self.outbound.queue_open(extensions, open(self.local.as_ref()))
            }
            FirstRecord::Opened => self.outbound.queue_opened(),
        }
    }

    /// Queues bytes for the local peer that go before the stream and do not belong to it.
    pub(crate) fn queue_header(&mut self, header: &[u8]) {
        self.inbound.queue_header(header);
    }

    /// Relays until both directions have ended cleanly and the other end has passed on all
    /// that it was sent, or until one has failed.
    pub(crate) async fn run(&mut self, role: Role, ending: &Ending<'_>) -> Result<(), RelayError> {
        match self.relay_both(ending).await {
            Ok(()) => {
                self.confirm(ending).await?;
                if role == Role::Encrypt {
                    // Whoever closes first keeps the port in TIME_WAIT for a minute. That must
                    // not use up the local ports of a sender.
                    let _closed = Deadline::after(PARTING).bound(self.tunnel.ended_by_peer()).await;
                }
                Ok(())
            }
            Err(error) => {
                // Whether the last bytes arrive or not, the connection has failed.
                let _arrived = Deadline::after(LAST_WORDS).bound(self.last_words(&error)).await;
                Err(error)
            }
        }
    }

    /// Relays until END has gone both ways, all is passed on to the local peer, and DONE is
    /// queued.
    async fn relay_both(&mut self, ending: &Ending<'_>) -> Result<(), RelayError> {
        let Self { local, tunnel, outbound, inbound, poller, peer } = self;
        let (local, tunnel) = (open(local.as_ref()), &*tunnel);
        let mut failing = pin!(local.failed());
        let mut ending = pin!(ending.begun());
        let mut check = pin!(sleep(CHECK));
        let (mut stalls, mut waiting) = (TunnelStalls::default(), WaitingBytes::default());
        let (mut sent, mut received) = (false, false);
        let both = poll_fn(|cx| {
            // First: nothing that arrives after a revocation is passed on.
            if let Poll::Ready(why) = ending.as_mut().poll(cx) {
                return Poll::Ready(Err(why));
            }
            received = received || inbound.poll(cx, tunnel, local, poller)?.is_ready();
            outbound.is_done_due = received && !peer.has_failed();
            sent = sent || outbound.poll(cx, local, tunnel, poller)?.is_ready();
            if outbound.is_done() {
                return Poll::Ready(Ok(()));
            }
            // While the local socket is read, the read returns the error.
            if (sent || outbound.is_blocked())
                && let Poll::Ready(error) = peer.poll_failed(cx, failing.as_mut())
                && (sent || !is_broken_pipe(&error))
            {
                return Poll::Ready(Err(RelayError::Local(error)));
            }
            if sent && received {
                return Poll::Ready(outbound.queue_done(local));
            }
            if received && inbound.poll_done(cx, tunnel)?.is_ready() {
                // The other end cannot have passed on an END that was not sent.
                return Poll::Ready(Err(OpenError::Violation.into()));
            }
            while check.as_mut().poll(cx).is_ready() {
                local.bound_unacknowledged().map_err(RelayError::Local)?;
                tunnel.bound_unacknowledged().map_err(RelayError::Tunnel)?;
                waiting.check((Some(local), tunnel), (outbound, inbound))?;
                peer.check((!received).then_some(local), outbound.progress())?;
                stalls.check_gone(tunnel, inbound, outbound)?;
                // A peer that has had all and has said all waits for nothing.
                if received && local.is_ended_by_peer() {
                    stalls.check_sending(tunnel, outbound)?;
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

    /// Sends DONE, and waits for the other end's: only then it has passed on all that this
    /// end has sent. The local peer needs nothing any more.
    async fn confirm(&mut self, ending: &Ending<'_>) -> Result<(), RelayError> {
        self.local = None;
        let Self { tunnel, outbound, inbound, .. } = self;
        let mut ending = pin!(ending.begun());
        let mut check = pin!(sleep(CHECK));
        let (mut stalls, mut waiting) = (TunnelStalls::default(), WaitingBytes::default());
        let (mut sent, mut received) = (false, false);
        let both = poll_fn(|cx| {
            sent = sent || outbound.poll_held(cx, tunnel)?.is_ready();
            received = received || inbound.poll_done(cx, tunnel)?.is_ready();
            if sent && received {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(why) = ending.as_mut().poll(cx) {
                return Poll::Ready(Err(why));
            }
            while check.as_mut().poll(cx).is_ready() {
                tunnel.bound_unacknowledged().map_err(RelayError::Tunnel)?;
                waiting.check((None, tunnel), (outbound, inbound))?;
                stalls.check_sending(tunnel, outbound)?;
                check.set(sleep(CHECK));
            }
            Poll::Pending
        });
        unconstrained(both).await
    }

    /// Passes on what a side has sent before it failed.
    async fn last_words(&mut self, error: &RelayError) -> Result<(), RelayError> {
        let Self { local, tunnel, outbound, inbound, .. } = self;
        let local = open(local.as_ref());
        match error {
            RelayError::Local(_) => outbound.send_rest(local, tunnel).await,
            // ABORT can only follow whole records.
            RelayError::ShuttingDown | RelayError::KeyRevoked => outbound.write_held(tunnel).await,
            RelayError::Aborted(_) => inbound.write_rest(local).await,
            RelayError::Tunnel(_) | RelayError::Truncated if inbound.is_ended() => {
                inbound.write_rest(local).await
            }
            RelayError::Tunnel(_)
            | RelayError::Truncated
            | RelayError::Unconfirmed
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
            // DONE was the last word. It arrives, whether the other end's has come or not.
            _ if outbound.is_done() => tunnel.close(),
            Ok(()) => {}
            Err(ref error) => abort(tunnel, outbound.abort(error)).await,
        }
        result
    }
}

/// The local stream of a relay whose directions have not both ended.
#[expect(clippy::expect_used, reason = "it is dropped only once both directions have ended")]
fn open(local: Option<&LocalStream>) -> &LocalStream {
    local.expect("nothing is done with the local peer once it needs nothing")
}
