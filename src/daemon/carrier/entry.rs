//! What has come for a stream, until the stream takes it.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::bulk::{Bulk, Way};
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::traffic::Traffic;
use crate::protocol::AbortReason;

/// How many written bytes may stand before those that wait.
const COMPACT: usize = 32 * 1024;

/// What has come for a stream.
#[expect(clippy::struct_excessive_bools, reason = "frames that came, in any combination")]
pub(super) struct Entry {
    /// Once bytes may be written to it: at a receiver, when the target accepted.
    local: Option<Arc<LocalStream>>,
    traffic: Arc<Traffic>,
    /// Bytes that wait for the local socket.
    waiting: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// How many of the first ones are no bytes of the stream.
    header: usize,
    /// Whether END has come.
    is_ended: bool,
    is_done: bool,
    aborted: Option<AbortReason>,
    has_moved: bool,
    pub(super) bulk: Bulk,
    /// At a sender: whether a session is being made for it, or was.
    pub(super) join: Join,
    /// At a receiver: the session that has joined.
    pub(super) joined: Option<Box<Tunnel>>,
    /// At a sender: whether MOVED came for a session that had failed (C14).
    pub(super) has_lost_session: bool,
    /// Whether it waits for room in a record.
    pub(super) is_in_crowd: bool,
    waker: Option<Waker>,
}

/// How far a sender has come with a session for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    No,
    /// The session is being made, or has joined.
    Begun,
    /// The session was refused, or has failed. It is not tried again (C10).
    Lost,
}

/// What came last of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It goes on.
    More,
    /// END.
    End,
    /// MOVED: the rest comes in its session.
    Moved,
}

impl Entry {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            local: None,
            traffic,
            waiting: Vec::new(),
            written: 0,
            header: 0,
            is_ended: false,
            is_done: false,
            aborted: None,
            has_moved: false,
            bulk: Bulk::default(),
            join: Join::No,
            joined: None,
            has_lost_session: false,
            is_in_crowd: false,
            waker: None,
        }
    }

    /// From now on, bytes go to this socket, behind a header that is no part of the stream.
    pub(super) fn connect(&mut self, local: Arc<LocalStream>, header: Option<Vec<u8>>) {
        if let Some(mut header) = header {
            self.header = header.len();
            header.append(&mut self.waiting);
            self.waiting = header;
        }
        self.local = Some(local);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Has the stream's task woken at the next event.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Takes bytes of the stream. Returns how many of all that came the local socket has taken
    /// at once: a small request never waits here.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> u32 {
        self.traffic.add_received(bytes.len());
        if self.bulk.moved(Way::In, bytes.len()) && self.join == Join::No {
            self.wake();
        }
        let mut taken = 0;
        if self.waiting.is_empty()
            && let Some(local) = &self.local
        {
            // An error is met again, and told, by the stream's task.
            taken = local.try_write(bytes).unwrap_or(0);
        }
        if taken < bytes.len() {
            // What is written is dropped in large steps, so that each byte is moved once.
            if self.written >= COMPACT {
                self.waiting.drain(..self.written);
                self.written = 0;
            }
            self.waiting.extend_from_slice(&bytes[taken..]);
            self.wake();
        }
        length(taken)
    }

    pub(super) fn end(&mut self) {
        self.is_ended = true;
        self.wake();
    }

    pub(super) fn done(&mut self) {
        self.is_done = true;
        self.wake();
    }

    pub(super) fn abort(&mut self, reason: AbortReason) {
        self.aborted.get_or_insert(reason);
        self.wake();
    }

    pub(super) fn moved(&mut self) {
        self.has_moved = true;
        self.wake();
    }

    pub(super) const fn has_moved(&self) -> bool {
        self.has_moved
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.is_ended
    }

    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    pub(super) const fn aborted(&self) -> Option<AbortReason> {
        self.aborted
    }

    /// How much memory it holds.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.waiting.capacity()
    }

    /// How many bytes wait for the local socket.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Writes what waits; `taken` is told how many bytes of the stream the socket has taken.
    /// Ready once nothing waits, with what came last.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut taken: impl FnMut(u32),
    ) -> Poll<Result<Came, RelayError>> {
        if let Some(local) = &self.local {
            while self.written < self.waiting.len() {
                let rest = IoSlice::new(&self.waiting[self.written..]);
                let count = ready!(local.poll_write(cx, &[rest])).map_err(RelayError::Local)?;
                self.written += count;
                let of_header = count.min(self.header);
                self.header -= of_header;
                taken(length(count - of_header));
            }
            // The memory is given back: an idle stream holds no buffer.
            self.waiting = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(match (self.is_ended, self.has_moved) {
            (true, _) => Came::End,
            (false, true) => Came::Moved,
            (false, false) => Came::More,
        }))
    }
}

/// A number of bytes that there is credit for.
fn length(bytes: usize) -> u32 {
    match u32::try_from(bytes) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("no more came than there was credit for"),
    }
}
