//! The direction from the tunnel to the local socket: records into bytes.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use crate::daemon::buffer::{Buffer, SMALL, Size};
use crate::daemon::close::Close;
use crate::daemon::stream::Stream;
use crate::protocol::{AbortReason, OpenError, Opener, Record};

use super::awake::Awake;
use super::poll_write;
use super::turn::{RECORDS_OPENED, Turn};

/// The direction from the tunnel to the local socket.
pub(super) struct Inbound {
    opener: Opener,
    size: Size,
    /// Whether END has come.
    is_ended: bool,
    /// Bytes of the stream, after opening.
    bytes: u64,
    /// Held while not all of what came is opened and written; at last it begins
    /// with the part of a record that has come.
    held: Option<Buffer>,
    /// Where in the buffer the bytes stand that came and are not yet opened.
    unopened: Range<usize>,
    /// Whether whole records may be among them: more came than a turn opens.
    is_more_left: bool,
    turn: Turn,
}

/// What the records of one read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// The stream goes on.
    More,
    /// END was the last of them.
    End,
    /// ABORT was.
    Abort(AbortReason),
}

impl Inbound {
    pub(super) const fn new(opener: Opener) -> Self {
        Self {
            opener,
            size: Size::Small,
            is_ended: false,
            bytes: 0,
            held: None,
            unopened: 0..0,
            is_more_left: false,
            turn: Turn::new(),
        }
    }

    /// Has bytes to open beyond those there are.
    #[cfg(test)]
    pub(super) fn plant_unopened(&mut self) {
        let buffer = Buffer::lend(Size::Small);
        self.unopened = 0..buffer.capacity() + 1;
        self.is_more_left = true;
        self.held = Some(buffer);
    }

    /// How many bytes of the stream came this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much room it holds while it waits.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Buffer::capacity)
    }

    /// Opens whatever `tunnel` gives into `local`, until END; then ends the
    /// stream towards `local`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        (tunnel, local): (&Stream, &Stream),
        awake: &mut Awake,
    ) -> Poll<Result<(), Close>> {
        self.turn.begin();
        loop {
            ready!(self.poll_write(context, local))?;
            if self.is_ended {
                return Poll::Ready(local.shutdown_write().map_err(Close::Local));
            }
            let ready = if self.is_more_left {
                None
            } else {
                Some(ready!(tunnel.poll_readable(context)).map_err(Close::Tunnel)?)
            };
            ready!(self.turn.poll_next(context, self.size));
            let mut buffer = self.buffer();
            if let Some(ready) = ready {
                let wanted = buffer.capacity() - self.unopened.end;
                match ready
                    .read(buffer.part_mut(self.unopened.end..buffer.capacity()))
                    .map_err(Close::Tunnel)?
                {
                    Some(0) => return Poll::Ready(Err(Close::Truncated)),
                    Some(count) => {
                        self.size = Size::after(count, wanted);
                        self.unopened.end += count;
                        awake.moved(count);
                        self.turn.has_read(count);
                    }
                    None => {}
                }
            }
            let opened = self.open(&mut buffer)?;
            self.held = Some(buffer);
            match opened {
                Opened::More => {}
                Opened::End => self.is_ended = true,
                Opened::Abort(reason) => return Poll::Ready(Err(Close::Aborted(reason))),
            }
        }
    }

    /// Writes what was opened; keeps the part of a record that has come until
    /// the rest does.
    fn poll_write(&mut self, context: &mut Context<'_>, local: &Stream) -> Poll<Result<(), Close>> {
        if let Some(buffer) = &mut self.held {
            ready!(poll_write(context, buffer, local, &mut self.turn)).map_err(Close::Local)?;
            if !self.is_more_left {
                self.keep();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether END has come, whatever is still to be written before it.
    pub(super) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What came before the connection failed: it is still good, and so is its end.
    pub(super) async fn write_rest(&mut self, local: &Stream) -> Result<(), Close> {
        poll_fn(|context| self.poll_write(context, local)).await?;
        if self.is_ended { local.shutdown_write().map_err(Close::Local) } else { Ok(()) }
    }

    /// The buffer that the next read goes into, behind what is not yet opened.
    fn buffer(&mut self) -> Buffer {
        let Some(buffer) = self.held.take() else {
            self.unopened = 0..0;
            return Buffer::lend(self.size);
        };
        // A small one that is full of part of a record, since ours fit.
        let is_too_small = self.unopened.len() == buffer.capacity();
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

    /// Keeps the part of a record that has come, in the smallest buffer it fits.
    fn keep(&mut self) {
        let Some(mut buffer) = self.held.take().filter(|_| !self.unopened.is_empty()) else {
            return;
        };
        let enough = if self.unopened.len() <= SMALL { Size::Small } else { Size::Record };
        self.held = Some(if buffer.size() > enough {
            self.move_into(Buffer::lend(enough), &buffer)
        } else {
            buffer.bytes_mut().copy_within(self.unopened.clone(), 0);
            self.unopened = 0..self.unopened.len();
            buffer
        });
    }

    /// Moves what is not yet opened to the beginning of another buffer.
    fn move_into(&mut self, mut to: Buffer, from: &Buffer) -> Buffer {
        let bytes = from.part(self.unopened.clone());
        to.part_mut(0..bytes.len()).copy_from_slice(bytes);
        self.unopened = 0..bytes.len();
        to
    }

    /// Opens the whole records of the buffer in place, as many as a turn may, up to
    /// END or ABORT: what is behind END waits until END was acted upon, be it in the
    /// same buffer or not.
    fn open(&mut self, buffer: &mut Buffer) -> Result<Opened, Close> {
        self.is_more_left = false;
        for _ in 0..RECORDS_OPENED {
            let bytes = buffer.part_mut(self.unopened.clone());
            let Some(length) = self.opener.record_length(bytes)? else {
                return Ok(Opened::More);
            };
            let Some(record) = bytes.get_mut(..length) else {
                return Ok(Opened::More);
            };
            let start = self.unopened.start;
            let record = self.opener.open(record)?;
            self.unopened.start = start + length;
            self.turn.has_opened();
            match record {
                Record::Opened => {}
                Record::Data(range) => {
                    self.bytes =
                        self.bytes.saturating_add(range.len().try_into().unwrap_or(u64::MAX));
                    let at = |offset: usize| start + offset;
                    buffer.push_unwritten(at(range.start)..at(range.end));
                }
                Record::End => return Ok(Opened::End),
                Record::Abort(reason) => return Ok(Opened::Abort(reason)),
                // The opener lets neither come here.
                Record::Open | Record::Ready => return Err(OpenError::Violation.into()),
            }
        }
        self.is_more_left = true;
        Ok(Opened::More)
    }

    /// An error once something is wrong after END, while this side is still sending:
    /// an ABORT says what. Never ready otherwise.
    pub(super) fn poll_after_end(
        &mut self,
        context: &mut Context<'_>,
        tunnel: &Stream,
    ) -> Poll<Result<(), Close>> {
        loop {
            // What came with END is in the buffer already.
            if let Some(mut buffer) = self.held.take() {
                if let Opened::Abort(reason) = self.open(&mut buffer)? {
                    return Poll::Ready(Err(Close::Aborted(reason)));
                }
                self.held = Some(buffer);
                self.keep();
            }
            let ready = ready!(tunnel.poll_readable(context)).map_err(Close::Tunnel)?;
            let mut buffer = self.buffer();
            let room = buffer.part_mut(self.unopened.end..buffer.capacity());
            match ready.read(room).map_err(Close::Tunnel)? {
                Some(0) => return Poll::Ready(Err(Close::Truncated)),
                Some(count) => self.unopened.end += count,
                None => {}
            }
            self.held = Some(buffer);
        }
    }
}
