//! The initiator's side of the handshake.

use rand::TryCryptoRng;

use super::ephemeral::{diffie_hellman, generate_keypair};
use super::error::HandshakeError;
use super::message::Message2;
use super::session::Session;
use crate::protocol::dh::PrivateKey;
use crate::protocol::ids::{ConnectionId, HandshakeHash};
use crate::protocol::kem::{CIPHERTEXT, DecapsulationKey, EncapsulationKey};
use crate::protocol::keys::SharedKey;
use crate::protocol::opener::Opener;
use crate::protocol::sealer::Sealer;
use crate::protocol::suite::{Kex, Suite};
use crate::protocol::symmetric_state::SymmetricState;
use crate::protocol::transport::REKEY_INTERVAL;

/// The initiator, between message 1 and message 2.
pub struct Initiator {
    state: SymmetricState,
    e: PrivateKey,
    /// Of the hybrid exchange.
    e1: Option<DecapsulationKey>,
}

impl Initiator {
    /// Begins a handshake. Returns the state, and message 1 to be sent.
    ///
    /// # Errors
    /// Only when `random` fails.
    pub fn start<R: TryCryptoRng + ?Sized>(
        suite: Suite,
        key: &SharedKey,
        random: &mut R,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        // New keys for each handshake (rule H4).
        let e = generate_keypair(random)?;
        let e1 = match suite.kex {
            Kex::X25519 => None,
            Kex::X25519MlKem768 => Some(DecapsulationKey::generate(random)?),
        };
        Ok(Self::start_with(suite, key, e, e1))
    }

    /// As [`Initiator::start`]; other keys than new ones are for tests only.
    fn start_with(
        suite: Suite,
        key: &SharedKey,
        e: PrivateKey,
        e1: Option<(DecapsulationKey, EncapsulationKey)>,
    ) -> (Self, Vec<u8>) {
        let (e1, encapsulation_key) = e1.unzip();
        let public = e.public();
        let hint = key.hint(suite, &public);
        let mut state = SymmetricState::new(suite, hint);
        let mut message = Vec::with_capacity(suite.message_1());
        message.push(suite.byte());
        message.extend(hint);

        state.mix_key_and_hash(key.psk()); //                              psk
        state.mix_ephemeral(&public); //                                   e
        message.extend(public);
        if let Some(encapsulation_key) = encapsulation_key {
            state.encrypt_and_hash(&*encapsulation_key, &mut message); //  e1
        }
        state.encrypt_and_hash(&[], &mut message); //                      payload: empty
        (Self { state, e, e1 }, message)
    }

    /// Reads message 2.
    ///
    /// # Errors
    /// When a length, a tag or the public key of message 2 is wrong.
    pub fn finish(self, message: &[u8]) -> Result<Session, HandshakeError> {
        self.finish_rekeying_every(REKEY_INTERVAL, message)
    }

    /// As [`Initiator::finish`]; another interval is for tests only.
    pub(in crate::protocol) fn finish_rekeying_every(
        self,
        interval: u64,
        message: &[u8],
    ) -> Result<Session, HandshakeError> {
        let Self { mut state, e, e1 } = self;
        let suite = state.suite;
        let Message2 { e: re, ct, tag } = Message2::parse(suite, message)?;

        state.mix_ephemeral(re); //                                        e
        state.mix_key(&*diffie_hellman(&e, re)?); //                   ee
        match (e1, ct) {
            (Some(e1), Some(ct)) => {
                let mut ciphertext = [0; CIPHERTEXT];
                state.decrypt_and_hash(ct.ciphertext, ct.tag, &mut ciphertext)?;
                state.mix_key(&e1.decapsulate(&ciphertext)); //            ekem1
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return Err(HandshakeError::Length),
        }
        state.decrypt_and_hash(&[], tag, &mut [])?; //                              payload: empty

        let hash = HandshakeHash::new(*state.handshake_hash());
        let (sending, receiving) = state.split(interval);
        Ok(Session {
            sealer: Sealer::new(sending),
            opener: Opener::of_initiator(receiving),
            suite,
            hash,
            connection_id: ConnectionId::of(&hash),
        })
    }
}

#[cfg(test)]
impl Initiator {
    /// As [`Initiator::start`]; the KEM's key, too, is of the randomness that is handed in.
    pub(in crate::protocol) fn start_known<R: TryCryptoRng + ?Sized>(
        suite: Suite,
        key: &SharedKey,
        random: &mut R,
    ) -> (Self, Vec<u8>) {
        let e = generate_keypair(random).unwrap();
        let e1 = (suite.kex == Kex::X25519MlKem768).then(|| DecapsulationKey::known(random));
        Self::start_with(suite, key, e, e1)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SysRng;

    use super::*;
    use crate::protocol::{Accepted, Cipher, KEY_SECRETS, Responder};

    /// H7: of what was recorded, the key and the secret of one exchange open nothing, so
    /// that the other exchange alone keeps it secret.
    #[test]
    fn h7_the_key_and_one_of_the_two_exchanges_open_nothing() {
        let key = SharedKey::from_key_file(&[1; 32], Box::new([0; KEY_SECRETS])).unwrap();
        let suite = Suite { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm };
        let replayed = |lose: fn(&mut Initiator)| {
            let (mut initiator, message_1) = Initiator::start(suite, &key, &mut SysRng).unwrap();
            let accepted = Accepted::default();
            let answer = Responder::accept(&message_1, [&key], accepted, &mut SysRng).unwrap();
            lose(&mut initiator);
            initiator.finish(&answer.reply).map(|session| session.connection_id)
        };
        assert!(replayed(|_nothing| {}).is_ok());
        let x25519 = replayed(|own| own.e = generate_keypair(&mut SysRng).unwrap());
        assert_eq!(x25519, Err(HandshakeError::WrongKey));
        let kem = replayed(|own| {
            own.e1 = DecapsulationKey::generate(&mut SysRng).ok().map(|(key, _)| key);
        });
        assert_eq!(kem, Err(HandshakeError::WrongKey));
    }
}
