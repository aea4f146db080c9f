//! Inbound: from the tunnel to the local socket, records into bytes.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::budget::{Budget, RECORDS_OPENED};
use super::buffer::{Buffer, SMALL, Size};
use super::busy_poll::BusyPoller;
use super::error::RelayError;
use super::traffic::{Progress, Traffic};
use super::write::poll_write;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::protocol::{AbortReason, OpenError, Opener, Record};

/// Whether the stream to the local socket has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalEnd {
    Open,
    /// END has come on a carrier.
    Ended,
}

/// The direction from the tunnel to the local socket.
pub(crate) struct Inbound {
    opener: Opener,
    size: Size,
    /// Whether END has come.
    is_ended: bool,
    local_end: LocalEnd,
    /// Whether a header is held that waits for what of the stream has already come.
    is_header_new: bool,
    traffic: Arc<Traffic>,
    /// Held while received bytes are not all opened and written. What remains is the
    /// beginning of a record.
    held: Option<Buffer>,
    /// Where in the buffer the unopened bytes begin. They go as far as the buffer is
    /// filled.
    unopened: usize,
    /// Whether whole records may be unopened: more came than the budget lets open.
    is_more_left: bool,
    budget: Budget,
}

/// How a batch of records ended: the records of one read, as many as the budget lets open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// The stream goes on.
    More,
    /// END was the last record.
    End,
    /// DONE was the last record, and nothing is behind it.
    Done,
    /// ABORT was the last record.
    Abort(AbortReason),
}

impl Inbound {
    pub(super) const fn new(opener: Opener, traffic: Arc<Traffic>) -> Self {
        Self {
            opener,
            size: Size::Small,
            is_ended: false,
            local_end: LocalEnd::Open,
            is_header_new: false,
            traffic,
            held: None,
            unopened: 0,
            is_more_left: false,
            budget: Budget::new(),
        }
    }

    /// The rest of a stream that began on a carrier, where END may have come already.
    pub(crate) const fn behind(opener: Opener, traffic: Arc<Traffic>, local_end: LocalEnd) -> Self {
        let mut inbound = Self::new(opener, traffic);
        inbound.local_end = local_end;
        inbound
    }

    /// Plants a mistake: bytes to open beyond those that came.
    #[cfg(test)]
    pub(super) fn plant_unopened(&mut self) {
        let buffer = Buffer::lend(Size::Small);
        self.unopened = buffer.capacity() + 1;
        self.is_more_left = true;
        self.held = Some(buffer);
    }

    #[cfg(test)]
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How much memory it holds while it waits.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Buffer::capacity)
    }

    /// Queues bytes that go before the stream and do not count as a part of it.
    pub(super) fn queue_header(&mut self, header: &[u8]) {
        // With room for a whole record behind the header.
        let mut buffer = Buffer::lend(Size::Record);
        buffer.append(header);
        self.unopened = buffer.filled();
        self.held = Some(buffer);
        self.is_header_new = true;
    }

    /// Moves the stream from `tunnel` to `local` until END, then ends the stream to
    /// `local`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &TunnelStream,
        local: &LocalStream,
        poller: &mut BusyPoller,
    ) -> Poll<Result<(), RelayError>> {
        self.budget.begin();
        if mem::take(&mut self.is_header_new) {
            self.read_behind_header(tunnel)?;
        }
        loop {
            ready!(self.poll_write(cx, local))?;
            if self.is_ended {
                return Poll::Ready(self.end(local));
            }
            let readable = if self.is_more_left {
                None
            } else {
                Some(ready!(tunnel.poll_readable(cx)).map_err(RelayError::Tunnel)?)
            };
            ready!(self.budget.poll_next(cx, self.size));
            let mut buffer = self.buffer();
            if let Some(readable) = readable {
                let wanted = buffer.capacity() - buffer.filled();
                match buffer.fill(|room| readable.read(room)).map_err(RelayError::Tunnel)? {
                    Some(0) => return Poll::Ready(Err(RelayError::Truncated)),
                    Some(count) => {
                        self.size = Size::after(count, wanted);
                        poller.moved(count);
                        self.budget.has_read(count);
                    }
                    None => {}
                }
            }
            self.open_held(buffer)?;
        }
    }

    /// Reads what of the stream has come, so that it goes in one write with the header. The
    /// end of the tunnel is left to the next read.
    fn read_behind_header(&mut self, tunnel: &TunnelStream) -> Result<(), RelayError> {
        let Some(mut buffer) = self.held.take() else { return Ok(()) };
        buffer.fill(|room| tunnel.try_read(room)).map_err(RelayError::Tunnel)?;
        self.open_held(buffer)
    }

    /// Opens the records of a buffer, and holds it until they are written.
    fn open_held(&mut self, mut buffer: Buffer) -> Result<(), RelayError> {
        let opened = self.open_records(&mut buffer)?;
        self.held = Some(buffer);
        match opened {
            Batch::More => {}
            Batch::End => self.is_ended = true,
            Batch::Abort(reason) => return Err(RelayError::Aborted(reason)),
            // The opener refuses it before END.
            Batch::Done => return Err(OpenError::Violation.into()),
        }
        Ok(())
    }

    /// Writes what was opened. Keeps the beginning of a record until the rest comes.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalStream,
    ) -> Poll<Result<(), RelayError>> {
        if let Some(buffer) = &mut self.held {
            ready!(poll_write(cx, buffer, local, &mut self.budget)).map_err(RelayError::Local)?;
            if !self.is_more_left {
                self.keep();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes have come, and how many of them are still to be written.
    pub(super) fn progress(&self) -> Progress {
        (self.traffic.received(), self.held.as_ref().map_or(0, Buffer::unwritten))
    }

    /// Whether END has come, even if not all before it is written.
    pub(super) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Writes the rest of what came before the connection failed, and its end if that came.
    pub(super) async fn write_rest(&mut self, local: &LocalStream) -> Result<(), RelayError> {
        poll_fn(|cx| self.poll_write(cx, local)).await?;
        if self.is_ended { self.end(local) } else { Ok(()) }
    }

    /// Ends the stream to the local socket, once.
    fn end(&self, local: &LocalStream) -> Result<(), RelayError> {
        if self.local_end == LocalEnd::Ended {
            return Ok(());
        }
        local.shutdown_write().map_err(RelayError::Local)
    }

    /// The buffer for the next read, which goes behind the unopened bytes.
    fn buffer(&mut self) -> Buffer {
        let Some(buffer) = self.held.take() else {
            self.unopened = 0;
            return Buffer::lend(self.size);
        };
        // Full of the beginning of one record, which another implementation has sent.
        let is_too_small = self.unopened == 0 && buffer.filled() == buffer.capacity();
        if self.size == Size::Large
            && buffer.size() != Size::Large
            && let Some(large) = Buffer::lend_large()
        {
            self.move_into(large, &buffer)
        } else if is_too_small {
            self.move_into(Buffer::lend(Size::Record), &buffer)
        } else {
            buffer
        }
    }

    /// Keeps the beginning of a record, in the smallest buffer that it fits into.
    fn keep(&mut self) {
        let Some(mut buffer) = self.held.take() else { return };
        let length = buffer.filled() - self.unopened;
        if length == 0 {
            return;
        }
        let enough = if length <= SMALL { Size::Small } else { Size::Record };
        self.held = Some(if buffer.size() > enough {
            self.move_into(Buffer::lend(enough), &buffer)
        } else {
            buffer.keep(self.unopened..buffer.filled());
            self.unopened = 0;
            buffer
        });
    }

    /// Moves the unopened bytes to the beginning of another buffer.
    fn move_into(&mut self, mut to: Buffer, from: &Buffer) -> Buffer {
        to.fill_with(from.part(self.unopened..from.filled()));
        self.unopened = 0;
        to
    }

    /// Opens whole records of the buffer in place, as many as the budget lets, up to END,
    /// DONE or ABORT. Bytes behind END wait until END was acted upon.
    fn open_records(&mut self, buffer: &mut Buffer) -> Result<Batch, RelayError> {
        self.is_more_left = false;
        for _ in 0..RECORDS_OPENED {
            let start = self.unopened;
            let bytes = buffer.part_mut(start..buffer.filled());
            let Some(length) = self.opener.record_length(bytes)? else {
                return Ok(Batch::More);
            };
            let Some(record) = bytes.get_mut(..length) else {
                return Ok(Batch::More);
            };
            let record = self.opener.open(record)?;
            self.unopened = start + length;
            self.budget.has_opened();
            match record {
                Record::Opened(_) => {}
                // END comes first in a direction that had ended on its carrier.
                Record::Data(_) if self.local_end == LocalEnd::Ended => {
                    return Err(OpenError::Violation.into());
                }
                Record::Data(range) => {
                    self.traffic.add_received(range.len());
                    buffer.push_unwritten(start + range.start..start + range.end);
                }
                Record::End => return Ok(Batch::End),
                Record::Done if self.unopened == buffer.filled() => return Ok(Batch::Done),
                Record::Abort(reason) => return Ok(Batch::Abort(reason)),
                // Something is behind DONE. The opener refuses the others here.
                Record::Done
                | Record::Open(_)
                | Record::Ready
                | Record::Carry(_)
                | Record::Carried(..)
                | Record::Frames(_)
                | Record::Join(_) => {
                    return Err(OpenError::Violation.into());
                }
            }
        }
        self.is_more_left = true;
        Ok(Batch::More)
    }

    /// Reads the tunnel after END. Ready once DONE has come, or ABORT, or the tunnel has
    /// ended or failed.
    pub(super) fn poll_done(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &TunnelStream,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            // DONE often comes together with END, and is in the buffer already.
            if let Some(mut buffer) = self.held.take() {
                match self.open_records(&mut buffer)? {
                    Batch::Done => return Poll::Ready(Ok(())),
                    Batch::Abort(reason) => return Poll::Ready(Err(RelayError::Aborted(reason))),
                    // The opener refuses a second END.
                    Batch::More | Batch::End => {}
                }
                self.held = Some(buffer);
                self.keep();
            }
            let readable = ready!(tunnel.poll_readable(cx)).map_err(RelayError::Tunnel)?;
            let mut buffer = self.buffer();
            let read = buffer.fill(|room| readable.read(room)).map_err(RelayError::Tunnel)?;
            self.held = Some(buffer);
            if read == Some(0) {
                return Poll::Ready(Err(RelayError::Truncated));
            }
        }
    }
}
