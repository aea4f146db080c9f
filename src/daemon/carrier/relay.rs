//! The relay of a stream: moves bytes between its local socket and the carrier.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::{unconstrained, yield_now};
use tokio::time::sleep;

use super::bulk::Way;
use super::entry::Came;
use super::link::State;
use super::moves::{Joining, Moves};
use super::stream::{CarriedStream, entry};
use super::waiting::note_waiting;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::net::stream::CHECK;
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::inbound::LocalEnd;
use crate::daemon::relay::local_peer::{LocalPeer, is_broken_pipe};
use crate::daemon::relay::stall::{STALLED, Stall, WaitingBytes};
use crate::daemon::relay::traffic::Traffic;
use crate::protocol::AbortReason;

/// How long the last bytes of a side may take to be passed on, once it has failed.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// A stream and its local socket.
pub(crate) struct CarriedRelay {
    /// `None` once nothing more is to be done with it.
    pub(super) local: Option<Arc<LocalStream>>,
    pub(super) stream: CarriedStream,
    pub(super) peer: LocalPeer,
    /// Whether END is said.
    is_ended: bool,
    /// Whether bytes of the local socket wait for credit or room.
    is_blocked: bool,
    /// At a sender: the session that is to join, and the one that has.
    joining: Option<Joining>,
    joined: Option<Box<Tunnel>>,
}

/// How a relay over the carrier ended.
enum Relayed {
    /// END went both ways, and DONE is said.
    Ended,
    /// The rest goes in this session; whether END has gone to the local socket.
    Moved(Box<Tunnel>, LocalEnd),
}

impl CarriedRelay {
    /// A relay of a stream that a client has opened.
    pub(crate) fn of_client(local: LocalStream, stream: CarriedStream) -> Self {
        Self::new(local, stream, None)
    }

    /// A relay of a stream whose target accepted: says OPENED. A header goes before the stream
    /// and is no part of it.
    pub(crate) fn of_target(
        local: LocalStream,
        stream: CarriedStream,
        header: Option<Vec<u8>>,
    ) -> Self {
        let mut state = stream.link.lock();
        if state.carrier.lives(stream.id) {
            state.carrier.opened(stream.id);
            state.wake_flusher();
        }
        drop(state);
        Self::new(local, stream, header)
    }

    fn new(local: LocalStream, stream: CarriedStream, header: Option<Vec<u8>>) -> Self {
        let local = Arc::new(local);
        entry(&mut stream.link.lock(), stream.id).connect(Arc::clone(&local), header);
        let peer = LocalPeer::default();
        Self {
            local: Some(local),
            stream,
            peer,
            is_ended: false,
            is_blocked: false,
            joining: None,
            joined: None,
        }
    }

    /// What it counts.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.stream.traffic()
    }

    /// Relays until both directions have ended cleanly and the other end has passed on all
    /// that it was sent, or until the stream has failed. Then closes the local socket; where
    /// the stream failed at this end, tells the other end why.
    pub(crate) async fn run(mut self, moving: &Moves<'_>) -> Result<(), RelayError> {
        let relayed = match self.relay_both(moving).await {
            Ok(Relayed::Ended) => self.confirm().await,
            Ok(Relayed::Moved(tunnel, local_end)) => {
                return Box::pin(self.run_moved(*tunnel, local_end, moving)).await;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &relayed {
            // Whether the last bytes arrive or not, the stream has failed.
            let _arrived = Deadline::after(LAST_WORDS).bound(self.last_words(error)).await;
            self.stream.abort(error.abort_reason().unwrap_or(AbortReason::LocalPeerReset));
        }
        // What was not ended before is reset.
        relayed
    }

    /// Relays until END has gone both ways, all is passed on to the local peer, and DONE is
    /// said.
    async fn relay_both(&mut self, moving: &Moves<'_>) -> Result<Relayed, RelayError> {
        let local = open(self.local.as_ref());
        let mut failing = pin!(local.failed());
        let mut check = pin!(sleep(CHECK));
        let mut waiting = WaitingBytes::default();
        let mut stall = Stall::default();
        let (mut sent, mut received) = (false, false);
        let both = poll_fn(|cx| {
            received = received || self.poll_inbound(cx, &local)?.is_ready();
            sent = sent || self.poll_outbound(cx, &local)?.is_ready();
            if let Some(tunnel) = self.poll_move(cx, moving)? {
                let local_end = if received { LocalEnd::Ended } else { LocalEnd::Open };
                return Poll::Ready(Ok(Relayed::Moved(tunnel, local_end)));
            }
            // While the local socket is read, the read returns the error.
            if (sent || self.is_blocked)
                && let Poll::Ready(error) = self.peer.poll_failed(cx, failing.as_mut())
                && (sent || !is_broken_pipe(&error))
            {
                return Poll::Ready(Err(RelayError::Local(error)));
            }
            // A stream that is being moved says it in the session.
            if sent && received && self.joining.is_none() && self.joined.is_none() {
                return Poll::Ready(self.say_done(&local).map(|()| Relayed::Ended));
            }
            while check.as_mut().poll(cx).is_ready() {
                local.bound_unacknowledged().map_err(RelayError::Local)?;
                note_waiting(&mut waiting, Some(&local), &self.stream)?;
                let progress = self.stream.progress();
                self.peer.check((!received).then_some(&local), progress)?;
                // A peer that has had all and has said all waits for nothing.
                if received && local.is_ended_by_peer() && stall.checks(progress) >= STALLED {
                    return Poll::Ready(Err(RelayError::Unconfirmed));
                }
                check.set(sleep(CHECK));
            }
            Poll::Pending
        });
        // One direction could use the runtime's budget up, and the other would not be polled.
        unconstrained(both).await
    }

    /// Waits for the other end's DONE: only then it has passed on all that this end has sent.
    /// The local peer needs nothing any more.
    async fn confirm(&mut self) -> Result<(), RelayError> {
        self.local = None;
        let stream = &self.stream;
        let mut check = pin!(sleep(CHECK));
        let (mut waiting, mut stall) = (WaitingBytes::default(), Stall::default());
        let confirmed = poll_fn(|cx| {
            let mut state = stream.link.lock();
            let end = state.end;
            let entry = entry(&mut state, stream.id);
            entry.wait(cx);
            if entry.is_done() {
                return Poll::Ready(Ok(()));
            }
            if let Some(reason) = entry.aborted() {
                return Poll::Ready(Err(RelayError::Aborted(reason)));
            }
            if let Some(end) = end {
                return Poll::Ready(Err(end.to_stream()));
            }
            drop(state);
            while check.as_mut().poll(cx).is_ready() {
                note_waiting(&mut waiting, None, stream)?;
                if stall.checks(stream.progress()) >= STALLED {
                    return Poll::Ready(Err(RelayError::Unconfirmed));
                }
                check.set(sleep(CHECK));
            }
            Poll::Pending
        });
        unconstrained(confirmed).await?;
        self.stream.is_over = true;
        Ok(())
    }

    /// Writes what came to the local socket. Ready once END has come and all is written.
    fn poll_inbound(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalStream,
    ) -> Poll<Result<(), RelayError>> {
        let mut state = self.stream.link.lock();
        let State { carrier, entries, end, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&self.stream.id) else { return Poll::Pending };
        entry.wait(cx);
        // What came before the end of a carrier that has failed is still passed on, if END is.
        if let Some(reason) = entry.aborted() {
            return Poll::Ready(Err(RelayError::Aborted(reason)));
        }
        if entry.has_lost_session {
            return Poll::Ready(Err(RelayError::Tunnel(io::ErrorKind::ConnectionReset.into())));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(end.to_stream()));
        }
        let written = entry.poll_write(cx, |bytes| carrier.taken(self.stream.id, bytes));
        if carrier.has_due() {
            state.wake_flusher();
        }
        match ready!(written)? {
            Came::More | Came::Moved => Poll::Pending,
            Came::End => Poll::Ready(local.shutdown_write().map_err(RelayError::Local)),
        }
    }

    /// Reads the local socket into frames. Ready once END is said.
    fn poll_outbound(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalStream,
    ) -> Poll<Result<(), RelayError>> {
        self.is_blocked = false;
        loop {
            let readable = ready!(local.poll_readable(cx)).map_err(RelayError::Local)?;
            let mut readable = Some(readable);
            let mut has_read = None;
            let mut state = self.stream.link.lock();
            let sent = state.poll_send(cx, self.stream.id, |room| {
                // Where the record was full, this is called for the next one only.
                let Some(readable) = readable.take() else { return Ok(0) };
                has_read = readable.read(room).map_err(RelayError::Local)?;
                Ok(has_read.unwrap_or(0))
            });
            match sent {
                Poll::Pending => {
                    self.is_blocked = true;
                    return Poll::Pending;
                }
                Poll::Ready(sent) => {
                    let count = sent?;
                    self.stream.traffic.add_sent(count);
                    if count > 0 {
                        entry(&mut state, self.stream.id).bulk.moved(Way::Out, count);
                    }
                }
            }
            match has_read {
                Some(0) => {
                    self.is_ended = true;
                    if state.carrier.lives(self.stream.id) {
                        state.carrier.end(self.stream.id);
                        state.wake_flusher();
                    }
                    return Poll::Ready(Ok(()));
                }
                // One frame a turn (D2).
                Some(_) => {
                    drop(state);
                    if let Poll::Ready(readable) = local.poll_readable(cx) {
                        let _more = readable.map_err(RelayError::Local)?;
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                None => {}
            }
        }
    }

    /// Begins to move a stream that is bulk, at a sender. Returns the session in which it goes
    /// on, once both ends agree.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        moving: &Moves<'_>,
    ) -> Result<Option<Box<Tunnel>>, RelayError> {
        let mut state = self.stream.link.lock();
        let id = self.stream.id;
        let Some(join) = moving.join else { return Ok(entry(&mut state, id).joined.take()) };
        if self.joining.is_none() && state.begin_join(id) {
            self.joining = Some(join());
        }
        let has_moved = entry(&mut state, id).has_moved();
        drop(state);
        if let Some(joining) = &mut self.joining
            && let Poll::Ready(made) = joining.as_mut().poll(cx)
        {
            self.joining = None;
            match made {
                Ok(tunnel) => self.joined = Some(Box::new(tunnel)),
                Err(error) if has_moved => return Err(error),
                Err(_refused) => self.stream.link.lock().lose_join(id),
            }
        }
        Ok(if has_moved { self.joined.take() } else { None })
    }

    /// Says DONE: all that came is passed on, as far as the kernel knows by now.
    fn say_done(&self, local: &LocalStream) -> Result<(), RelayError> {
        if let Some(error) = local.take_error() {
            return Err(RelayError::Local(error));
        }
        let mut state = self.stream.link.lock();
        if state.carrier.lives(self.stream.id) {
            state.carrier.done(self.stream.id);
            state.wake_flusher();
        }
        Ok(())
    }

    /// Passes on what a side has sent before it failed.
    async fn last_words(&mut self, error: &RelayError) -> Result<(), RelayError> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        match error {
            RelayError::Local(_) if !self.is_ended => self.send_rest(&local).await,
            RelayError::Aborted(_) => self.write_rest(&local).await,
            // The end that has come is whole, whatever cut the tunnel behind it.
            RelayError::Tunnel(_) | RelayError::Truncated => {
                let has_ended = entry(&mut self.stream.link.lock(), self.stream.id).has_ended();
                if has_ended { self.write_rest(&local).await } else { Ok(()) }
            }
            RelayError::Local(_)
            | RelayError::Unconfirmed
            | RelayError::Record(_)
            | RelayError::Seal(_)
            | RelayError::ShuttingDown
            | RelayError::KeyRevoked => Ok(()),
        }
    }

    /// Sends what the local peer had sent before its connection failed.
    async fn send_rest(&mut self, local: &LocalStream) -> Result<(), RelayError> {
        loop {
            let mut is_over = false;
            poll_fn(|cx| {
                let mut state = self.stream.link.lock();
                if state.end.is_some() || !state.carrier.lives(self.stream.id) {
                    is_over = true;
                    return Poll::Ready(Ok(0));
                }
                state.poll_send(cx, self.stream.id, |room| {
                    let read = local.try_read(room).map_err(RelayError::Local)?;
                    is_over = !matches!(read, Some(1..));
                    Ok(read.unwrap_or(0))
                })
            })
            .await
            .map(|count| self.stream.traffic.add_sent(count))?;
            if is_over {
                return Ok(());
            }
            yield_now().await;
        }
    }

    /// Writes the rest of what came, and its end if that came.
    pub(super) async fn write_rest(&mut self, local: &LocalStream) -> Result<(), RelayError> {
        let came = poll_fn(|cx| {
            let mut state = self.stream.link.lock();
            entry(&mut state, self.stream.id).poll_write(cx, |_bytes| {})
        })
        .await?;
        match came {
            Came::End => local.shutdown_write().map_err(RelayError::Local),
            Came::More | Came::Moved => Ok(()),
        }
    }
}

/// The local socket of a stream whose directions have not both ended.
#[expect(clippy::expect_used, reason = "it is dropped only once both directions have ended")]
pub(super) fn open(local: Option<&Arc<LocalStream>>) -> Arc<LocalStream> {
    Arc::clone(local.expect("nothing is done with the local peer once it needs nothing"))
}
