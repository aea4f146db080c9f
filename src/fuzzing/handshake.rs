//! The handshake: what a stranger can send to each end.

use super::input::{Input, Seeded};
use crate::protocol::testing::{OPEN, OPENED, keyed_message};
use crate::protocol::{
    Accepted, Cipher, Extensions, Greeting, HandshakeError, Initiator, KEY_SECRETS, Kex, LooksLike,
    MESSAGE_1_MAX, PREFIX, Record, Responder, SUFFIX, Session, SharedKey, Suite,
};

/// To a responder: any bytes, or a genuine message in which some were changed. It is
/// accepted if it is the genuine one, and told apart from all others by the reason.
pub fn message_1(data: &[u8]) {
    let _any_bytes_look_like_something = LooksLike::of(data).to_string();
    let mut input = Input::new(data);
    let suite = Suite::ALL[input.below(4)];
    let accepted = Accepted {
        kex: [None, Some(Kex::X25519), Some(Kex::X25519MlKem768)][input.below(3)],
        cipher: [None, Some(Cipher::ChaCha20Poly1305), Some(Cipher::Aes256Gcm)][input.below(3)],
    };
    let mut random = Seeded::new(data);
    let (key, other) = (new_key(&mut random), new_key(&mut random));
    let keys = if input.choice() { vec![&other, &key] } else { vec![&other] };
    let (initiator, genuine) = Initiator::start(suite, &key, &mut random).unwrap();
    let mut message = genuine.clone();
    match input.byte() % 4 {
        0 => return keyed(suite, &key, input),
        1 => input.alter(&mut message),
        2 => message.truncate(input.number()),
        _ => message = input.take(MESSAGE_1_MAX + 2).to_vec(),
    }
    let expected = expected(&message, accepted).or_else(|| {
        let fits = message == genuine && keys.len() == 2;
        (!fits).then_some(HandshakeError::WrongKey)
    });
    let greeting = Greeting::read(&message, keys.iter().copied(), accepted);
    assert_eq!(greeting.as_ref().err(), expected.as_ref());
    if let Ok(greeting) = greeting {
        let responder = greeting.answer(&mut random).unwrap();
        assert_eq!(responder.key_id, key.id());
        talk(initiator.finish(&responder.reply).unwrap(), responder.session);
    }
}

fn new_key(random: &mut Seeded) -> SharedKey {
    SharedKey::from_key_file(&random.array::<32>(), Box::new([0; KEY_SECRETS])).unwrap()
}

/// Why a message is refused before a key is tried.
fn expected(message: &[u8], accepted: Accepted) -> Option<HandshakeError> {
    let (kex, cipher, length) = match message.first() {
        None => return Some(HandshakeError::Length),
        Some(2) => (Kex::X25519, Cipher::ChaCha20Poly1305, 57),
        Some(3) => (Kex::X25519, Cipher::Aes256Gcm, 57),
        Some(4) => (Kex::X25519MlKem768, Cipher::ChaCha20Poly1305, 1257),
        Some(5) => (Kex::X25519MlKem768, Cipher::Aes256Gcm, 1257),
        Some(_) => return Some(HandshakeError::NotOurs),
    };
    if message.len() != length {
        Some(HandshakeError::Length)
    } else if accepted.kex.is_some_and(|only| only != kex) {
        Some(HandshakeError::KexRefused(kex))
    } else if accepted.cipher.is_some_and(|only| only != cipher) {
        Some(HandshakeError::CipherRefused(cipher))
    } else {
        None
    }
}

/// Whoever holds the key can send any public keys; one of small order is refused, and a KEM
/// key with a coefficient above the modulus.
fn keyed(suite: Suite, key: &SharedKey, mut input: Input<'_>) {
    let (mut public, mut kem) = ([0; 32], [0; 1184]);
    for part in [&mut public[..], &mut kem] {
        let given = input.take(part.len());
        part[..given.len()].copy_from_slice(given);
    }
    let message = keyed_message(suite, key, public, &kem);
    let accepted =
        Responder::accept(&message, [key], Accepted::default(), &mut Seeded::new(&public));
    // 0 and 1; the top bit does not count.
    let mut small = [0; 32];
    (small[0], small[31]) = (public[0] & 1, public[31] & 0x80);
    let is_small = public == small;
    let coefficients = kem[..1152].chunks(3).flat_map(|three| {
        let [a, b, c] = [three[0], three[1], three[2]].map(u16::from);
        [a | (b & 0xf) << 8, b >> 4 | c << 4]
    });
    let is_valid = suite.kex == Kex::X25519 || coefficients.max() < Some(3329);
    let expected = match (is_small, is_valid) {
        (true, _) => Some(HandshakeError::DegenerateKey),
        (false, false) => Some(HandshakeError::InvalidKemKey),
        (false, true) => None,
    };
    assert_eq!(accepted.err(), expected);
}

/// To an initiator: any bytes, or a genuine answer in which some were changed.
pub fn message_2(data: &[u8]) {
    let mut input = Input::new(data);
    let suite = Suite::ALL[input.below(4)];
    let mut random = Seeded::new(data);
    let key = new_key(&mut random);
    let (initiator, message_1) = Initiator::start(suite, &key, &mut random).unwrap();
    let responder =
        Responder::accept(&message_1, [&key], Accepted::default(), &mut random).unwrap();
    let mut answer = responder.reply.clone();
    match input.byte() % 3 {
        0 => input.alter(&mut answer),
        1 => answer.truncate(input.number()),
        _ => answer = input.take(suite.message_2() + 2).to_vec(),
    }
    match initiator.finish(&answer) {
        Ok(session) => {
            assert_eq!(answer, responder.reply);
            talk(session, responder.session);
        }
        Err(HandshakeError::Length) => assert_ne!(answer.len(), responder.reply.len()),
        Err(error) => {
            assert_ne!(answer, responder.reply);
            assert!(matches!(error, HandshakeError::WrongKey | HandshakeError::DegenerateKey));
        }
    }
}

/// Both ends have the same keys.
fn talk(mut initiator: Session, mut responder: Session) {
    assert_eq!(initiator.suite, responder.suite);
    assert_eq!(initiator.connection_id, responder.connection_id);
    let mut record = initiator.sealer.seal_open(Extensions::default()).unwrap();
    assert_eq!(responder.opener.open(&mut record), Ok(OPEN));
    let mut record = responder.sealer.seal_opened().unwrap();
    assert_eq!(initiator.opener.open(&mut record), Ok(OPENED));
    for (from, to) in [
        (&mut initiator.sealer, &mut responder.opener),
        (&mut responder.sealer, &mut initiator.opener),
    ] {
        let mut record = [7; PREFIX + 1 + SUFFIX];
        from.seal_data(&mut record).unwrap();
        assert_eq!(to.open(&mut record), Ok(Record::Data(PREFIX..PREFIX + 1)));
        assert_eq!(record[PREFIX], 7);
    }
}
