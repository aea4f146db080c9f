//! Outgoing: the records of a carrier, from frames until they are written.
//!
//! ```text
//! buffer: │ written │ sealed, to be written │ the open record: frames │ room │
//! ```
//!
//! Frames are written where they are sealed and sent. While the tunnel takes everything, a
//! turn of the event loop may fill several records; while it does not, only the open record
//! takes frames, so that little stands before what comes next.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::daemon::net::sides::TunnelStream;
use crate::daemon::relay::buffer::{Buffer, Size};
use crate::protocol::carrier::Batch;
use crate::protocol::{FRAMES_MAX, PREFIX, Padding, SUFFIX, SealError, Sealer};

/// The longest record.
const RECORD: usize = PREFIX + FRAMES_MAX + SUFFIX;
/// The byte that says which kind of record it is, which is padded with the frames.
const KIND: usize = 1;
/// Zeros behind the frames.
const PAD: u8 = 0;
/// The room that a further record must have.
const ROOM_MIN: usize = 1024;

/// The records that are not written yet.
pub(super) struct Outgoing {
    sealer: Sealer,
    padding: Option<Padding>,
    /// Lent while there is something to write.
    buffer: Option<Buffer>,
    written: usize,
    /// Where the sealed records end, and the open one begins.
    sealed: usize,
    /// Bytes of frames in the open record.
    frames: usize,
    /// Whether the tunnel had no room for all that is sealed.
    is_blocked: bool,
    /// Whether a record was sealed since [`Self::take_has_sealed`].
    has_sealed: bool,
}

impl Outgoing {
    /// With `padding`, each record is padded to a multiple of that.
    pub(super) const fn new(sealer: Sealer, padding: Option<Padding>) -> Self {
        Self {
            sealer,
            padding,
            buffer: None,
            written: 0,
            sealed: 0,
            frames: 0,
            is_blocked: false,
            has_sealed: false,
        }
    }

    /// Whether a record was sealed since this was last asked.
    pub(super) const fn take_has_sealed(&mut self) -> bool {
        std::mem::replace(&mut self.has_sealed, false)
    }

    /// What is sealed.
    #[cfg(test)]
    pub(super) fn sealed(&mut self) -> &[u8] {
        let Some(buffer) = &mut self.buffer else { return &[] };
        &buffer.room()[..self.sealed]
    }

    /// Whether nothing waits to be written.
    pub(super) const fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Has `write` add frames to the open record. Where there is no room for all, seals it and
    /// goes on with the next one, if the tunnel takes records. Returns whether `write` said
    /// that it was done.
    pub(super) fn fill<E: From<SealError>>(
        &mut self,
        mut write: impl FnMut(&mut Batch<'_>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        loop {
            let Self { buffer, sealed, frames, .. } = self;
            let buffer = buffer.get_or_insert_with(|| Buffer::lend(Size::Large));
            let room = &mut buffer.room()[*sealed..];
            let (least, most) = match self.padding {
                None => (ROOM_MIN, RECORD),
                // So long that the padded record has its place.
                Some(padding) => (RECORD, RECORD - (KIND + FRAMES_MAX) % padding.get()),
            };
            if room.len() < least {
                return Ok(false);
            }
            let length = room.len().min(most);
            let mut batch = Batch::new(&mut room[..length], *frames);
            let is_done = write(&mut batch);
            *frames = batch.filled();
            let is_done = is_done?;
            if is_done || self.is_blocked || self.frames == 0 {
                self.give_back_if_empty();
                return Ok(is_done);
            }
            self.seal()?;
        }
    }

    /// Seals the open record. Nothing else is done without frames.
    pub(super) fn seal(&mut self) -> Result<(), SealError> {
        if self.frames == 0 {
            return Ok(());
        }
        self.seal_frames()
    }

    /// Seals a record without frames: a sign of life.
    pub(super) fn seal_sign_of_life(&mut self) -> Result<(), SealError> {
        if !self.is_empty() {
            return Ok(());
        }
        self.buffer = Some(Buffer::lend(Size::Small));
        self.seal_frames()
    }

    fn seal_frames(&mut self) -> Result<(), SealError> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        let frames = match self.padding {
            None => self.frames,
            Some(padding) => (KIND + self.frames).next_multiple_of(padding.get()) - KIND,
        };
        let place = self.sealed + PREFIX;
        buffer.room()[place..][self.frames..frames].fill(PAD);
        let end = place + frames + SUFFIX;
        self.sealer.seal_frames(&mut buffer.room()[self.sealed..end])?;
        self.sealed = end;
        self.frames = 0;
        self.has_sealed = true;
        Ok(())
    }

    /// Adds a whole record that is no FRAMES, behind all that is sealed.
    pub(super) fn seal_other<const N: usize>(
        &mut self,
        seal: impl FnOnce(&mut Sealer) -> Result<[u8; N], SealError>,
    ) -> Result<(), SealError> {
        self.seal()?;
        let buffer = self.buffer.get_or_insert_with(|| Buffer::lend(Size::Small));
        let Some(place) = buffer.room()[self.sealed..].first_chunk_mut::<N>() else {
            // The tunnel takes nothing: whoever is told by this learns it from the tunnel's end.
            return Ok(());
        };
        *place = seal(&mut self.sealer)?;
        self.sealed += N;
        Ok(())
    }

    /// Writes the sealed records. Ready once all are written; then the buffer is given back.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &TunnelStream,
    ) -> Poll<io::Result<()>> {
        let Some(buffer) = &mut self.buffer else { return Poll::Ready(Ok(())) };
        self.is_blocked = true;
        while self.written < self.sealed {
            let rest = IoSlice::new(&buffer.room()[self.written..self.sealed]);
            self.written += ready!(tunnel.poll_write(cx, &[rest]))?;
        }
        self.is_blocked = false;
        self.give_back_if_empty();
        Poll::Ready(Ok(()))
    }

    fn give_back_if_empty(&mut self) {
        if self.frames == 0 && self.written == self.sealed {
            self.buffer = None;
            self.sealed = 0;
            self.written = 0;
        }
    }
}
