//! Outbound: from the local socket to the tunnel, bytes into records.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::yield_now;

use super::budget::Budget;
use super::buffer::record_layout::{Filled, RecordLayout};
use super::buffer::{Buffer, Size};
use super::busy_poll::BusyPoller;
use super::error::RelayError;
use super::traffic::{Progress, Traffic};
use super::write::poll_write;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::protocol::{Extensions, OVERHEAD, Padding, Sealer};

/// The direction from the local socket to the tunnel.
pub(crate) struct Outbound {
    sealer: Sealer,
    layout: RecordLayout,
    size: Size,
    /// Whether END is sealed.
    is_ended: bool,
    /// Whether all of the other stream is passed on, so that DONE goes with END.
    pub(super) is_done_due: bool,
    /// Whether DONE is sealed, the last record.
    is_done: bool,
    traffic: Arc<Traffic>,
    /// Held while its records are not all written; nothing else is sealed before.
    held: Option<Buffer>,
    budget: Budget,
}

impl Outbound {
    pub(crate) fn new(sealer: Sealer, padding: Option<Padding>, traffic: Arc<Traffic>) -> Self {
        let layout = RecordLayout::new(padding);
        let budget = Budget::new();
        let size = Size::Small;
        Self {
            sealer,
            layout,
            size,
            is_ended: false,
            is_done_due: false,
            is_done: false,
            traffic,
            held: None,
            budget,
        }
    }

    /// Plants a layout.
    #[cfg(test)]
    pub(super) const fn plant(&mut self, layout: RecordLayout) {
        self.layout = layout;
    }

    /// Whether the tunnel has no room for the sealed records.
    pub(super) const fn is_blocked(&self) -> bool {
        self.held.is_some()
    }

    /// What this direction, and the other one, count.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How many bytes were read, and how many are still to be written.
    pub(super) fn progress(&self) -> Progress {
        (self.traffic.sent(), self.held.as_ref().map_or(0, Buffer::unwritten))
    }

    /// Queues OPEN, the sender's first record, with what the client has already sent.
    pub(super) fn queue_open(
        &mut self,
        extensions: Extensions,
        local: &LocalStream,
    ) -> Result<(), RelayError> {
        let buffer = Buffer::lend(Size::Small);
        let length = OVERHEAD + extensions.length();
        let read = self.layout.read(buffer, length, |parts| local.try_read(&mut parts[0]));
        // Nothing is sealed before the read has succeeded: else ABORT would come with the
        // nonce of a record that never comes before it.
        let read = read.map_err(RelayError::Local)?;
        let open = self.sealer.seal_open(extensions)?;
        match read {
            Some(filled) if filled.count() > 0 => self.seal_behind(&open, filled)?,
            // The end of the stream is left to the relay, which reads again.
            Some(_) | None => self.hold(&open),
        }
        Ok(())
    }

    /// Queues OPENED, the receiver's first record.
    pub(crate) fn queue_opened(&mut self) -> Result<(), RelayError> {
        let opened = self.sealer.seal_opened()?;
        self.hold(&opened);
        Ok(())
    }

    /// Moves the stream from `local` to `tunnel`, then END. Ready once END is written.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalStream,
        tunnel: &TunnelStream,
        poller: &mut BusyPoller,
    ) -> Poll<Result<(), RelayError>> {
        self.budget.begin();
        loop {
            ready!(self.poll_write(cx, tunnel))?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            let readable = ready!(local.poll_readable(cx)).map_err(RelayError::Local)?;
            ready!(self.budget.poll_next(cx, self.size));
            let buffer = Buffer::lend(self.size);
            let read = self.layout.read(buffer, 0, |parts| readable.read_vectored(parts));
            match read.map_err(RelayError::Local)? {
                None => {}
                Some(filled) if filled.count() == 0 => {
                    self.is_ended = true;
                    let end = self.sealer.seal_end()?;
                    self.hold(&end);
                    if self.is_done_due {
                        self.queue_done(local)?;
                    }
                }
                Some(filled) => {
                    let count = filled.count();
                    self.size = Size::after(count, self.layout.capacity(filled.size()));
                    self.seal(filled)?;
                    poller.moved(count);
                    self.budget.has_read(count);
                }
            }
        }
    }

    /// Queues DONE: all of the other stream is passed on to `local`, as far as the kernel
    /// knows by now. Its event loop may not have told yet that the connection has failed.
    pub(super) fn queue_done(&mut self, local: &LocalStream) -> Result<(), RelayError> {
        if let Some(error) = local.take_error() {
            return Err(RelayError::Local(error));
        }
        let done = self.sealer.seal_done()?;
        self.is_done = true;
        self.hold(&done);
        Ok(())
    }

    /// Whether END is written.
    pub(super) const fn has_sent_end(&self) -> bool {
        self.is_ended && self.held.is_none()
    }

    /// Whether DONE is sealed, so that nothing else can be.
    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Writes the sealed records. Ready once all are written.
    pub(super) fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &TunnelStream,
    ) -> Poll<Result<(), RelayError>> {
        self.budget.begin();
        self.poll_write(cx, tunnel)
    }

    /// Sends what the local peer had sent before its connection failed: a server that
    /// refuses a request says why, and closes before it has read all.
    pub(crate) async fn send_rest(
        &mut self,
        local: &LocalStream,
        tunnel: &TunnelStream,
    ) -> Result<(), RelayError> {
        loop {
            self.write_held(tunnel).await?;
            if self.is_ended {
                return Ok(());
            }
            let buffer = Buffer::lend(Size::Small);
            let read = self.layout.read(buffer, 0, |parts| local.try_read(&mut parts[0]));
            match read.map_err(RelayError::Local)? {
                Some(filled) if filled.count() > 0 => self.seal(filled)?,
                Some(_) | None => return Ok(()),
            }
            yield_now().await;
        }
    }

    /// Writes the sealed records, so that another one can follow.
    pub(crate) async fn write_held(&mut self, tunnel: &TunnelStream) -> Result<(), RelayError> {
        poll_fn(|cx| self.poll_write(cx, tunnel)).await
    }

    /// The ABORT that tells the other end why this end gives up; `None` where there is
    /// nothing to tell, or records before it are not all written.
    pub(crate) fn abort(&mut self, error: &RelayError) -> Option<[u8; OVERHEAD + 1]> {
        let reason = error.abort_reason().filter(|_| self.held.is_none())?;
        self.sealer.seal_abort(reason).ok()
    }

    /// Seals what was read, and holds the records until they are written.
    fn seal(&mut self, filled: Filled) -> Result<(), RelayError> {
        self.seal_behind(&[], filled)
    }

    /// As [`Self::seal`], behind a record that is sealed already.
    fn seal_behind(&mut self, record: &[u8], filled: Filled) -> Result<(), RelayError> {
        let count = filled.count();
        self.held = Some(filled.seal(record, &mut self.sealer)?);
        self.traffic.add_sent(count);
        Ok(())
    }

    /// Holds a whole record, behind those that are held already.
    fn hold(&mut self, record: &[u8]) {
        self.held.get_or_insert_with(|| Buffer::lend(Size::Small)).append(record);
    }

    /// Writes the held records, and gives the buffer back.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &TunnelStream,
    ) -> Poll<Result<(), RelayError>> {
        if let Some(buffer) = &mut self.held {
            ready!(poll_write(cx, buffer, tunnel, &mut self.budget)).map_err(RelayError::Tunnel)?;
            self.held = None;
        }
        Poll::Ready(Ok(()))
    }
}
