//! The record layout: where in a buffer the records of one read stand.

use std::io::{self, IoSliceMut};

use super::{Buffer, RECORD_PLAINTEXT, RECORDS, Size};
use crate::protocol::{HEADER, PADDED_COUNT, PREFIX, Padding, SUFFIX, SealError, Sealer};

/// Where in a buffer the records of one read stand: one behind the other, all full but the
/// last, so that one write sends them.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon::relay) struct RecordLayout {
    padding: Option<Padding>,
    /// Bytes before the payload in each record.
    before: usize,
    /// Bytes of payload in a full record.
    payload: usize,
    /// Bytes of a full record.
    stride: usize,
}

/// A buffer with the payloads of one read, each where its record will be.
pub(in crate::daemon::relay) struct Filled {
    layout: RecordLayout,
    buffer: Buffer,
    /// Where the first record begins.
    at: usize,
    /// Bytes of the stream.
    count: usize,
}

impl RecordLayout {
    pub(in crate::daemon::relay) fn new(padding: Option<Padding>) -> Self {
        let (before, plaintext) = match padding {
            None => (PREFIX, RECORD_PLAINTEXT),
            // The largest multiple that fits into a record.
            Some(padding) => (
                PREFIX + PADDED_COUNT,
                RECORD_PLAINTEXT.next_multiple_of(padding.get()) - padding.get(),
            ),
        };
        let stride = plaintext + HEADER + SUFFIX;
        let payload = stride - before - SUFFIX;
        Self { padding, before, payload, stride }
    }

    /// A layout whose payload does not fit into its records.
    #[cfg(test)]
    pub(in crate::daemon::relay) fn planted() -> Self {
        let right = Self::new(None);
        Self { payload: right.payload + super::SMALL, ..right }
    }

    /// The most payload of one read into a buffer of this size.
    pub(in crate::daemon::relay) const fn capacity(&self, size: Size) -> usize {
        self.payload * if matches!(size, Size::Large) { RECORDS } else { 1 }
    }

    /// Reads once into the payloads of the records. The first record begins `at` this byte
    /// of the buffer. `None` when there was nothing to read.
    pub(in crate::daemon::relay) fn read(
        self,
        mut buffer: Buffer,
        at: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Filled>> {
        let payload = self.before..self.before + self.payload;
        let size = buffer.size();
        let records = &mut buffer.room()[at..];
        let count = if size == Size::Large {
            let mut records = records.chunks_exact_mut(self.stride);
            read(&mut std::array::from_fn::<_, RECORDS, _>(|_| {
                #[expect(clippy::expect_used, reason = "fewer are our own mistake")]
                let record = records.next().expect("a large buffer has so many records");
                IoSliceMut::new(&mut record[payload.clone()])
            }))?
        } else {
            read(&mut [IoSliceMut::new(&mut records[payload])])?
        };
        Ok(count.map(|count| Filled { layout: self, buffer, at, count }))
    }
}

impl Filled {
    /// How many bytes of the stream were read; 0 at its end.
    pub(in crate::daemon::relay) const fn count(&self) -> usize {
        self.count
    }

    pub(in crate::daemon::relay) fn size(&self) -> Size {
        self.buffer.size()
    }

    /// Seals what was read, in place, behind records that are sealed already. Returns the
    /// buffer with records to be written.
    ///
    /// # Panics
    /// When the records have room for fewer bytes than were read, or `before` does not fill
    /// the room before the first one.
    pub(in crate::daemon::relay) fn seal(
        self,
        before: &[u8],
        sealer: &mut Sealer,
    ) -> Result<Buffer, SealError> {
        let Self { layout, mut buffer, at, count } = self;
        buffer.room()[..at].copy_from_slice(before);
        let (mut left, mut total) = (count, at);
        for record in buffer.room()[at..].chunks_mut(layout.stride) {
            let payload = left.min(layout.payload);
            if payload == 0 {
                break;
            }
            left -= payload;
            let bare = layout.before + payload + SUFFIX;
            total += match layout.padding {
                None => {
                    sealer.seal_data(&mut record[..bare])?;
                    bare
                }
                Some(padding) => {
                    let plaintext = bare - HEADER - SUFFIX;
                    let padded = plaintext.next_multiple_of(padding.get()) + HEADER + SUFFIX;
                    sealer.seal_padded(&mut record[..padded], payload)?;
                    padded
                }
            };
        }
        assert!(left == 0, "{left} bytes would be left out");
        buffer.sealed(total);
        Ok(buffer)
    }
}
