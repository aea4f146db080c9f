//! Attacks on the bytes: flip, cut, replay, reorder, reflect.

use super::*;

#[test]
fn every_flipped_bit_of_message_1_is_refused() {
    for suite in Suite::ALL {
        let (_, message) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
        for bit in 0..MESSAGE_1 * 8 {
            let mut altered = message;
            altered[bit / 8] ^= 1 << (bit % 8);
            let result = Responder::accept(&altered, [&key(1)], None, &mut SysRng);
            assert!(result.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_message_2_is_refused() {
    let suite = Suite::ChaCha20Poly1305;
    for bit in 0..MESSAGE_2 * 8 {
        let (initiator, message_1) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
        let responder = Responder::accept(&message_1, [&key(1)], None, &mut SysRng).unwrap();
        let mut altered = responder.reply;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(initiator.finish(&altered).is_err(), "bit {bit}");
    }
}

/// An altered suite does not lead to a weaker handshake: the tag fails.
#[test]
fn the_suite_cannot_be_downgraded() {
    let (_, mut message) = Initiator::start(Suite::Aes256Gcm, &key(1), &mut SysRng).unwrap();
    message[0] = Suite::ChaCha20Poly1305.byte();
    let refused = Responder::accept(&message, [&key(1)], None, &mut SysRng).err();
    assert_eq!(refused, Some(HandshakeError::WrongKey));
}

#[test]
fn a_key_that_differs_in_one_byte_does_not_fit() {
    let (_, message) = Initiator::start(Suite::Aes256Gcm, &key(1), &mut SysRng).unwrap();
    let mut file = [1; 32];
    file[31] ^= 1;
    let other = SharedKey::from_key_file(&file, Box::new([0; 32])).unwrap();
    assert_ne!(other.id(), key(1).id());
    let refused = Responder::accept(&message, [&other], None, &mut SysRng).err();
    assert_eq!(refused, Some(HandshakeError::WrongKey));
}

/// Points of small order make the result all zeros. Only a holder of the key can make the
/// tag before them, so the attacker here holds the key.
#[test]
fn a_degenerate_public_key_ends_the_handshake() {
    let message = keyed_message(Suite::Aes256Gcm, &key(1), [0; 32]);
    let refused = Responder::accept(&message, [&key(1)], None, &mut SysRng).err();
    assert_eq!(refused, Some(HandshakeError::DegenerateKey));
}

/// Message 1 may be replayed where it is not known. Each time it gets one reply, and a
/// session in which nothing that the attacker has recorded is valid.
#[test]
fn a_replayed_handshake_never_opens() {
    let (initiator, message_1) = Initiator::start(Suite::Aes256Gcm, &key(1), &mut SysRng).unwrap();
    let first = Responder::accept(&message_1, [&key(1)], None, &mut SysRng).unwrap();
    let recorded = initiator.finish(&first.reply).unwrap().sealer.seal_open().unwrap();
    let mut replay = Responder::accept(&message_1, [&key(1)], None, &mut SysRng).unwrap();
    assert_ne!(replay.reply, first.reply);
    let opened = replay.session.opener.open(&mut recorded.clone());
    assert_eq!(opened, Err(OpenError::AuthenticationFailed));
}

#[test]
fn a_replayed_record_is_refused() {
    let (mut a, mut b) = streaming(Suite::Aes256Gcm);
    let record = data(&mut a.sealer, b"once");
    assert_eq!(open(&mut b.opener, &record).unwrap(), b"once");
    assert_eq!(open(&mut b.opener, &record), Err(OpenError::AuthenticationFailed));
}

#[test]
fn swapped_records_are_refused() {
    let (mut a, mut b) = streaming(Suite::Aes256Gcm);
    let (_first, second) = (data(&mut a.sealer, b"1"), data(&mut a.sealer, b"2"));
    assert_eq!(open(&mut b.opener, &second), Err(OpenError::AuthenticationFailed));
}

#[test]
fn a_reflected_record_is_refused() {
    let (mut a, _b) = streaming(Suite::Aes256Gcm);
    let record = data(&mut a.sealer, b"mine");
    assert_eq!(open(&mut a.opener, &record), Err(OpenError::AuthenticationFailed));
}

#[test]
fn an_opener_that_failed_once_fails_for_ever() {
    let (mut a, mut b) = streaming(Suite::Aes256Gcm);
    let good = data(&mut a.sealer, b"good");
    let mut bad = good.clone();
    bad[5] ^= 1;
    assert_eq!(open(&mut b.opener, &bad), Err(OpenError::AuthenticationFailed));
    assert_eq!(open(&mut b.opener, &good), Err(OpenError::Failed));
    assert_eq!(b.opener.record_length(&good), Err(OpenError::Failed));
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    for (length, before_open) in [(0, false), (16, false), (20, true), (65_535, true)] {
        let (a, b) =
            if before_open { sessions(Suite::Aes256Gcm) } else { streaming(Suite::Aes256Gcm) };
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
    let open_record: Make = |sealer| sealer.seal_open().unwrap().to_vec();
    let opened: Make = |sealer| sealer.seal_opened().unwrap().to_vec();
    let end: Make = |sealer| sealer.seal_end().unwrap().to_vec();
    let done: Make = |sealer| sealer.seal_done().unwrap().to_vec();
    let abort: Make = |sealer| sealer.seal_abort(AbortReason::LocalPeerReset).unwrap().to_vec();
    let byte: Make = |sealer| data(sealer, b"x");
    let empty_padded: Make = |sealer| {
        let mut record = [0; RECORD_MAX_BEFORE_OPEN];
        sealer.seal_padded(&mut record, 0).unwrap();
        record.to_vec()
    };
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
        let (mut a, mut b) = sessions(Suite::Aes256Gcm);
        let (last, before) = sequence.split_last().unwrap();
        for make in before {
            b.opener.open(&mut make(&mut a.sealer)).unwrap();
        }
        let result = b.opener.open(&mut last(&mut a.sealer));
        assert_eq!(result, Err(OpenError::Violation), "sequence {index}");
    }
    // The first record to the initiator.
    for make in [open_record, end, done, byte, empty_padded] {
        let (mut a, mut b) = sessions(Suite::Aes256Gcm);
        let result = a.opener.open(&mut make(&mut b.sealer));
        assert_eq!(result, Err(OpenError::Violation));
    }
}

#[test]
fn padding_that_is_not_zeros_or_counts_too_much_is_a_violation() {
    // kind 6, then: a count of 9 for 2 bytes; a 1 behind the data; no count.
    for plain in [&[6, 0, 9, 1, 1][..], &[6, 0, 1, 1, 1], &[6, 0], &[6], &[7], &[0], &[5], &[1, 0]]
    {
        let (mut a, mut b) = streaming(Suite::Aes256Gcm);
        let mut record = a.sealer.seal_raw(plain);
        assert_eq!(b.opener.open(&mut record), Err(OpenError::Violation), "{plain:?}");
    }
}
