//! Buffers, lent by a pool of the thread only while bytes move: an idle
//! connection holds none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::ops::Range;

use crate::protocol::OVERHEAD;

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
const LARGE_KEPT: usize = 8;

/// How large a buffer a flow wants, by how full the last one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
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
    large: Vec<Storage>,
    large_lent: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool { small: Vec::new(), large: Vec::new(), large_lent: 0 })
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
            Size::Large if pool.large_lent < LARGE_LENT_MAX => pool.lend_large(),
            Size::Large | Size::Small => pool.lend_small(),
        })
    }

    /// Borrows a large buffer however many are lent: a record needs it.
    pub(super) fn lend_for_large_record() -> Self {
        POOL.with_borrow_mut(Pool::lend_large)
    }

    pub(super) fn is_large(&self) -> bool {
        self.0.bytes.len() == LARGE
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes
    }

    /// Notes a part of the buffer to be written after those noted before.
    pub(super) fn push_unwritten(&mut self, part: Range<usize>) {
        if !part.is_empty() {
            self.0.unwritten.push_back(part);
        }
    }

    /// Whether something is still to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.0.unwritten.is_empty()
    }

    /// Fills `slices` with the next parts to be written; how many there are.
    pub(super) fn unwritten_slices<'b>(&'b self, slices: &mut [IoSlice<'b>]) -> usize {
        let parts = self.0.unwritten.iter().filter_map(|part| self.0.bytes.get(part.clone()));
        slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    /// The first `count` of the unwritten bytes are written.
    pub(super) fn written(&mut self, mut count: usize) {
        while let Some(part) = self.0.unwritten.front_mut() {
            let length = part.len();
            if count < length {
                part.start = part.start.saturating_add(count);
                return;
            }
            count = count.saturating_sub(length);
            self.0.unwritten.pop_front();
        }
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

    fn lend_large(&mut self) -> Buffer {
        self.large_lent = self.large_lent.saturating_add(1);
        Buffer(self.large.pop().unwrap_or_else(|| Storage::new(LARGE)))
    }

    fn take_back(&mut self, storage: Storage) {
        let (kept, most) = if storage.bytes.len() == LARGE {
            self.large_lent = self.large_lent.saturating_sub(1);
            (&mut self.large, LARGE_KEPT)
        } else {
            (&mut self.small, SMALL_KEPT)
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
        assert_eq!(lent.iter().filter(|buffer| buffer.is_large()).count(), LARGE_LENT_MAX);
        assert!(Buffer::lend_for_large_record().is_large());
        drop(lent);
        POOL.with_borrow(|pool| {
            assert_eq!((pool.large_lent, pool.large.len(), pool.small.len()), (0, LARGE_KEPT, 1));
        });
    }

    #[test]
    fn what_is_written_is_not_written_again() {
        let mut buffer = Buffer::lend(Size::Small);
        buffer.bytes_mut().get_mut(..6).unwrap().copy_from_slice(b"abcdef");
        buffer.push_unwritten(0..2);
        buffer.push_unwritten(3..6);
        buffer.push_unwritten(4..4);
        buffer.written(3);
        assert!(buffer.has_unwritten());
        let mut slices = [IoSlice::new(&[]); 4];
        let count = buffer.unwritten_slices(&mut slices);
        assert_eq!((count, &*slices[0]), (1, b"ef".as_slice()));
        buffer.written(2);
        assert!(!buffer.has_unwritten());
    }
}
