//! Attacks on records: flip, replay, reorder, reflect, and what breaks the rules.

use super::*;

#[test]
fn a_replayed_record_is_refused() {
    let (mut a, mut b) = streaming(GCM);
    let record = data(&mut a.sealer, b"once");
    assert_eq!(open(&mut b.opener, &record).unwrap(), b"once");
    assert_eq!(open(&mut b.opener, &record), Err(OpenError::AuthenticationFailed));
}

#[test]
fn swapped_records_are_refused() {
    let (mut a, mut b) = streaming(GCM);
    let (_first, second) = (data(&mut a.sealer, b"1"), data(&mut a.sealer, b"2"));
    assert_eq!(open(&mut b.opener, &second), Err(OpenError::AuthenticationFailed));
}

#[test]
fn a_reflected_record_is_refused() {
    let (mut a, _b) = streaming(GCM);
    let record = data(&mut a.sealer, b"mine");
    assert_eq!(open(&mut a.opener, &record), Err(OpenError::AuthenticationFailed));
}

#[test]
fn an_opener_that_failed_once_fails_for_ever() {
    let (mut a, mut b) = streaming(GCM);
    let good = data(&mut a.sealer, b"good");
    let mut bad = good.clone();
    bad[5] ^= 1;
    assert_eq!(open(&mut b.opener, &bad), Err(OpenError::AuthenticationFailed));
    assert_eq!(open(&mut b.opener, &good), Err(OpenError::Failed));
    assert_eq!(b.opener.record_length(&good), Err(OpenError::Failed));
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    for (length, before_open) in [(0, false), (16, false), (273, true), (65_535, true)] {
        let (a, b) = if before_open { sessions(GCM) } else { streaming(GCM) };
        let mut opener = if before_open { b.opener } else { a.opener };
        let header = u16::try_from(length).unwrap().to_be_bytes();
        assert_eq!(opener.record_length(&header), Err(OpenError::Length), "{length}");
        assert_eq!(opener.record_length(&[0, 17]), Err(OpenError::Failed));
    }
}

/// A holder of the key who breaks the rules gains nothing.
#[test]
fn records_out_of_place_are_violations() {
    type Make = fn(&mut Sealer) -> Vec<u8>;
    let open_record: Make = |sealer| sealer.seal_open(Extensions::default()).unwrap();
    let opened: Make = |sealer| sealer.seal_opened().unwrap();
    let end: Make = |sealer| sealer.seal_end().unwrap().to_vec();
    let done: Make = |sealer| sealer.seal_done().unwrap().to_vec();
    let abort: Make = |sealer| sealer.seal_abort(AbortReason::LocalPeerReset).unwrap().to_vec();
    let byte: Make = |sealer| data(sealer, b"x");
    let empty_padded: Make = |sealer| sealer.seal_ready().unwrap().to_vec();
    // The records to the responder, from the first one on; the last one is wrong.
    let sequences: [&[Make]; 16] = [
        &[end],
        &[opened],
        &[byte],
        &[empty_padded, empty_padded],
        &[open_record, open_record],
        &[open_record, opened],
        &[open_record, empty_padded],
        &[open_record, byte, end, byte],
        &[open_record, end, end],
        &[done],
        &[open_record, done],
        &[open_record, byte, done],
        &[open_record, end, done, done],
        &[open_record, end, done, end],
        &[open_record, end, done, byte],
        &[open_record, end, done, abort],
    ];
    for (index, sequence) in sequences.iter().enumerate() {
        let (mut a, mut b) = sessions(GCM);
        let (last, before) = sequence.split_last().unwrap();
        for make in before {
            b.opener.open(&mut make(&mut a.sealer)).unwrap();
        }
        let result = b.opener.open(&mut last(&mut a.sealer));
        assert_eq!(result, Err(OpenError::Violation), "sequence {index}");
    }
    // The first record to the initiator.
    for make in [open_record, end, done, byte, empty_padded] {
        let (mut a, mut b) = sessions(GCM);
        let result = a.opener.open(&mut make(&mut b.sealer));
        assert_eq!(result, Err(OpenError::Violation));
    }
}

#[test]
fn padding_that_is_not_zeros_or_counts_too_much_is_a_violation() {
    // kind 6, then: a count of 9 for 2 bytes; a 1 behind the data; no count.
    for plain in
        [&[6, 0, 9, 1, 1][..], &[6, 0, 1, 1, 1], &[6, 0], &[6], &[7], &[0], &[5], &[1, 128, 0]]
    {
        let (mut a, mut b) = streaming(GCM);
        let mut record = a.sealer.seal_raw(plain);
        assert_eq!(b.opener.open(&mut record), Err(OpenError::Violation), "{plain:?}");
    }
}

/// R1: the longest OPEN is read, and nothing longer.
#[test]
fn r1_a_first_record_has_at_most_274_bytes() {
    let (mut a, mut b) = sessions(GCM);
    let extension = [&[1, 100, 253][..], &[7; 253]].concat();
    let mut record = a.sealer.seal_raw(&extension);
    assert_eq!(record.len(), FIRST_RECORD_MAX);
    assert_eq!(b.opener.open(&mut record), Ok(OPEN));
    let (mut a, mut b) = sessions(GCM);
    let mut record = a.sealer.seal_raw(&[&extension[..], &[0]].concat());
    assert_eq!(b.opener.open(&mut record), Err(OpenError::Length));
}

/// R1: one empty PADDED may come first, and no other PADDED.
#[test]
fn r1_a_padded_before_open_is_empty() {
    for wrong in [&[6, 0, 0, 0][..], &[6, 0, 1, b'x'], &[6, 0]] {
        let (mut a, mut b) = sessions(GCM);
        let mut record = a.sealer.seal_raw(wrong);
        assert_eq!(b.opener.open(&mut record), Err(OpenError::Violation), "{wrong:?}");
    }
}

/// R2: a first record of an unknown kind is a later version's, and its sender is told.
#[test]
fn r2_a_first_record_of_an_unknown_kind_is_not_understood() {
    for kind in [0, 12, 255] {
        for is_ready in [false, true] {
            let (mut a, mut b) = sessions(GCM);
            if is_ready {
                b.opener.open(&mut a.sealer.seal_ready().unwrap()).unwrap();
            }
            let mut record = a.sealer.seal_raw(&[kind, 1, 2, 3]);
            assert_eq!(b.opener.open(&mut record), Err(OpenError::NotUnderstood), "{kind}");
            let mut again = a.sealer.seal_open(Extensions::default()).unwrap();
            assert_eq!(b.opener.open(&mut again), Err(OpenError::Failed), "{kind}");
        }
        let (mut a, mut b) = streaming(GCM);
        let mut record = a.sealer.seal_raw(&[kind, 1, 2, 3]);
        assert_eq!(b.opener.open(&mut record), Err(OpenError::Violation), "{kind}");
    }
}

/// X1 and X2, in OPEN and OPENED.
#[test]
fn x2_extensions_are_read_in_both_first_records() {
    for (extension, expected) in [
        (&[9, 1, 1][..], None),
        (&[9, 1], Some(OpenError::Violation)),
        (&[128, 0], Some(OpenError::NotUnderstood)),
    ] {
        let (mut a, mut b) = sessions(GCM);
        let mut open = a.sealer.seal_raw(&[&[1][..], extension].concat());
        assert_eq!(b.opener.open(&mut open).err(), expected);
        let mut opened = b.sealer.seal_raw(&[&[2][..], extension].concat());
        assert_eq!(a.opener.open(&mut opened).err(), expected);
        // In the wrong place they are not looked at.
        let (mut a, mut b) = sessions(GCM);
        let mut opened = a.sealer.seal_raw(&[&[2][..], extension].concat());
        assert_eq!(b.opener.open(&mut opened).err(), Some(OpenError::Violation));
        let mut open = b.sealer.seal_raw(&[&[1][..], extension].concat());
        assert_eq!(a.opener.open(&mut open).err(), Some(OpenError::Violation));
    }
}
