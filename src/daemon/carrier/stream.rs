//! A stream of a carrier: a task that moves bytes between its local socket and the carrier.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::{unconstrained, yield_now};
use tokio::time::sleep;

use super::entry::{Came, Entry};
use super::link::{Link, State};
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::net::stream::CHECK;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::local_peer::{LocalPeer, is_broken_pipe};
use crate::daemon::relay::stall::{STALLED, Stall, stuck_checks};
use crate::daemon::relay::traffic::Traffic;
use crate::protocol::carrier::{FIRST_CREDIT, NoStream, StreamId};
use crate::protocol::{AbortReason, Extensions};

/// How long the last bytes of a side may take to be passed on, once it has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A stream of a carrier. Guard: aborts it when dropped before its end.
pub(crate) struct CarriedStream {
    link: Arc<Link>,
    id: StreamId,
    traffic: Arc<Traffic>,
    /// Whether this side has nothing more to say of it.
    is_over: bool,
}

impl CarriedStream {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the carrier has no room, or is over.
    pub(crate) fn open(link: &Arc<Link>, extensions: Extensions) -> Result<Self, NoStream> {
        let traffic = Arc::<Traffic>::default();
        let id = link.open(extensions, Entry::new(Arc::clone(&traffic)))?;
        Ok(Self { link: Arc::clone(link), id, traffic, is_over: false })
    }

    /// A stream that the other end has opened.
    pub(super) fn opened_by_peer(link: &Arc<Link>, state: &mut State, id: StreamId) -> Self {
        let traffic = Arc::<Traffic>::default();
        link.opened_by_peer(state, id, Entry::new(Arc::clone(&traffic)));
        Self { link: Arc::clone(link), id, traffic, is_over: false }
    }

    /// Its number on the carrier.
    pub(crate) const fn id(&self) -> StreamId {
        self.id
    }

    /// What it counts.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Waits until the other end has aborted it, or the carrier has ended.
    pub(crate) async fn lost(&self) -> RelayError {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            let entry = entry(&mut state, self.id);
            entry.wait(cx);
            let lost = match entry.aborted() {
                Some(reason) => Some(RelayError::Aborted(reason)),
                None => state.end.map(|end| end.to_stream()),
            };
            lost.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Says why this side refuses it.
    pub(crate) fn refuse(mut self, reason: Option<AbortReason>) {
        self.abort(reason.unwrap_or(AbortReason::LocalPeerReset));
    }

    fn abort(&mut self, reason: AbortReason) {
        if !mem::replace(&mut self.is_over, true) {
            self.link.lock().abort(self.id, reason);
        }
    }
}

impl Drop for CarriedStream {
    fn drop(&mut self) {
        // A panic has ended the task where nothing was said.
        self.abort(AbortReason::LocalPeerReset);
        let mut state = self.link.lock();
        state.entries.remove(&self.id);
        self.link.count_streams(&state);
        if state.carrier.streams() == 0 {
            state.wake_owner();
        }
    }
}

/// What has come for a stream whose task lives.
#[expect(clippy::expect_used, reason = "an entry lasts as long as its stream")]
fn entry(state: &mut State, id: StreamId) -> &mut Entry {
    state.entries.get_mut(&id).expect("an entry is removed by its stream alone")
}

/// A stream and its local socket.
pub(crate) struct CarriedRelay {
    /// `None` once nothing more is to be done with it.
    local: Option<Arc<LocalStream>>,
    stream: CarriedStream,
    peer: LocalPeer,
    /// Whether END is said.
    is_ended: bool,
    /// Whether bytes of the local socket wait for credit or room.
    is_blocked: bool,
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
        Self { local: Some(local), stream, peer, is_ended: false, is_blocked: false }
    }

    /// What it counts.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.stream.traffic()
    }

    /// Relays until both directions have ended cleanly and the other end has passed on all
    /// that it was sent, or until the stream has failed.
    pub(crate) async fn run(&mut self) -> Result<(), RelayError> {
        let relayed = match self.relay_both().await {
            Ok(()) => self.confirm().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &relayed {
            // Whether the last bytes arrive or not, the stream has failed.
            let _arrived = Deadline::after(LAST_WORDS).bound(self.last_words(error)).await;
        }
        relayed
    }

    /// Relays until END has gone both ways, all is passed on to the local peer, and DONE is
    /// said.
    async fn relay_both(&mut self) -> Result<(), RelayError> {
        let local = open(self.local.as_ref());
        let mut failing = pin!(local.failed());
        let mut check = pin!(sleep(CHECK));
        let mut waiting = WaitingBytes::default();
        let mut stall = Stall::default();
        let (mut sent, mut received) = (false, false);
        let both = poll_fn(|cx| {
            received = received || self.poll_inbound(cx, &local)?.is_ready();
            sent = sent || self.poll_outbound(cx, &local)?.is_ready();
            // While the local socket is read, the read returns the error.
            if (sent || self.is_blocked)
                && let Poll::Ready(error) = self.peer.poll_failed(cx, failing.as_mut())
                && (sent || !is_broken_pipe(&error))
            {
                return Poll::Ready(Err(RelayError::Local(error)));
            }
            if sent && received {
                return Poll::Ready(self.say_done(&local));
            }
            while check.as_mut().poll(cx).is_ready() {
                local.bound_unacknowledged().map_err(RelayError::Local)?;
                waiting.check(Some(&local), &self.stream)?;
                let progress = self.progress();
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
        let mut check = pin!(sleep(CHECK));
        let (mut waiting, mut stall) = (WaitingBytes::default(), Stall::default());
        let confirmed = poll_fn(|cx| {
            let mut state = self.stream.link.lock();
            let end = state.end;
            let entry = entry(&mut state, self.stream.id);
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
                waiting.check(None, &self.stream)?;
                if stall.checks(self.progress()) >= STALLED {
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
                }
            }
            match has_read {
                Some(0) => {
                    self.is_ended = true;
                    state.carrier.end(self.stream.id);
                    state.wake_flusher();
                    return Poll::Ready(Ok(()));
                }
                // One frame a turn (D2).
                Some(_) => {
                    drop(state);
                    if let Poll::Ready(readable) = local.poll_readable(cx) {
                        drop(readable.map_err(RelayError::Local)?);
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                None => {}
            }
        }
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

    /// How many bytes were read, and how many there is no credit for.
    fn progress(&self) -> (u64, usize) {
        (self.stream.traffic.sent(), spent(&self.stream))
    }

    /// Passes on what a side has sent before it failed.
    async fn last_words(&mut self, error: &RelayError) -> Result<(), RelayError> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        match error {
            RelayError::Local(_) if !self.is_ended => self.send_rest(&local).await,
            RelayError::Aborted(_) => self.write_rest(&local).await,
            _ if entry(&mut self.stream.link.lock(), self.stream.id).has_ended() => {
                self.write_rest(&local).await
            }
            _ => Ok(()),
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
    async fn write_rest(&mut self, local: &LocalStream) -> Result<(), RelayError> {
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

    /// Closes the local socket. Where the stream failed at this end, tells the other end why.
    pub(crate) fn close(self, result: Result<(), RelayError>) -> Result<(), RelayError> {
        let Self { local, mut stream, .. } = self;
        // Its stream was ended before; otherwise the drop resets it.
        if let Err(error) = &result {
            stream.abort(error.abort_reason().unwrap_or(AbortReason::LocalPeerReset));
        }
        drop(stream);
        drop(local);
        result
    }
}

/// The local socket of a stream whose directions have not both ended.
#[expect(clippy::expect_used, reason = "it is dropped only once both directions have ended")]
fn open(local: Option<&Arc<LocalStream>>) -> Arc<LocalStream> {
    Arc::clone(local.expect("nothing is done with the local peer once it needs nothing"))
}

/// How many bytes were sent that the other end's local socket has not taken, as far as is
/// known here.
fn spent(stream: &CarriedStream) -> usize {
    let credit = stream.link.lock().carrier.sendable(stream.id);
    usize::try_from(FIRST_CREDIT.saturating_sub(credit)).unwrap_or(usize::MAX)
}

/// What waits on either side, as the status tells it.
#[derive(Default)]
struct WaitingBytes {
    for_tunnel: Stall,
    for_local: Stall,
}

impl WaitingBytes {
    /// Notes what waits now. To be called in every check; `local` is `None` once the local
    /// peer needs nothing.
    fn check(
        &mut self,
        local: Option<&LocalStream>,
        stream: &CarriedStream,
    ) -> Result<(), RelayError> {
        let mut state = stream.link.lock();
        let has_credit = state.carrier.sendable(stream.id) > 0;
        let at_entry = entry(&mut state, stream.id).waiting();
        drop(state);
        let for_tunnel = if has_credit { 0 } else { spent(stream) };
        let at_local = local.map_or(Ok(0), |local| local.unacknowledged());
        let for_local = at_entry + at_local.map_err(RelayError::Local)?;
        let traffic = &stream.traffic;
        let stuck_at_tunnel = stuck_checks(&mut self.for_tunnel, (traffic.sent(), for_tunnel));
        let stuck_at_local = stuck_checks(&mut self.for_local, (traffic.received(), for_local));
        traffic.set_waiting(for_tunnel, for_local, stuck_at_tunnel.max(stuck_at_local));
        Ok(())
    }
}
