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

    /// How many bytes of the stream came this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much room it holds while it waits.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |buffer| buffer.bytes().len())
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
                let room = buffer.bytes_mut().get_mut(self.unopened.end..).unwrap_or_default();
                let wanted = room.len();
                match ready.read(room).map_err(Close::Tunnel)? {
                    Some(0) => return Poll::Ready(Err(Close::Truncated)),
                    Some(count) => {
                        self.size = Size::after(count, wanted);
                        self.unopened.end = self.unopened.end.saturating_add(count);
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

    /// What came before an ABORT: it is still good.
    pub(super) async fn write_rest(&mut self, local: &Stream) -> Result<(), Close> {
        poll_fn(|context| self.poll_write(context, local)).await
    }

    /// The buffer that the next read goes into, behind what is not yet opened.
    fn buffer(&mut self) -> Buffer {
        let Some(buffer) = self.held.take() else {
            self.unopened = 0..0;
            return Buffer::lend(self.size);
        };
        // A small one that is full of part of a record, since ours fit.
        let is_too_small = self.unopened.len() == buffer.bytes().len();
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
        let bytes = from.bytes().get(self.unopened.clone()).unwrap_or_default();
        if let Some(room) = to.bytes_mut().get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.unopened = 0..bytes.len();
        to
    }

    /// Opens the whole records of the buffer in place, as many as a turn may.
    fn open(&mut self, buffer: &mut Buffer) -> Result<Opened, Close> {
        let mut opened = Opened::More;
        let mut count = 0;
        loop {
            // After END only what ends the connection can come.
            self.is_more_left = count == RECORDS_OPENED && opened == Opened::More;
            if self.is_more_left {
                break;
            }
            count = count.saturating_add(1);
            let bytes = buffer.bytes_mut().get_mut(self.unopened.clone()).unwrap_or_default();
            let Some(length) = self.opener.record_length(bytes)? else {
                break;
            };
            let Some(record) = bytes.get_mut(..length) else {
                break;
            };
            let start = self.unopened.start;
            match self.opener.open(record)? {
                Record::Opened => {}
                Record::Data(range) => {
                    self.bytes =
                        self.bytes.saturating_add(range.len().try_into().unwrap_or(u64::MAX));
                    let at = |offset: usize| start.saturating_add(offset);
                    buffer.push_unwritten(at(range.start)..at(range.end));
                }
                Record::End => opened = Opened::End,
                Record::Abort(reason) => {
                    opened = Opened::Abort(reason);
                    break;
                }
                // The opener lets neither come here.
                Record::Open | Record::Ready => return Err(OpenError::Violation.into()),
            }
            self.unopened.start = start.saturating_add(length);
            self.turn.has_opened();
        }
        Ok(opened)
    }

    /// What came after END, while this side was still sending: only a failure
    /// can, and an ABORT says which.
    pub(super) fn after_end(&mut self, tunnel: &Stream) -> Close {
        let mut buffer = Buffer::lend(Size::Small);
        match tunnel.try_read(buffer.bytes_mut()) {
            Err(error) => Close::Tunnel(error),
            Ok(count) => {
                self.unopened = 0..count.unwrap_or(0);
                match self.open(&mut buffer) {
                    Ok(Opened::Abort(reason)) => Close::Aborted(reason),
                    Ok(Opened::More | Opened::End) => Close::Truncated,
                    Err(close) => close,
                }
            }
        }
    }
}
