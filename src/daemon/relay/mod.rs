//! Moves bytes both ways at once: out of the local socket into records, and
//! out of records into the local socket. Each direction ends on its own.
//!
//! What was measured, and built on here: several records go in one read and
//! one write of up to 256 KiB, sealed and opened in place; buffers are held
//! only while bytes move; a flow gets a large buffer once it fills small ones.
//! Both directions are polled by hand, since there are thousands of them that
//! wait: what they keep meanwhile is what stands in their structs, and what
//! wakes them is told to the socket's own two places, not to a list.
//!
//! # What did not pay
//!
//! Small requests are 50 connections of redis-benchmark; a bare relay is one in
//! Rust that has nothing but epoll, recv and send, and that takes 0.8 of the CPU
//! of haproxy's plaintext relay, as the kernel's TCP alone does. This one takes
//! 0.9 of it with one thread at each end, and as much as it with two.
//!
//! - `io_uring` in the bare relay, small requests: with multishot receives 0 to
//!   3 % less CPU; without `DEFER_TASKRUN` 38 % more; with a thread of the kernel's
//!   that submits, 2.4 times as much. Many containers refuse it.
//! - All ready connections read before all are written (bare relay): 0 to 3 %
//!   less. Only together with a ring for each of both, and a second look before
//!   sleeping, 12 % less: since the runtime then is one's own, it was not built.
//! - One thread where there are two cores: see the default of `--threads`.
//! - `SO_REUSEPORT`, a listener for each thread: as cheap as one that gives to the
//!   least loaded, but both of two connections on one thread in half of all cases.
//! - `sched_yield` before a thread sleeps, small requests: 0 to 3 % more of them,
//!   no less CPU.
//! - `SCHED_BATCH`, busy polling of epoll, no quick acknowledgements, epoll by
//!   level, reading until there is nothing: no difference above the noise of 5 %.
//! - Timers and the shutdown not polled at each message: no difference.
//! - Buffers above 256 KiB: no difference. `splice` cannot be had for bytes that
//!   must be seen: it takes 0.26 CPU s/GB, copying them 0.66, this 0.76.

mod awake;
mod gone;
mod inbound;
mod outbound;
mod slots;
#[cfg(test)]
mod tests;
mod turn;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::{unconstrained, yield_now};
use tokio::time::sleep;

use super::buffer::Buffer;
use super::close::{Close, abort};
use super::deadline::Deadline;
use super::shutdown::Shutdown;
use super::stream::{CHECK, Stream};
use crate::config::{Role, TunnelConfig};
use crate::protocol::Session;

use self::awake::Awake;
use self::gone::{LocalPeer, is_broken_pipe};
use self::inbound::Inbound;
use self::outbound::Outbound;
use self::turn::Turn;

/// How long what came last may take to be passed on, once a side has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many parts go into one write.
const PARTS: usize = 32;

/// An open connection: two sockets, and a session on one of them.
pub(super) struct Relay {
    local: Stream,
    tunnel: Stream,
    outbound: Outbound,
    inbound: Inbound,
    awake: Awake,
    /// What is known of the end of the local peer.
    peer: LocalPeer,
}

impl Relay {
    pub(super) fn new(
        local: Stream,
        tunnel: Stream,
        session: Session,
        config: &TunnelConfig,
    ) -> Self {
        Self {
            local,
            tunnel,
            outbound: Outbound::new(session.sealer, config.padding),
            inbound: Inbound::new(session.opener),
            awake: Awake::new(config.waiting),
            peer: LocalPeer::default(),
        }
    }

    /// Bytes of the stream out of the local socket, and into it.
    pub(super) const fn bytes(&self) -> (u64, u64) {
        (self.outbound.bytes(), self.inbound.bytes())
    }

    /// Says OPEN or OPENED, then relays until both directions have ended
    /// cleanly, or either has failed.
    pub(super) async fn run(&mut self, role: Role, shutdown: &Shutdown) -> Result<(), Close> {
        match role {
            Role::Encrypt => self.outbound.open(&self.local)?,
            Role::Decrypt => self.outbound.opened()?,
        }
        match self.relay_both(shutdown).await {
            Ok(()) => Ok(()),
            Err(close) => {
                // Whether all of it arrives or not, the connection has failed.
                let _arrived = Deadline::after(LAST_WORDS).bound(self.last_words(&close)).await;
                Err(close)
            }
        }
    }

    async fn relay_both(&mut self, shutdown: &Shutdown) -> Result<(), Close> {
        let Self { local, tunnel, outbound, inbound, awake, peer } = self;
        let (local, tunnel) = (&*local, &*tunnel);
        let mut failing = pin!(local.failed());
        let mut ending = pin!(shutdown.begun());
        let mut check = pin!(sleep(CHECK));
        let (mut sent, mut received, mut was_ended) = (false, false, false);
        let both = poll_fn(|context| {
            received = received || inbound.poll(context, (tunnel, local), awake)?.is_ready();
            sent = sent || outbound.poll(context, (local, tunnel), awake)?.is_ready();
            if sent && received {
                return Poll::Ready(Ok(()));
            }
            // While it is read, the read tells.
            if (sent || outbound.is_blocked())
                && let Poll::Ready(error) = peer.poll_failed(context, failing.as_mut())
                && (sent || !is_broken_pipe(&error))
            {
                return Poll::Ready(Err(Close::Local(error)));
            }
            if received && let Poll::Ready(close) = inbound.poll_after_end(context, tunnel) {
                return Poll::Ready(close);
            }
            if ending.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Close::ShuttingDown));
            }
            while check.as_mut().poll(context).is_ready() {
                local.check().map_err(Close::Local)?;
                tunnel.check().map_err(Close::Tunnel)?;
                // The other end is gone, and a local peer that does not read
                // keeps us from reading that.
                let is_ended = !sent && tunnel.is_ended_by_peer();
                if is_ended && was_ended {
                    return Poll::Ready(Err(Close::Truncated));
                }
                was_ended = is_ended;
                peer.check((local, received), outbound.progress())?;
                check.set(sleep(CHECK));
            }
            awake.keep(context);
            Poll::Pending
        });
        // Turns are bounded in bytes. Were they by the runtime, one direction could
        // take all there is, and the other and the shutdown never come to theirs.
        unconstrained(both).await
    }

    /// Passes on what a side has said before it failed.
    async fn last_words(&mut self, close: &Close) -> Result<(), Close> {
        if matches!(close, Close::Local(_)) {
            self.outbound.send_rest(&self.local, &self.tunnel).await
        } else if matches!(close, Close::ShuttingDown) {
            // ABORT can only follow whole records.
            self.outbound.write_held(&self.tunnel).await
        } else if matches!(close, Close::Aborted(_))
            || self.inbound.is_ended() && matches!(close, Close::Tunnel(_) | Close::Truncated)
        {
            self.inbound.write_rest(&self.local).await
        } else {
            Ok(())
        }
    }

    /// Ends both sockets; tells the other end why, where it failed here.
    pub(super) async fn close(self, result: Result<(), Close>) -> Close {
        let Self { local, tunnel, mut outbound, .. } = self;
        // It has had its end already, or has none.
        drop(local);
        match result {
            Ok(()) => {
                tunnel.close();
                Close::Finished
            }
            Err(close) => {
                abort(tunnel, outbound.abort(&close)).await;
                close
            }
        }
    }
}

/// Writes all that is noted in a buffer, in turns.
fn poll_write(
    context: &mut Context<'_>,
    buffer: &mut Buffer,
    to: &Stream,
    turn: &mut Turn,
) -> Poll<io::Result<()>> {
    while buffer.has_unwritten() {
        ready!(to.poll_writable(context))?;
        ready!(turn.poll(context, buffer.size()));
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = buffer.unwritten_slices(&mut parts);
        let written = ready!(to.poll_write(context, &parts[..count]))?;
        buffer.written(written);
    }
    Poll::Ready(Ok(()))
}

/// Has the runtime poll the task again, once it has looked at all sockets.
fn wake_after_the_others(context: &mut Context<'_>) {
    let later = pin!(yield_now()).poll(context);
    debug_assert!(later.is_pending());
}
