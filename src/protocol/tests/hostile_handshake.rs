//! Attacks on the messages of the handshake: flip, cut, replay, reflect, wrong keys.

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
    let hint_keys = HintKeys::of(&keys, vec![0; keys.len() * HINT_KEY]);
    let among = |message: &[u8]| {
        Greeting::read_among(message, &hint_keys, |number| keys.get(number), Accepted::default())
    };
    for suite in [GCM, HYBRID] {
        for at in [0, 1, 50, 99] {
            let (_, message) = Initiator::start(suite, &keys[at], &mut SysRng).unwrap();
            let found = Responder::accept(&message, &keys, Accepted::default(), &mut SysRng);
            assert_eq!(found.unwrap().key_id, keys[at].id());
            assert_eq!(among(&message).unwrap().key_id(), keys[at].id());
        }
        let (_, message) = Initiator::start(suite, &key(100), &mut SysRng).unwrap();
        let refused = Responder::accept(&message, &keys, Accepted::default(), &mut SysRng).err();
        assert_eq!(refused, Some(HandshakeError::WrongKey));
        assert_eq!(among(&message).err(), Some(HandshakeError::WrongKey));
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
