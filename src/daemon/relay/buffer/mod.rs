//! Buffers, lent by a pool of the thread only while bytes move, so that an idle connection
//! holds none.

pub(super) mod record_layout;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::Range;

use crate::protocol::{OPEN_MAX, OVERHEAD, RECORD_MAX};

/// The longest plaintext of a record that spiped sends: 16 KiB and the kind's byte.
pub(crate) const RECORD_PLAINTEXT: usize = 1 + 16 * 1024;
/// The length of such a record on the wire.
pub(crate) const RECORD: usize = RECORD_PLAINTEXT + OVERHEAD - 1;
/// How many such records a large buffer has room for.
pub(crate) const RECORDS: usize = 16;

/// The size of a small buffer: the longest OPEN and a full record.
pub(crate) const SMALL: usize = OPEN_MAX + RECORD;
/// The size of a large buffer: the longest OPEN and sixteen full records, 256 KiB. Larger ones do
/// not lower the cost per byte.
const LARGE: usize = OPEN_MAX + RECORDS * RECORD;

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

    /// Adds bytes that are to be written, behind all others.
    ///
    /// # Panics
    /// When there is no room for them.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let part = self.filled..self.filled + bytes.len();
        self.storage.bytes[part.clone()].copy_from_slice(bytes);
        self.filled = part.end;
        self.push_unwritten(part);
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

    /// All of the memory, filled or not: only for those who know how many bytes their records
    /// have overwritten; the record layout tells it by [`Buffer::sealed`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.storage.bytes
    }

    /// Marks the first `count` bytes as filled with records that are to be written.
    fn sealed(&mut self, count: usize) {
        assert!(count <= self.capacity(), "more is sealed than there is room for");
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
    /// When the part is not filled, or does not stand behind those parts.
    pub(crate) fn push_unwritten(&mut self, part: Range<usize>) {
        assert!(part.end <= self.filled, "a part that was not filled");
        let last = self.storage.unwritten.back().map_or(0, |last| last.end);
        assert!(part.start >= last, "a part that is to be written already");
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
