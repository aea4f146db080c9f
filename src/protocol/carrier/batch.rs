//! A batch: the frames of the next record, each written where it is sealed and sent.

use super::frame::{FRAME_HEADER, FrameType, StreamId, header};
use crate::protocol::record::{FRAMES_MAX, PREFIX, SUFFIX};

/// The frames of the next record, at their place: 3 bytes of room, the frames, and room for
/// the tag.
pub struct Batch<'r> {
    record: &'r mut [u8],
    /// Bytes of the frames.
    filled: usize,
}

impl<'r> Batch<'r> {
    /// Goes on with a record that holds frames of `filled` bytes.
    ///
    /// # Panics
    /// When the record has no room for so many.
    pub fn new(record: &'r mut [u8], filled: usize) -> Self {
        let batch = Self { record, filled };
        assert!(filled <= batch.capacity(), "more frames than the record has room for");
        batch
    }

    /// Bytes of the frames.
    #[must_use]
    pub const fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes of the whole record, once it is sealed.
    #[must_use]
    pub const fn record_length(&self) -> usize {
        PREFIX.saturating_add(self.filled).saturating_add(SUFFIX)
    }

    /// How many bytes of frames there may be in all.
    fn capacity(&self) -> usize {
        self.record.len().saturating_sub(PREFIX.saturating_add(SUFFIX)).min(FRAMES_MAX)
    }

    /// How many bytes of payload the next frame may have; `None` if there is no room for one.
    pub(super) fn room(&self) -> Option<usize> {
        self.capacity().checked_sub(self.filled)?.checked_sub(FRAME_HEADER)
    }

    /// Adds a frame. Returns whether there was room for it.
    #[must_use]
    pub(super) fn push(&mut self, kind: FrameType, id: Option<StreamId>, payload: &[u8]) -> bool {
        let fits = self.room().is_some_and(|room| payload.len() <= room);
        if fits {
            let write = |place: &mut [u8]| {
                place.copy_from_slice(payload);
                Ok::<_, std::convert::Infallible>(payload.len())
            };
            let Ok(_length) = self.fill(kind, id, payload.len(), write);
        }
        fits
    }

    /// Adds a frame whose payload `read` writes into its place of at most `most` bytes, which
    /// there must be room for; `read` returns how many it has written. Adds nothing where the
    /// type needs a payload and there is none.
    pub(super) fn fill<E>(
        &mut self,
        kind: FrameType,
        id: Option<StreamId>,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = PREFIX.saturating_add(self.filled);
        let payload = start.saturating_add(FRAME_HEADER);
        let place = self.place(payload, most);
        let length = read(place)?;
        assert!(length <= most, "more is read than there was room for");
        if length == 0 && kind == FrameType::Data {
            return Ok(0);
        }
        let Ok(wire_length) = u16::try_from(length) else {
            unreachable!("a record has room for {FRAMES_MAX} bytes");
        };
        self.place(start, FRAME_HEADER).copy_from_slice(&header(kind, id, wire_length));
        self.filled = self.filled.saturating_add(FRAME_HEADER).saturating_add(length);
        Ok(length)
    }

    fn place(&mut self, start: usize, length: usize) -> &mut [u8] {
        match self.record.get_mut(start..start.saturating_add(length)) {
            Some(place) => place,
            None => unreachable!("a frame was begun that there is no room for"),
        }
    }
}
