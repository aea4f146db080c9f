//! Buffers, lent by a pool of the thread only while bytes move: an idle
//! connection holds none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::ops::Range;

use crate::protocol::{OVERHEAD, RECORD_MAX};

/// The most data in one record that we send: 16 KiB less what `PADDED` needs.
pub(super) const RECORD_PLAINTEXT: usize = 1 + 16 * 1024;
/// One such record on the wire.
pub(super) const RECORD: usize = RECORD_PLAINTEXT + OVERHEAD - 1;
/// How many of them a large buffer has room for.
pub(super) const RECORDS: usize = 16;

/// An OPEN and a full record.
pub(super) const SMALL: usize = OVERHEAD + RECORD;
/// An OPEN and sixteen full records, 256 KiB: beyond that the cost per byte
/// sinks no further.
const LARGE: usize = OVERHEAD + RECORDS * RECORD;

/// Large buffers lent at once by a thread; beyond that flows get small ones,
/// so that thousands of stalled connections cannot hold a quarter MiB each.
const LARGE_LENT_MAX: usize = 128;
/// Buffers of each size that a thread keeps ready.
const SMALL_KEPT: usize = 64;
const RECORD_KEPT: usize = 8;
const LARGE_KEPT: usize = 8;

/// Parts of the stream up to this length are moved up to the part before them:
/// that costs less than a part of its own in the write.
const MOVED_UP: usize = 1024;

/// The size of a buffer; how large a one a flow wants, by how full the last was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Size {
    Small,
    /// Just enough for the largest record there may be, 64 KiB. Ours are smaller:
    /// only a record of another implementation needs it.
    Record,
    Large,
}

/// A buffer of the pool, given back when dropped.
pub(super) struct Buffer(Storage);

/// Bytes, and which parts of them are still to be written.
#[derive(Default)]
struct Storage {
    bytes: Box<[u8]>,
    /// Reused with the bytes, so that it is allocated once.
    unwritten: VecDeque<Range<usize>>,
}

struct Pool {
    small: Vec<Storage>,
    record: Vec<Storage>,
    large: Vec<Storage>,
    large_lent: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            small: Vec::new(),
            record: Vec::new(),
            large: Vec::new(),
            large_lent: 0,
        })
    };
}

impl Size {
    /// The size for the next read, after one that read `count` of `wanted` bytes.
    pub(super) const fn after(count: usize, wanted: usize) -> Self {
        if count == wanted || count > SMALL { Self::Large } else { Self::Small }
    }
}

impl Buffer {
    /// Borrows a buffer of that size, or a small one when many large ones are
    /// lent already.
    pub(super) fn lend(size: Size) -> Self {
        POOL.with_borrow_mut(|pool| match size {
            Size::Small => pool.lend_small(),
            Size::Record => pool.lend_record(),
            Size::Large => pool.lend_large().unwrap_or_else(|| pool.lend_small()),
        })
    }

    /// Borrows a large buffer, unless many are lent already.
    pub(super) fn lend_large() -> Option<Self> {
        POOL.with_borrow_mut(Pool::lend_large)
    }

    pub(super) fn size(&self) -> Size {
        match self.0.bytes.len() {
            LARGE => Size::Large,
            RECORD_MAX => Size::Record,
            _ => Size::Small,
        }
    }

    /// How many bytes it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.0.bytes.len()
    }

    /// All of it.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes
    }

    /// A part of it.
    ///
    /// # Panics
    /// When it is none: a wrong range is a mistake of ours, and must end the connection
    /// before it becomes bytes.
    pub(super) fn part(&self, part: Range<usize>) -> &[u8] {
        &self.0.bytes[part]
    }

    /// The same, to be changed.
    pub(super) fn part_mut(&mut self, part: Range<usize>) -> &mut [u8] {
        &mut self.0.bytes[part]
    }

    /// Notes a part of the buffer to be written after those noted before, which
    /// also stand before it.
    pub(super) fn push_unwritten(&mut self, part: Range<usize>) {
        match self.0.unwritten.back_mut() {
            _ if part.is_empty() => {}
            Some(last) if part.len() <= MOVED_UP => {
                let end = last.end + part.len();
                self.0.bytes.copy_within(part, last.end);
                last.end = end;
            }
            _ => self.0.unwritten.push_back(part),
        }
    }

    /// Whether something is still to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.0.unwritten.is_empty()
    }

    /// How many bytes are still to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.0.unwritten.iter().map(Range::len).sum()
    }

    /// Fills `slices` with the next parts to be written; how many there are.
    pub(super) fn unwritten_slices<'b>(&'b self, slices: &mut [IoSlice<'b>]) -> usize {
        let parts = self.0.unwritten.iter().map(|part| self.part(part.clone()));
        slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    /// The first `count` of the unwritten bytes are written.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn written(&mut self, mut count: usize) {
        while let Some(part) = self.0.unwritten.front_mut() {
            let length = part.len();
            if count < length {
                part.start += count;
                return;
            }
            count -= length;
            self.0.unwritten.pop_front();
        }
        assert!(count == 0, "more is written than there was to write");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut storage = mem::take(&mut self.0);
        storage.unwritten.clear();
        // When the thread is ending there is no pool: it is just freed.
        let _no_pool = POOL.try_with(|pool| pool.borrow_mut().take_back(storage));
    }
}

impl Storage {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), unwritten: VecDeque::new() }
    }
}

impl Pool {
    fn lend_small(&mut self) -> Buffer {
        Buffer(self.small.pop().unwrap_or_else(|| Storage::new(SMALL)))
    }

    /// However many are lent: whoever wants it has received so much of a record
    /// that no small one has room for it.
    fn lend_record(&mut self) -> Buffer {
        Buffer(self.record.pop().unwrap_or_else(|| Storage::new(RECORD_MAX)))
    }

    fn lend_large(&mut self) -> Option<Buffer> {
        if self.large_lent == LARGE_LENT_MAX {
            return None;
        }
        self.large_lent += 1;
        Some(Buffer(self.large.pop().unwrap_or_else(|| Storage::new(LARGE))))
    }

    fn take_back(&mut self, storage: Storage) {
        let (kept, most) = match storage.bytes.len() {
            LARGE => {
                self.large_lent -= 1;
                (&mut self.large, LARGE_KEPT)
            }
            RECORD_MAX => (&mut self.record, RECORD_KEPT),
            _ => (&mut self.small, SMALL_KEPT),
        };
        if kept.len() < most {
            kept.push(storage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_lent_again_and_large_ones_are_bounded() {
        let lent: Vec<Buffer> = (0..=LARGE_LENT_MAX).map(|_| Buffer::lend(Size::Large)).collect();
        let large = lent.iter().filter(|buffer| buffer.size() == Size::Large).count();
        assert_eq!(large, LARGE_LENT_MAX);
        assert!(Buffer::lend_large().is_none());
        // A record that needs one gets one, and no more than that.
        let records: Vec<Buffer> = (0..=RECORD_KEPT).map(|_| Buffer::lend(Size::Record)).collect();
        assert!(records.iter().all(|buffer| buffer.capacity() == RECORD_MAX));
        drop((lent, records));
        POOL.with_borrow(|pool| {
            assert_eq!((pool.large_lent, pool.large.len()), (0, LARGE_KEPT));
            assert_eq!((pool.small.len(), pool.record.len()), (1, RECORD_KEPT));
        });
    }

    #[test]
    fn what_is_written_is_not_written_again() {
        let mut buffer = Buffer::lend(Size::Small);
        buffer.part_mut(0..6).copy_from_slice(b"abcdef");
        buffer.push_unwritten(0..2);
        buffer.push_unwritten(4000..4000);
        buffer.push_unwritten(4096..8192);
        buffer.written(3);
        assert_eq!(buffer.unwritten(), 4095);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(buffer.unwritten_slices(&mut slices), 1);
        assert_eq!(slices[0].len(), 4095);
        buffer.written(4095);
        assert!(!buffer.has_unwritten());
    }

    /// Thousands of parts of one byte are one write.
    #[test]
    fn small_parts_are_moved_up_to_the_part_before_them() {
        let mut buffer = Buffer::lend(Size::Small);
        for (byte, number) in buffer.bytes_mut().iter_mut().zip(0_u8..=255) {
            *byte = number;
        }
        for start in [3, 23, 43] {
            buffer.push_unwritten(start..start + 1);
        }
        buffer.push_unwritten(60..63);
        buffer.push_unwritten(100..100 + MOVED_UP + 1);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(buffer.unwritten_slices(&mut slices), 2);
        assert_eq!(&*slices[0], [3, 23, 43, 60, 61, 62]);
        assert_eq!(slices[1].len(), MOVED_UP + 1);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn no_part_that_is_not_there_is_written() {
        let mut buffer = Buffer::lend(Size::Small);
        let end = buffer.capacity() + 1;
        buffer.push_unwritten(0..end);
        let _parts = buffer.unwritten_slices(&mut [IoSlice::new(&[]); 4]);
    }

    #[test]
    #[should_panic(expected = "more is written than there was")]
    fn no_more_is_written_than_there_was() {
        let mut buffer = Buffer::lend(Size::Small);
        buffer.push_unwritten(0..2);
        buffer.written(3);
    }
}
