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
    // A write of nothing would count as a failed one.
    buffer.push_unwritten(0..0);
    assert!(!buffer.has_unwritten());
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
