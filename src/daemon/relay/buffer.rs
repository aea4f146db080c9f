//! Buffers, lent by a pool of the thread only while bytes move, so that an idle connection
//! holds none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::Range;

use crate::protocol::{OVERHEAD, RECORD_MAX};

/// The longest plaintext of a record that spiped sends: 16 KiB and the kind's byte.
pub(crate) const RECORD_PLAINTEXT: usize = 1 + 16 * 1024;
/// The length of such a record on the wire.
pub(crate) const RECORD: usize = RECORD_PLAINTEXT + OVERHEAD - 1;
/// How many such records a large buffer has room for.
pub(crate) const RECORDS: usize = 16;

/// The size of a small buffer: an OPEN and a full record.
pub(crate) const SMALL: usize = OVERHEAD + RECORD;
/// The size of a large buffer: an OPEN and sixteen full records, 256 KiB. Larger ones do
/// not lower the cost per byte.
const LARGE: usize = OVERHEAD + RECORDS * RECORD;

/// The most large buffers that a thread lends at once. Beyond that flows get small ones, so
/// that thousands of stalled connections cannot hold 256 KiB each.
const LARGE_LENT_MAX: usize = 128;
/// The most unused buffers of each size that a thread keeps.
const SMALL_KEPT: usize = 64;
const RECORD_KEPT: usize = 8;
const LARGE_KEPT: usize = 8;

/// Parts up to this length are moved up to the part before them, which costs less than a
/// part of its own in the write.
const MOVED_UP: usize = 1024;

/// The size of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Small,
    /// Room for the largest possible record, 64 KiB. spiped's own records are smaller: only
    /// a record of another implementation needs it.
    Record,
    Large,
}

/// A buffer of the pool. Guard: gives the buffer back when dropped.
///
/// A buffer may still hold bytes of another connection. Therefore only bytes that were
/// filled since it was lent can be read or written.
pub(crate) struct Buffer {
    storage: Storage,
    /// How many bytes, from the first one, were filled since the buffer was lent.
    filled: usize,
}

/// The memory of a buffer, and the parts of it that are still to be written.
#[derive(Default)]
struct Storage {
    bytes: Box<[u8]>,
    /// Kept with the bytes in the pool, so that it is allocated once.
    unwritten: VecDeque<Range<usize>>,
}

struct BufferPool {
    small: Vec<Storage>,
    record: Vec<Storage>,
    large: Vec<Storage>,
    large_lent: usize,
}

thread_local! {
    static POOL: RefCell<BufferPool> = const {
        RefCell::new(BufferPool {
            small: Vec::new(),
            record: Vec::new(),
            large: Vec::new(),
            large_lent: 0,
        })
    };
}

impl Size {
    /// The size for the next read, after a read of `count` bytes into room for `wanted`.
    pub(crate) const fn after(count: usize, wanted: usize) -> Self {
        if count == wanted || count > SMALL { Self::Large } else { Self::Small }
    }
}

impl Buffer {
    /// Lends a buffer of that size, or a small one when too many large ones are lent.
    pub(crate) fn lend(size: Size) -> Self {
        POOL.with_borrow_mut(|pool| match size {
            Size::Small => pool.lend_small(),
            Size::Record => pool.lend_record(),
            Size::Large => pool.lend_large().unwrap_or_else(|| pool.lend_small()),
        })
    }

    /// Lends a large buffer, unless too many are lent.
    pub(crate) fn lend_large() -> Option<Self> {
        POOL.with_borrow_mut(BufferPool::lend_large)
    }

    pub(crate) fn size(&self) -> Size {
        match self.storage.bytes.len() {
            LARGE => Size::Large,
            RECORD_MAX => Size::Record,
            _ => Size::Small,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.storage.bytes.len()
    }

    /// How many bytes, from the first one, are filled.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Reads into the room behind the filled bytes; `read` returns how many bytes it has
    /// put there.
    ///
    /// # Panics
    /// When `read` returns more than there is room for.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let count = read(&mut self.storage.bytes[self.filled..])?;
        self.filled += count.unwrap_or(0);
        assert!(self.filled <= self.capacity(), "more is read than there was room for");
        Ok(count)
    }

    /// Replaces the content by `bytes`.
    ///
    /// # Panics
    /// When `bytes` do not fit, or something is still to be written.
    pub(crate) fn fill_with(&mut self, bytes: &[u8]) {
        assert!(!self.has_unwritten(), "what is still to be written would be lost");
        self.storage.bytes[..bytes.len()].copy_from_slice(bytes);
        self.filled = bytes.len();
    }

    /// Replaces the content by a part of it.
    ///
    /// # Panics
    /// When the part is not filled, or something is still to be written.
    pub(crate) fn keep(&mut self, part: Range<usize>) {
        assert!(part.end <= self.filled, "a part that was not filled");
        assert!(!self.has_unwritten(), "what is still to be written would be lost");
        self.filled = part.len();
        self.storage.bytes.copy_within(part, 0);
    }

    /// All of the memory, filled or not: only for the record layout, which tells by
    /// [`Buffer::sealed`] how many bytes its records have overwritten.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.storage.bytes
    }

    /// Marks the first `count` bytes as filled with records that are to be written.
    pub(super) fn sealed(&mut self, count: usize) {
        self.filled = count;
        self.push_unwritten(0..count);
    }

    /// A part of the filled bytes.
    ///
    /// # Panics
    /// When the part is not filled: a wrong range is our own mistake, and must end the
    /// connection before it becomes bytes of a stream.
    pub(crate) fn part(&self, part: Range<usize>) -> &[u8] {
        &self.storage.bytes[..self.filled][part]
    }

    /// As [`Buffer::part`], mutable.
    pub(crate) fn part_mut(&mut self, part: Range<usize>) -> &mut [u8] {
        &mut self.storage.bytes[..self.filled][part]
    }

    /// Adds a part that is to be written. It must stand behind the parts that were added
    /// before.
    ///
    /// # Panics
    /// When the part is not filled.
    pub(crate) fn push_unwritten(&mut self, part: Range<usize>) {
        assert!(part.end <= self.filled, "a part that was not filled");
        match self.storage.unwritten.back_mut() {
            _ if part.is_empty() => {}
            Some(last) if part.len() <= MOVED_UP => {
                let end = last.end + part.len();
                self.storage.bytes.copy_within(part, last.end);
                last.end = end;
            }
            _ => self.storage.unwritten.push_back(part),
        }
    }

    /// Whether something is still to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.storage.unwritten.is_empty()
    }

    /// How many bytes are still to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.storage.unwritten.iter().map(Range::len).sum()
    }

    /// Fills `slices` with the next parts to be written, and returns how many there are.
    pub(crate) fn unwritten_slices<'b>(&'b self, slices: &mut [IoSlice<'b>]) -> usize {
        let parts = self.storage.unwritten.iter().map(|part| self.part(part.clone()));
        slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    /// Marks the first `count` unwritten bytes as written.
    ///
    /// # Panics
    /// When fewer are unwritten.
    pub(crate) fn written(&mut self, mut count: usize) {
        while let Some(part) = self.storage.unwritten.front_mut() {
            let length = part.len();
            if count < length {
                part.start += count;
                return;
            }
            count -= length;
            self.storage.unwritten.pop_front();
        }
        assert!(count == 0, "more is written than there was to write");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut storage = mem::take(&mut self.storage);
        storage.unwritten.clear();
        // When the thread is ending, there is no pool, and the memory is freed.
        let _no_pool = POOL.try_with(|pool| pool.borrow_mut().take_back(storage));
    }
}

impl Storage {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), unwritten: VecDeque::new() }
    }

    const fn lent(self) -> Buffer {
        Buffer { storage: self, filled: 0 }
    }
}

impl BufferPool {
    fn lend_small(&mut self) -> Buffer {
        self.small.pop().unwrap_or_else(|| Storage::new(SMALL)).lent()
    }

    /// Not limited: only a flow that has received more of a record than fits into a small
    /// buffer needs one.
    fn lend_record(&mut self) -> Buffer {
        self.record.pop().unwrap_or_else(|| Storage::new(RECORD_MAX)).lent()
    }

    fn lend_large(&mut self) -> Option<Buffer> {
        if self.large_lent == LARGE_LENT_MAX {
            return None;
        }
        self.large_lent += 1;
        Some(self.large.pop().unwrap_or_else(|| Storage::new(LARGE)).lent())
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
    fn each_size_is_lent_as_it_is_asked_for() {
        let sizes = [(Size::Small, SMALL), (Size::Record, RECORD_MAX), (Size::Large, LARGE)];
        for (size, capacity) in sizes {
            let buffer = Buffer::lend(size);
            assert_eq!((buffer.size(), buffer.capacity()), (size, capacity));
        }
        assert_eq!(Buffer::lend_large().map(|buffer| buffer.size()), Some(Size::Large));
        // A quarter MiB, as is said of them elsewhere.
        assert_eq!((SMALL / 1024, LARGE / 1024), (16, 256));
    }

    /// A flow that fills its buffers, or has filled more than a small one, gets a large one.
    #[test]
    fn the_next_size_follows_from_the_last_read() {
        let large = [(SMALL, SMALL), (1, 1), (SMALL + 1, LARGE), (LARGE, LARGE)];
        let small = [(SMALL - 1, SMALL), (1, SMALL), (SMALL, LARGE), (1, LARGE)];
        assert!(large.iter().all(|(count, wanted)| Size::after(*count, *wanted) == Size::Large));
        assert!(small.iter().all(|(count, wanted)| Size::after(*count, *wanted) == Size::Small));
    }

    /// A small buffer, filled with the numbers 0, 1, 2, ….
    fn full() -> Buffer {
        let mut buffer = Buffer::lend(Size::Small);
        let count = |room: &mut [u8]| {
            room.iter_mut().zip((0_u8..=255).cycle()).for_each(|(byte, number)| *byte = number);
            Ok(Some(room.len()))
        };
        buffer.fill(count).unwrap();
        buffer
    }

    #[test]
    fn what_is_written_is_not_written_again() {
        let mut buffer = full();
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
        let mut buffer = full();
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
    fn what_is_kept_stands_at_the_beginning() {
        let mut buffer = full();
        buffer.keep(5..8);
        assert_eq!((buffer.filled(), buffer.part(0..3)), (3, &[5, 6, 7][..]));
        buffer.fill_with(b"ab");
        buffer
            .fill(|room| {
                room[0] = b'c';
                Ok(Some(1))
            })
            .unwrap();
        assert_eq!(buffer.part(0..buffer.filled()), b"abc");
    }

    /// A buffer may be lent to another connection next.
    #[test]
    fn what_was_in_a_buffer_is_out_of_reach_once_it_is_lent_again() {
        drop(full());
        for reach in [
            |buffer: &mut Buffer| drop(buffer.part(0..1).to_vec()),
            |buffer: &mut Buffer| buffer.part_mut(0..1).fill(0),
            |buffer: &mut Buffer| buffer.push_unwritten(0..1),
            |buffer: &mut Buffer| buffer.keep(0..1),
        ] {
            let mut buffer = Buffer::lend(Size::Small);
            assert!(buffer.storage.bytes.contains(&255), "it is the buffer of before");
            let reached = std::panic::AssertUnwindSafe(|| reach(&mut buffer));
            assert!(std::panic::catch_unwind(reached).is_err());
        }
    }

    #[test]
    #[should_panic(expected = "more is written than there was")]
    fn no_more_is_written_than_there_was() {
        let mut buffer = full();
        buffer.push_unwritten(0..2);
        buffer.written(3);
    }

    #[test]
    #[should_panic(expected = "more is read than there was room for")]
    fn no_more_is_read_than_there_was_room_for() {
        let mut buffer = Buffer::lend(Size::Small);
        let _count = buffer.fill(|room| Ok(Some(room.len() + 1)));
    }

    #[test]
    #[should_panic(expected = "would be lost")]
    fn what_is_to_be_written_is_not_overwritten() {
        let mut buffer = full();
        buffer.push_unwritten(0..2);
        buffer.fill_with(b"c");
    }
}
