//! Attacks on the bytes: flip, cut, replay, reorder, reflect.

use super::*;

/// Accepts message 1 with a key.
fn accept(message: &[u8], keys: &[&SharedKey]) -> Result<Responder, HandshakeError> {
    Responder::accept(message, keys.iter().copied(), Accepted::default(), &mut SysRng)
}

/// Both messages of a handshake, and the initiator between them.
fn handshake(suite: Suite) -> (Initiator, Vec<u8>, Vec<u8>) {
    let (initiator, message_1) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
    let reply = accept(&message_1, &[&key(1)]).unwrap().reply;
    (initiator, message_1, reply)
}

/// One bit of each byte of the longer messages.
fn flips(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let step = if message.len() > 100 { 9 } else { 1 };
    (0..message.len() * 8).step_by(step).map(|bit| {
        let mut altered = message.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        (bit, altered)
    })
}

#[test]
fn every_flipped_bit_of_message_1_is_refused() {
    for suite in Suite::ALL {
        let (_, message, _) = handshake(suite);
        for (bit, altered) in flips(&message) {
            assert!(accept(&altered, &[&key(1)]).is_err(), "{suite}, bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_message_2_is_refused() {
    for suite in Suite::ALL {
        let length = suite.message_2();
        let bits = (0..length * 8).step_by(if length > 100 { 73 } else { 1 });
        for bit in bits {
            let (initiator, _, mut altered) = handshake(suite);
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(initiator.finish(&altered).is_err(), "{suite}, bit {bit}");
        }
    }
}

#[test]
fn messages_that_are_cut_or_too_long_are_refused() {
    for suite in Suite::ALL {
        let (_, message_1, message_2) = handshake(suite);
        for length in 0..message_1.len() {
            let refused = accept(&message_1[..length], &[&key(1)]).err();
            assert_eq!(refused, Some(HandshakeError::Length), "{suite}, {length} bytes");
        }
        let longer = [&message_1[..], &[0]].concat();
        assert_eq!(accept(&longer, &[&key(1)]).err(), Some(HandshakeError::Length));
        let longer = [&message_2[..], &[0]].concat();
        for wrong in [&[][..], &message_2[1..], &message_2[..message_2.len() - 1], &longer] {
            let (initiator, _, _) = handshake(suite);
            assert_eq!(initiator.finish(wrong).err(), Some(HandshakeError::Length), "{suite}");
        }
    }
}

/// A session of the other exchange is no session: neither end takes a message of it.
#[test]
fn an_answer_of_another_exchange_is_refused() {
    for (suite, other) in [(GCM, HYBRID), (HYBRID, GCM)] {
        let (initiator, _, _) = handshake(suite);
        let (_, _, answer) = handshake(other);
        assert_eq!(initiator.finish(&answer).err(), Some(HandshakeError::Length));
    }
}

/// H6: an altered suite does not lead to a weaker handshake. The hint is another one, and
/// with the hint of the other suite the tag fails.
#[test]
fn h6_the_suite_cannot_be_downgraded() {
    for suite in Suite::ALL {
        for other in Suite::ALL.into_iter().filter(|other| *other != suite) {
            let (_, mut message, _) = handshake(suite);
            message[0] = other.byte();
            message.resize(other.message_1(), 0);
            let e = message[9..41].try_into().unwrap();
            for hint in [message[1..9].try_into().unwrap(), key(1).hint(other, &e)] {
                message[1..9].copy_from_slice(&hint);
                let refused = accept(&message, &[&key(1)]).err();
                assert_eq!(refused, Some(HandshakeError::WrongKey), "{suite} to {other}");
            }
        }
    }
}

#[test]
fn h6_an_exchange_or_cipher_that_is_not_accepted_is_refused() {
    let refused = |suite, accepted| {
        let (_, message_1, _) = handshake(suite);
        Responder::accept(&message_1, [&key(1)], accepted, &mut SysRng).err()
    };
    let hybrid = Accepted { kex: Some(Kex::X25519MlKem768), cipher: None };
    assert_eq!(refused(GCM, hybrid), Some(HandshakeError::KexRefused(Kex::X25519)));
    assert_eq!(refused(HYBRID, hybrid), None);
    let chacha = Accepted { kex: None, cipher: Some(Cipher::ChaCha20Poly1305) };
    assert_eq!(refused(HYBRID, chacha), Some(HandshakeError::CipherRefused(Cipher::Aes256Gcm)));
}

#[test]
fn a_key_that_differs_in_one_byte_does_not_fit() {
    let mut file = [1; 32];
    file[31] ^= 1;
    let other = SharedKey::from_key_file(&file, Box::new([0; KEY_SECRETS])).unwrap();
    assert_ne!(other.id(), key(1).id());
    for suite in Suite::ALL {
        let (_, message, _) = handshake(suite);
        assert_eq!(accept(&message, &[&other]).err(), Some(HandshakeError::WrongKey));
    }
}

/// H2: wherever it stands among the keys, the key of the message is found.
#[test]
fn h2_the_key_of_a_message_is_found_among_many() {
    let keys: Vec<_> = (0..100).map(key).collect();
    for suite in [GCM, HYBRID] {
        for at in [0, 1, 50, 99] {
            let (_, message) = Initiator::start(suite, &keys[at], &mut SysRng).unwrap();
            let found = Responder::accept(&message, &keys, Accepted::default(), &mut SysRng);
            assert_eq!(found.unwrap().key_id, keys[at].id());
        }
        let (_, message) = Initiator::start(suite, &key(100), &mut SysRng).unwrap();
        let refused = Responder::accept(&message, &keys, Accepted::default(), &mut SysRng).err();
        assert_eq!(refused, Some(HandshakeError::WrongKey));
    }
}

/// H2 and H3: a hint that fits is not enough, and neither is the first tag.
#[test]
fn h3_both_tags_have_to_fit() {
    let (_, message, _) = handshake(HYBRID);
    for at in [message.len() - 1, message.len() - 17] {
        let mut altered = message.clone();
        altered[at] ^= 1;
        assert_eq!(accept(&altered, &[&key(1)]).err(), Some(HandshakeError::WrongKey));
        // The message as it was is not harmed by the trial.
        assert!(accept(&message, &[&key(1), &key(1)]).is_ok());
    }
}

/// H1: the hint is new with each message, so that it links nothing, and another one of
/// each suite.
#[test]
fn h1_a_hint_is_of_one_message_alone() {
    let mut hints = std::collections::HashSet::new();
    for suite in Suite::ALL {
        for _ in 0..50 {
            let (_, message) = Initiator::start(suite, &key(1), &mut SysRng).unwrap();
            assert!(hints.insert(message[1..9].to_vec()));
        }
    }
}

/// Points of small order make the result all zeros. Only a holder of the key can make the
/// tag before them, so the attacker here holds the key.
#[test]
fn a_degenerate_public_key_ends_the_handshake() {
    for suite in Suite::ALL {
        let message = keyed_message(suite, &key(1), [0; 32], &[0; 1184]);
        assert_eq!(accept(&message, &[&key(1)]).err(), Some(HandshakeError::DegenerateKey));
    }
}

/// H2: the check of FIPS 203, section 7.2, by a holder of the key.
#[test]
fn h2_an_invalid_kem_key_ends_the_handshake() {
    let message = keyed_message(HYBRID, &key(1), [9; 32], &[0xff; 1184]);
    assert_eq!(accept(&message, &[&key(1)]).err(), Some(HandshakeError::InvalidKemKey));
    let message = keyed_message(HYBRID, &key(1), [9; 32], &[0; 1184]);
    assert!(accept(&message, &[&key(1)]).is_ok());
}

/// H4: each handshake has keys of its own.
#[test]
fn h4_no_two_handshakes_share_a_key() {
    type Messages = (Initiator, Vec<u8>, Vec<u8>);
    let messages: Vec<_> = (0..20).map(|_| handshake(HYBRID)).collect();
    let parts: [fn(&Messages) -> &[u8]; 3] =
        [|all| &all.1[9..41], |all| &all.1[41..1225], |all| &all.2[..32]];
    for part in parts {
        let different: std::collections::HashSet<_> = messages.iter().map(part).collect();
        assert_eq!(different.len(), messages.len());
    }
}

/// Message 1 may be replayed where it is not known. Each time it gets one reply, and a
/// session in which nothing that the attacker has recorded is valid.
#[test]
fn a_replayed_handshake_never_opens() {
    for suite in Suite::ALL {
        let (initiator, message_1, first) = handshake(suite);
        let mut session = initiator.finish(&first).unwrap();
        let recorded = session.sealer.seal_open(Extensions::default()).unwrap();
        let mut replay = accept(&message_1, &[&key(1)]).unwrap();
        assert_ne!(replay.reply, first);
        let opened = replay.session.opener.open(&mut recorded.clone());
        assert_eq!(opened, Err(OpenError::AuthenticationFailed));
    }
}

#[test]
fn a_reflected_message_is_refused() {
    for suite in Suite::ALL {
        let (initiator, message_1, message_2) = handshake(suite);
        let reflected = &message_1[message_1.len() - message_2.len()..];
        assert!(initiator.finish(reflected).is_err());
        let mut message = message_2.clone();
        message.resize(suite.message_1(), 0);
        message[0] = suite.byte();
        assert_eq!(accept(&message, &[&key(1)]).err(), Some(HandshakeError::WrongKey));
    }
}

/// The connection id is the same at both ends, and no other session's.
#[test]
fn both_ends_have_the_same_connection_id() {
    let mut ids = std::collections::HashSet::new();
    for suite in Suite::ALL {
        let (a, b) = sessions(suite);
        assert_eq!(a.connection_id, b.connection_id);
        assert!(ids.insert(a.connection_id));
    }
}

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
    let extension = [&[1, 2, 253][..], &[7; 253]].concat();
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
    for kind in [0, 7, 10, 255] {
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
