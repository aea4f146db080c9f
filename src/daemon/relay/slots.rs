//! Where in a buffer the records of one read stand.

use std::io::{self, IoSliceMut};
use std::ops::Range;

use crate::daemon::buffer::{Buffer, RECORD_PLAINTEXT, RECORDS, Size};
use crate::daemon::stream::Readable;
use crate::protocol::{HEADER, PADDED_COUNT, PREFIX, Padding, SUFFIX, SealError, Sealer};

/// The places in a buffer of the records of one read, one behind the other:
/// each full but the last, so that what is sealed is one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    padding: Option<Padding>,
    /// Bytes before the payload in each record.
    before: usize,
    /// Bytes of payload in a full record.
    payload: usize,
    /// Bytes of a full record.
    stride: usize,
}

impl Slots {
    pub(super) fn new(padding: Option<Padding>) -> Self {
        let (before, plaintext) = match padding {
            None => (PREFIX, RECORD_PLAINTEXT),
            // The largest multiple that a record has room for.
            Some(padding) => (
                PREFIX + PADDED_COUNT,
                RECORD_PLAINTEXT.next_multiple_of(padding.get()) - padding.get(),
            ),
        };
        let stride = plaintext + HEADER + SUFFIX;
        let payload = stride - before - SUFFIX;
        Self { padding, before, payload, stride }
    }

    /// Slots whose payload does not fit into them.
    #[cfg(test)]
    pub(super) fn planted() -> Self {
        let right = Self::new(None);
        Self { payload: right.payload + crate::daemon::buffer::SMALL, ..right }
    }

    /// Where the payload of the first slot stands.
    pub(super) const fn payload(&self) -> Range<usize> {
        self.before..self.before + self.payload
    }

    /// How much payload one read into this buffer can bring.
    pub(super) fn capacity(&self, buffer: &Buffer) -> usize {
        self.payload * if buffer.size() == Size::Large { RECORDS } else { 1 }
    }

    /// One read into the payloads of the slots.
    pub(super) fn read(
        &self,
        ready: Readable<'_>,
        buffer: &mut Buffer,
    ) -> io::Result<Option<usize>> {
        if buffer.size() != Size::Large {
            return ready.read(buffer.part_mut(self.payload()));
        }
        let mut slots = buffer.bytes_mut().chunks_exact_mut(self.stride);
        let mut payloads: [_; RECORDS] = std::array::from_fn(|_| {
            #[expect(clippy::expect_used, reason = "fewer are a mistake of ours")]
            let slot = slots.next().expect("a large buffer has so many slots");
            IoSliceMut::new(&mut slot[self.payload()])
        });
        ready.read_vectored(&mut payloads)
    }

    /// Seals the `count` bytes that were read into the slots, in place; how
    /// many bytes the records have on the wire.
    ///
    /// # Panics
    /// When the slots have room for fewer.
    pub(super) fn seal(
        &self,
        sealer: &mut Sealer,
        buffer: &mut [u8],
        count: usize,
    ) -> Result<usize, SealError> {
        let mut left = count;
        let mut total = 0;
        for slot in buffer.chunks_mut(self.stride) {
            let payload = left.min(self.payload);
            if payload == 0 {
                break;
            }
            left -= payload;
            let bare = self.before + payload + SUFFIX;
            total += match self.padding {
                None => {
                    sealer.seal_data(&mut slot[..bare])?;
                    bare
                }
                Some(padding) => {
                    let plaintext = bare - HEADER - SUFFIX;
                    let padded = plaintext.next_multiple_of(padding.get()) + HEADER + SUFFIX;
                    sealer.seal_padded(&mut slot[..padded], payload)?;
                    padded
                }
            };
        }
        assert!(left == 0, "{left} bytes would be left out");
        Ok(total)
    }
}
