//! Records between two ends of spiped: any bytes in any pieces arrive.

use proptest::prelude::*;

use super::*;

const CHACHA: Suite = Suite { kex: Kex::X25519, cipher: Cipher::ChaCha20Poly1305 };

/// Opens all whole records at the head of `wire`, and leaves the rest there.
fn drain(opener: &mut Opener, wire: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, OpenError> {
    while let Some(length) = opener.record_length(wire)? {
        if wire.len() < length {
            break;
        }
        let rest = wire.split_off(length);
        let mut record = std::mem::replace(wire, rest);
        match opener.open(&mut record)? {
            Record::Data(range) => out.extend_from_slice(&record[range]),
            Record::End => return Ok(true),
            other => panic!("unexpected {other:?}"),
        }
    }
    Ok(false)
}

/// Seals `bytes` in pieces of the given sizes (then the rest), and END.
fn sealed(sealer: &mut Sealer, bytes: &[u8], sizes: &[usize], padding: Option<usize>) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(60_000));
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        rest = tail;
        match padding {
            None => wire.extend(data(sealer, piece)),
            Some(multiple) => {
                let plain = (PREFIX - HEADER + PADDED_COUNT + piece.len())
                    .next_multiple_of(multiple)
                    .min(RECORD_MAX - HEADER - SUFFIX);
                let mut record = vec![0xff; HEADER + plain + SUFFIX];
                let start = PREFIX + PADDED_COUNT;
                record[start..start + piece.len()].copy_from_slice(piece);
                sealer.seal_padded(&mut record, piece.len()).unwrap();
                wire.extend(record);
            }
        }
    }
    wire.extend(sealer.seal_end().unwrap());
    wire
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_of_any_bytes_arrives_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..200_000),
        seals in proptest::collection::vec(1_usize..65_519, 0..20),
        reads in proptest::collection::vec(1_usize..70_000, 1..50),
        padding in proptest::option::of(2_usize..16_385),
        gcm in any::<bool>(),
    ) {
        let suite = if gcm { GCM } else { CHACHA };
        let (mut a, mut b) = streaming(suite);
        let seals: Vec<usize> = seals.into_iter().map(|size| {
            if padding.is_some() { size.min(49_000) } else { size.min(RECORD_MAX - OVERHEAD) }
        }).collect();
        let wire = sealed(&mut a.sealer, &bytes, &seals, padding);
        let (mut arrived, mut pending, mut ended) = (Vec::new(), Vec::new(), false);
        let (mut rest, mut reads) = (wire.as_slice(), reads.iter().cycle());
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at((*reads.next().unwrap()).min(rest.len()));
            rest = tail;
            pending.extend_from_slice(chunk);
            ended = drain(&mut b.opener, &mut pending, &mut arrived).unwrap();
        }
        prop_assert!(ended && pending.is_empty());
        prop_assert!(arrived == bytes, "{} bytes came for {}", arrived.len(), bytes.len());
    }

    #[test]
    fn any_altered_byte_or_cut_ends_in_an_error_and_never_in_a_clean_end(
        bytes in proptest::collection::vec(any::<u8>(), 1..3_000),
        seals in proptest::collection::vec(1_usize..900, 0..5),
        at in any::<prop::sample::Index>(),
        flip in proptest::option::of(1_u8..=255),
    ) {
        let (mut a, mut b) = streaming(GCM);
        let mut wire = sealed(&mut a.sealer, &bytes, &seals, None);
        let at = at.index(wire.len());
        match flip {
            Some(flip) => wire[at] ^= flip,
            None => wire.truncate(at),
        }
        let mut arrived = Vec::new();
        let result = drain(&mut b.opener, &mut wire, &mut arrived);
        // A cut, or a length made longer, leaves the stream without its END.
        prop_assert_ne!(result, Ok(true));
        prop_assert!(bytes.starts_with(&arrived));
        prop_assert!(arrived.len() < bytes.len() || at >= OVERHEAD + bytes.len());
        if result.is_err() {
            let next = a.sealer.seal_end().unwrap();
            prop_assert_eq!(b.opener.open(&mut next.clone()), Err(OpenError::Failed));
        }
    }
}

#[test]
fn the_largest_record_passes_and_a_larger_one_is_not_made() {
    let (mut a, mut b) = streaming(CHACHA);
    let body = vec![7; RECORD_MAX - OVERHEAD];
    let record = data(&mut a.sealer, &body);
    assert_eq!(record.len(), RECORD_MAX);
    assert_eq!(open(&mut b.opener, &record).unwrap(), body);
    assert_eq!(a.sealer.seal_data(&mut vec![0; RECORD_MAX + 1]), Err(SealError::Size));
    assert_eq!(a.sealer.seal_data(&mut [0; OVERHEAD]), Err(SealError::Size));
    assert_eq!(a.sealer.seal_padded(&mut [0; 30], 10), Err(SealError::Size));
}

#[test]
fn a_session_can_be_made_ready_and_opened_later() {
    let (mut a, mut b) = sessions(GCM);
    assert_eq!(b.opener.open(&mut a.sealer.seal_ready().unwrap()), Ok(Record::Ready));
    assert_eq!(b.opener.open(&mut a.sealer.seal_open(Extensions::default()).unwrap()), Ok(OPEN));
}

#[test]
fn r4_aborts_carry_their_reason() {
    for byte in 0..=255 {
        let (mut a, mut b) = streaming(GCM);
        let reason = AbortReason::from_byte(byte);
        assert_eq!(reason.byte(), byte);
        let mut record = a.sealer.seal_abort(reason).unwrap();
        assert_eq!(b.opener.open(&mut record), Ok(Record::Abort(reason)));
    }
}

/// Each by what stands in no other's.
#[test]
fn reasons_are_told_apart() {
    let texts = [
        (1, "refused"),
        (2, "in time"),
        (3, "cannot be reached"),
        (4, "connection limit"),
        (5, "reset"),
        (6, "shutting down"),
        (7, "another key"),
        (8, "not understand"),
        (9, "not offer"),
        (10, "revoked"),
        (98, "reason 98"),
        (255, "reason 255"),
    ];
    for (byte, part) in texts {
        let told = |byte| AbortReason::from_byte(byte).to_string().contains(part);
        assert_eq!((0..=255).filter(|byte| told(*byte)).collect::<Vec<_>>(), [byte]);
    }
}

#[test]
fn paddings_have_bounds() {
    for wrong in [0, 1, 16_385, u16::MAX] {
        assert_eq!(Padding::new(wrong), Err(PaddingError));
    }
    for right in [2, 512, 16_384] {
        assert_eq!(Padding::new(right).map(Padding::get), Ok(right.into()));
    }
}

/// As `--cipher` and `--kex` name them.
#[test]
fn suites_are_told_apart() {
    assert_eq!(Kex::X25519.to_string(), "x25519");
    assert_eq!(Kex::X25519MlKem768.to_string(), "x25519mlkem768");
    assert_eq!(HYBRID.to_string(), "x25519mlkem768, aes-256-gcm");
    for suite in Suite::ALL {
        assert_eq!(Suite::from_byte(suite.byte()), Some(suite));
    }
    let named = (0..=255).filter_map(Suite::from_byte).count();
    assert_eq!(named, Suite::ALL.len());
    assert_eq!(Cipher::Aes256Gcm.to_string(), "aes-256-gcm");
    assert_eq!(Cipher::ChaCha20Poly1305.to_string(), "chacha20-poly1305");
}
