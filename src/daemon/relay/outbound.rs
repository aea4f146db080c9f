//! The direction from the local socket to the tunnel: bytes into records.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use tokio::task::yield_now;

use crate::daemon::buffer::{Buffer, Size};
use crate::daemon::close::Close;
use crate::daemon::stream::Stream;
use crate::protocol::{OVERHEAD, Padding, Sealer};

use super::awake::Awake;
use super::poll_write;
use super::slots::Slots;
use super::turn::Turn;

/// The direction from the local socket into the tunnel.
pub(super) struct Outbound {
    sealer: Sealer,
    slots: Slots,
    size: Size,
    /// Whether END is sealed.
    is_ended: bool,
    /// Bytes of the stream, before sealing.
    bytes: u64,
    /// Held while records in it are not all written: nothing can be sealed
    /// before they are.
    held: Option<Buffer>,
    turn: Turn,
}

impl Outbound {
    pub(super) fn new(sealer: Sealer, padding: Option<Padding>) -> Self {
        let slots = Slots::new(padding);
        let turn = Turn::new();
        Self { sealer, slots, size: Size::Small, is_ended: false, bytes: 0, held: None, turn }
    }

    /// Reads into these slots from here on.
    #[cfg(test)]
    pub(super) const fn plant(&mut self, slots: Slots) {
        self.slots = slots;
    }

    /// How many bytes of the stream went this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the tunnel has no room for what was read.
    pub(super) const fn is_blocked(&self) -> bool {
        self.held.is_some()
    }

    /// How much was read, and how much of it is still to be written: it differs
    /// from what it was before if anything has moved.
    pub(super) fn progress(&self) -> (u64, usize) {
        (self.bytes, self.held.as_ref().map_or(0, Buffer::unwritten))
    }

    /// The initiator's first words: OPEN, with what the client has already said.
    pub(super) fn open(&mut self, local: &Stream) -> Result<(), Close> {
        let mut buffer = Buffer::lend(Size::Small);
        let (open, rest) = buffer.bytes_mut().split_at_mut(OVERHEAD);
        let payload = &mut rest[self.slots.payload()];
        // The end of the stream is left to the relay, which reads it again.
        let count = local.try_read(payload).map_err(Close::Local)?.unwrap_or(0);
        open.copy_from_slice(&self.sealer.open()?);
        let sealed = self.slots.seal(&mut self.sealer, rest, count)?;
        self.hold(buffer, OVERHEAD + sealed, count);
        Ok(())
    }

    /// The responder's first words: OPENED.
    pub(super) fn opened(&mut self) -> Result<(), Close> {
        let opened = self.sealer.opened()?;
        self.hold_whole(&opened);
        Ok(())
    }

    /// Seals whatever `local` gives until it ends, then END; ready once that is
    /// written.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        (local, tunnel): (&Stream, &Stream),
        awake: &mut Awake,
    ) -> Poll<Result<(), Close>> {
        self.turn.begin();
        loop {
            ready!(self.poll_write(context, tunnel))?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            let ready = ready!(local.poll_readable(context)).map_err(Close::Local)?;
            ready!(self.turn.poll_next(context, self.size));
            let mut buffer = Buffer::lend(self.size);
            match self.slots.read(ready, &mut buffer).map_err(Close::Local)? {
                None => {}
                Some(0) => {
                    self.is_ended = true;
                    let end = self.sealer.end()?;
                    self.hold_whole(&end);
                }
                Some(count) => {
                    self.size = Size::after(count, self.slots.capacity(&buffer));
                    self.seal(buffer, count)?;
                    awake.moved(count);
                    self.turn.has_read(count);
                }
            }
        }
    }

    /// What the local peer said before its connection failed: a server that
    /// refuses says why, and closes without having read all.
    pub(super) async fn send_rest(&mut self, local: &Stream, tunnel: &Stream) -> Result<(), Close> {
        loop {
            self.write_held(tunnel).await?;
            if self.is_ended {
                return Ok(());
            }
            let mut buffer = Buffer::lend(Size::Small);
            let payload = buffer.part_mut(self.slots.payload());
            let count = local.try_read(payload).map_err(Close::Local)?.unwrap_or(0);
            if count == 0 {
                return Ok(());
            }
            self.seal(buffer, count)?;
            yield_now().await;
        }
    }

    /// Writes the records that are sealed, so that one can follow them.
    pub(super) async fn write_held(&mut self, tunnel: &Stream) -> Result<(), Close> {
        poll_fn(|context| self.poll_write(context, tunnel)).await
    }

    /// The ABORT that tells the other end why this one gives up; `None` where
    /// it can't be told, since records before it are not all sent.
    pub(super) fn abort(&mut self, close: &Close) -> Option<[u8; OVERHEAD + 1]> {
        let reason = close.abort_reason().filter(|_| self.held.is_none())?;
        self.sealer.abort(reason).ok()
    }

    fn seal(&mut self, mut buffer: Buffer, count: usize) -> Result<(), Close> {
        let sealed = self.slots.seal(&mut self.sealer, buffer.bytes_mut(), count)?;
        self.hold(buffer, sealed, count);
        Ok(())
    }

    fn hold_whole(&mut self, record: &[u8]) {
        let mut buffer = Buffer::lend(Size::Small);
        buffer.part_mut(0..record.len()).copy_from_slice(record);
        self.hold(buffer, record.len(), 0);
    }

    /// Holds a buffer that begins with `sealed` bytes of records, in which there
    /// are so many of the stream.
    fn hold(&mut self, mut buffer: Buffer, sealed: usize, of_stream: usize) {
        self.bytes = self.bytes.saturating_add(of_stream.try_into().unwrap_or(u64::MAX));
        buffer.push_unwritten(0..sealed);
        self.held = Some(buffer);
    }

    /// Writes what is held, and gives the buffer back.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        tunnel: &Stream,
    ) -> Poll<Result<(), Close>> {
        if let Some(buffer) = &mut self.held {
            ready!(poll_write(context, buffer, tunnel, &mut self.turn)).map_err(Close::Tunnel)?;
            self.held = None;
        }
        Poll::Ready(Ok(()))
    }
}
