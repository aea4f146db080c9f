//! The handshake: what a stranger can send to each end.

use super::input::{Input, Seeded};
use crate::protocol::{
    Greeting, HandshakeError, Initiator, LooksLike, MESSAGE_1, MESSAGE_2, PREFIX, Record,
    Responder, SUFFIX, Session, SharedKey, Suite, keyed_message,
};

/// To a responder: any bytes, or a genuine message in which some were changed. It is
/// accepted if it is the genuine one, and told apart from all others by the reason.
pub fn message_1(data: &[u8]) {
    let _any_bytes_look_like_something = LooksLike::of(data).to_string();
    let mut input = Input::new(data);
    let suite = Suite::ALL[input.below(2)];
    let only = [None, Some(suite), Some(Suite::ALL[0])][input.below(3)];
    let mut random = Seeded::new(data);
    let (key, other) = (new_key(&mut random), new_key(&mut random));
    let keys = if input.choice() { vec![&other, &key] } else { vec![&other] };
    let (initiator, genuine) = Initiator::start(suite, &key, &mut random).unwrap();
    let mut message = genuine;
    match input.byte() % 3 {
        0 => return keyed(suite, &key, input),
        1 => input.alter(&mut message),
        _ => message = any_bytes(input),
    }
    let expected = expected(&message, only).or_else(|| {
        let fits = message == genuine && keys.len() == 2;
        (!fits).then_some(HandshakeError::WrongKey)
    });
    let greeting = Greeting::read(&message, keys.iter().copied(), only);
    assert_eq!(greeting.as_ref().err(), expected.as_ref());
    if let Ok(greeting) = greeting {
        let responder = greeting.answer(&mut random).unwrap();
        assert_eq!(responder.key_id, key.id());
        talk(initiator.finish(&responder.reply).unwrap(), responder.session);
    }
}

fn new_key(random: &mut Seeded) -> SharedKey {
    SharedKey::from_key_file(&random.array::<32>(), Box::new([0; 32])).unwrap()
}

/// Zeros behind what is given.
fn any_bytes<const N: usize>(mut input: Input<'_>) -> [u8; N] {
    let mut message = [0; N];
    let given = input.take(N);
    message[..given.len()].copy_from_slice(given);
    message
}

/// Why a message is refused before a key is tried.
fn expected(message: &[u8; MESSAGE_1], only: Option<Suite>) -> Option<HandshakeError> {
    let suite = match message[0] {
        2 => Suite::ChaCha20Poly1305,
        3 => Suite::Aes256Gcm,
        _ => return Some(HandshakeError::NotOurs),
    };
    let is_refused = only.is_some_and(|only| only != suite);
    is_refused.then_some(HandshakeError::SuiteRefused(suite))
}

/// Whoever holds the key can send any public key; one of small order is refused.
fn keyed(suite: Suite, key: &SharedKey, input: Input<'_>) {
    let public: [u8; 32] = any_bytes(input);
    let message = keyed_message(suite, key, public);
    let accepted = Responder::accept(&message, [key], None, &mut Seeded::new(&public));
    // 0 and 1; the top bit does not count.
    let mut small = [0; 32];
    (small[0], small[31]) = (public[0] & 1, public[31] & 0x80);
    let is_small = public == small;
    match accepted {
        Ok(_) => assert!(!is_small),
        Err(error) => assert_eq!(error, HandshakeError::DegenerateKey),
    }
}

/// To an initiator: any bytes, or a genuine answer in which some were changed.
pub fn message_2(data: &[u8]) {
    let mut input = Input::new(data);
    let suite = Suite::ALL[input.below(2)];
    let mut random = Seeded::new(data);
    let key = new_key(&mut random);
    let (initiator, message_1) = Initiator::start(suite, &key, &mut random).unwrap();
    let responder = Responder::accept(&message_1, [&key], None, &mut random).unwrap();
    let mut answer: [u8; MESSAGE_2] = responder.reply;
    if input.choice() {
        input.alter(&mut answer);
    } else {
        answer = any_bytes(input);
    }
    match initiator.finish(&answer) {
        Ok(session) => {
            assert_eq!(answer, responder.reply);
            talk(session, responder.session);
        }
        Err(error) => {
            assert_ne!(answer, responder.reply);
            assert!(matches!(error, HandshakeError::WrongKey | HandshakeError::DegenerateKey));
        }
    }
}

/// Both ends have the same keys.
fn talk(mut initiator: Session, mut responder: Session) {
    assert_eq!(initiator.suite, responder.suite);
    let mut record = initiator.sealer.seal_open().unwrap();
    assert_eq!(responder.opener.open(&mut record), Ok(Record::Open));
    let mut record = responder.sealer.seal_opened().unwrap();
    assert_eq!(initiator.opener.open(&mut record), Ok(Record::Opened));
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
