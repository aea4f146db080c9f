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
                RECORD_PLAINTEXT.next_multiple_of(padding.get()).saturating_sub(padding.get()),
            ),
        };
        let stride = plaintext.saturating_add(HEADER + SUFFIX);
        let payload = stride.saturating_sub(before.saturating_add(SUFFIX));
        Self { padding, before, payload, stride }
    }

    /// Where the payload of the first slot stands.
    pub(super) const fn payload(&self) -> Range<usize> {
        self.before..self.before.saturating_add(self.payload)
    }

    /// How much payload one read into this buffer can bring.
    pub(super) fn capacity(&self, buffer: &Buffer) -> usize {
        self.payload.saturating_mul(if buffer.size() == Size::Large { RECORDS } else { 1 })
    }

    /// One read into the payloads of the slots.
    pub(super) fn read(
        &self,
        ready: Readable<'_>,
        buffer: &mut Buffer,
    ) -> io::Result<Option<usize>> {
        let is_large = buffer.size() == Size::Large;
        let mut slots = buffer
            .bytes_mut()
            .chunks_exact_mut(self.stride)
            .map(|slot| slot.get_mut(self.payload()).unwrap_or_default());
        if is_large {
            let mut payloads: [_; RECORDS] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            ready.read_vectored(&mut payloads)
        } else {
            ready.read(slots.next().unwrap_or_default())
        }
    }

    /// Seals the `count` bytes that were read into the slots, in place; how
    /// many bytes the records have on the wire.
    pub(super) fn seal(
        &self,
        sealer: &mut Sealer,
        buffer: &mut [u8],
        count: usize,
    ) -> Result<usize, SealError> {
        let mut left = count;
        let mut total = 0_usize;
        for slot in buffer.chunks_mut(self.stride) {
            let payload = left.min(self.payload);
            if payload == 0 {
                break;
            }
            left = left.saturating_sub(payload);
            let bare = payload.saturating_add(self.before).saturating_add(SUFFIX);
            total = total.saturating_add(match self.padding {
                None => {
                    sealer.seal_data(slot.get_mut(..bare).ok_or(SealError::Size)?)?;
                    bare
                }
                Some(padding) => {
                    let plaintext = bare.saturating_sub(HEADER + SUFFIX);
                    let padded =
                        plaintext.next_multiple_of(padding.get()).saturating_add(HEADER + SUFFIX);
                    let record = slot.get_mut(..padded).ok_or(SealError::Size)?;
                    sealer.seal_padded(record, payload)?;
                    padded
                }
            });
        }
        Ok(total)
    }
}
