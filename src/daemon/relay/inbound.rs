//! The direction from the tunnel to the local socket: records into bytes.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use crate::daemon::buffer::{Buffer, SMALL, Size};
use crate::daemon::close::Close;
use crate::daemon::stream::Stream;
use crate::protocol::{AbortReason, HEADER, OpenError, Opener, Record};

use super::awake::Awake;
use super::{Turn, poll_write};

/// The direction from the tunnel to the local socket.
pub(super) struct Inbound {
    opener: Opener,
    size: Size,
    /// Whether END has come.
    is_ended: bool,
    /// Bytes of the stream, after opening.
    bytes: u64,
    /// Held while not all of what was opened is written, or only part of a
    /// record has come; once the former is, it begins with the latter.
    held: Option<Buffer>,
    /// Where in the buffer the bytes stand that came and are not yet opened.
    unopened: Range<usize>,
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
        Self { opener, size: Size::Small, is_ended: false, bytes: 0, held: None, unopened: 0..0 }
    }

    /// How many bytes of the stream came this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens whatever `tunnel` gives into `local`, until END; then ends the
    /// stream towards `local`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        (tunnel, local): (&Stream, &Stream),
        awake: &mut Awake,
    ) -> Poll<Result<(), Close>> {
        let mut turn = Turn::new();
        loop {
            ready!(self.poll_write(context, local))?;
            if self.is_ended {
                return Poll::Ready(local.shutdown_write().map_err(Close::Local));
            }
            ready!(turn.poll(context));
            let ready = ready!(tunnel.poll_readable(context)).map_err(Close::Tunnel)?;
            let mut buffer = self.buffer()?;
            let room = buffer.bytes_mut().get_mut(self.unopened.end..).unwrap_or_default();
            let wanted = room.len();
            match ready.read(room).map_err(Close::Tunnel)? {
                Some(0) => return Poll::Ready(Err(Close::Truncated)),
                Some(count) => {
                    self.size = Size::after(count, wanted);
                    self.unopened.end = self.unopened.end.saturating_add(count);
                    awake.moved(count);
                    turn.moved(count);
                }
                None => {}
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
            ready!(poll_write(context, buffer, local)).map_err(Close::Local)?;
            self.keep();
        }
        Poll::Ready(Ok(()))
    }

    /// What came before an ABORT: it is still good.
    pub(super) async fn write_rest(&mut self, local: &Stream) -> Result<(), Close> {
        poll_fn(|context| self.poll_write(context, local)).await
    }

    /// The buffer that the next read goes into, behind a partial record.
    fn buffer(&mut self) -> Result<Buffer, Close> {
        let Some(buffer) = self.held.take() else {
            self.unopened = 0..0;
            return Ok(Buffer::lend(self.size));
        };
        let partial = buffer.bytes().get(self.unopened.clone()).unwrap_or_default();
        let needed = self.opener.record_length(partial)?.unwrap_or(HEADER);
        Ok(if needed > buffer.bytes().len() {
            self.move_into(Buffer::lend_for_large_record(), &buffer)
        } else if self.size == Size::Large && !buffer.is_large() {
            self.move_into(Buffer::lend(Size::Large), &buffer)
        } else {
            buffer
        })
    }

    /// Keeps the part of a record that has come, in a small buffer if it fits.
    fn keep(&mut self) {
        let Some(mut buffer) = self.held.take().filter(|_| !self.unopened.is_empty()) else {
            return;
        };
        self.held = Some(if buffer.is_large() && self.unopened.len() < SMALL {
            self.move_into(Buffer::lend(Size::Small), &buffer)
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

    /// Opens all whole records of the buffer in place.
    fn open(&mut self, buffer: &mut Buffer) -> Result<Opened, Close> {
        let mut opened = Opened::More;
        loop {
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
