//! The responder's side of the handshake.

use std::borrow::Borrow;

use rand::TryCryptoRng;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::ephemeral::{diffie_hellman, generate_keypair};
use super::error::HandshakeError;
use super::message::Message1;
use super::session::Session;
use crate::protocol::hkdf::wipe_stack;
use crate::protocol::ids::{ConnectionId, HandshakeHash, KeyId};
use crate::protocol::kem::{ENCAPSULATION_KEY, EncapsulationKey, encapsulate};
use crate::protocol::keys::{HINT, HintKeys, SharedKey, hint};
use crate::protocol::opener::Opener;
use crate::protocol::sealer::Sealer;
use crate::protocol::suite::{Accepted, Suite};
use crate::protocol::symmetric_state::SymmetricState;
use crate::protocol::transport::REKEY_INTERVAL;

/// Message 1 as the responder has read it: its tags fit a key. No key has been generated
/// yet, and no Diffie-Hellman done.
pub struct Greeting {
    state: SymmetricState,
    re: [u8; 32],
    /// Of the hybrid exchange.
    re1: Option<EncapsulationKey>,
    key_id: KeyId,
}

/// The responder, once it has made message 2. The handshake is over, but the initiator is
/// not yet proved live (message 1 may be a replay).
pub struct Responder {
    /// Message 2, to be sent.
    pub reply: Vec<u8>,
    /// Which of the keys the initiator holds.
    pub key_id: KeyId,
    /// The session, whose first record proves the initiator live.
    pub session: Session,
}

impl Greeting {
    /// Reads message 1, and finds its key (rule H2): the hint of every key is computed and
    /// compared, then the key whose hint fits is tried on the tags. The search has no branch
    /// that depends on which key fits, or on how much of a hint does. Where the hints of two keys fit, by a chance of 2^-64, the later key is tried.
    ///
    /// # Errors
    /// When the message names no suite, has an impossible length, its suite is not
    /// accepted, or no key fits.
    pub fn read<K: Borrow<SharedKey>>(
        message: &[u8],
        keys: impl IntoIterator<Item = K, IntoIter: Clone>,
        accepted: Accepted,
    ) -> Result<Self, HandshakeError> {
        let message = Message1::parse(message)?;
        accepted.check(message.suite)?;
        let keys = keys.into_iter();
        let hint = |key: K| key.borrow().hint(message.suite, message.e);
        let fitting = find(&message, keys.clone().map(hint))?;
        let key = { keys }.nth(fitting).ok_or(HandshakeError::WrongKey)?;
        Self::with_key(&message, key.borrow())
    }

    /// As [`Greeting::read`], for many keys: `key` is told the number of the key that fits,
    /// in the order of `hint_keys`.
    ///
    /// # Errors
    /// As [`Greeting::read`].
    pub fn read_among<'k>(
        message: &[u8],
        hint_keys: &HintKeys,
        key: impl FnOnce(usize) -> Option<&'k SharedKey>,
        accepted: Accepted,
    ) -> Result<Self, HandshakeError> {
        let message = Message1::parse(message)?;
        accepted.check(message.suite)?;
        let hint = |hint_key| hint(hint_key, message.suite, message.e);
        let fitting = find(&message, hint_keys.iter().map(hint))?;
        Self::with_key(&message, key(fitting).ok_or(HandshakeError::WrongKey)?)
    }

    /// Reads message 1 with a key.
    fn with_key(message: &Message1<'_>, key: &SharedKey) -> Result<Self, HandshakeError> {
        let mut state = SymmetricState::new(message.suite, message.hint);
        state.mix_key_and_hash(key.psk()); //                              psk
        state.mix_ephemeral(message.e); //                                 e
        let mut re1 = None;
        if let Some(ek) = &message.ek {
            let re1 = re1.insert(Box::new([0; ENCAPSULATION_KEY]));
            state.decrypt_and_hash(ek.ciphertext, ek.tag, &mut re1[..])?; // e1
        }
        state.decrypt_and_hash(&[], message.tag, &mut [])?; //                   payload: empty
        Ok(Self { state, re: *message.e, re1, key_id: key.id() })
    }

    /// Which of the keys the initiator holds, or has held when the message was recorded.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Makes message 2.
    ///
    /// # Errors
    /// When a public key of the peer is degenerate or invalid, or `random` fails.
    pub fn answer<R: TryCryptoRng + ?Sized>(
        self,
        random: &mut R,
    ) -> Result<Responder, HandshakeError> {
        self.answer_rekeying_every(REKEY_INTERVAL, random)
    }

    /// As [`Greeting::answer`]; another interval is for tests only.
    pub(in crate::protocol) fn answer_rekeying_every<R: TryCryptoRng + ?Sized>(
        self,
        interval: u64,
        random: &mut R,
    ) -> Result<Responder, HandshakeError> {
        let Self { mut state, re, re1, key_id } = self;
        let suite = state.suite;
        let e = generate_keypair(random)?;
        let mut reply = Vec::with_capacity(suite.message_2());
        state.mix_ephemeral(&e.public()); //                               e
        reply.extend(e.public());
        state.mix_key(&*diffie_hellman(&e, &re)?); //                      ee
        if let Some(re1) = re1 {
            let (ct, secret) = encapsulate(&re1, random)?;
            state.encrypt_and_hash(&*ct, &mut reply);
            state.mix_key(&secret); //                                     ekem1
        }
        state.encrypt_and_hash(&[], &mut reply); //                        payload: empty

        let hash = HandshakeHash::new(*state.handshake_hash());
        let (receiving, sending) = state.split(interval);
        let session = Session {
            sealer: Sealer::new(sending),
            opener: Opener::of_responder(receiving),
            suite,
            hash,
            connection_id: ConnectionId::of(&hash),
        };
        Ok(Responder { reply, key_id, session })
    }
}

impl Accepted {
    /// Whether a responder may answer this suite.
    pub(super) fn check(self, suite: Suite) -> Result<(), HandshakeError> {
        if self.kex.is_some_and(|only| only != suite.kex) {
            return Err(HandshakeError::KexRefused(suite.kex));
        }
        if self.cipher.is_some_and(|only| only != suite.cipher) {
            return Err(HandshakeError::CipherRefused(suite.cipher));
        }
        Ok(())
    }
}

/// The number of the key whose hint fits.
fn find(
    message: &Message1<'_>,
    hints: impl Iterator<Item = [u8; HINT]>,
) -> Result<usize, HandshakeError> {
    let fitting = compare(message, hints);
    // The keys that make hints.
    wipe_stack();
    usize::try_from(fitting).map_err(|_| HandshakeError::WrongKey)
}

/// In a stack frame of its own; no key has the greatest number.
#[inline(never)]
fn compare(message: &Message1<'_>, hints: impl Iterator<Item = [u8; HINT]>) -> u64 {
    let wanted = u64::from_le_bytes(message.hint);
    let mut fitting = u64::MAX;
    for (number, hint) in (0_u64..).zip(hints) {
        let hint = u64::from_le_bytes(hint);
        fitting.conditional_assign(&number, hint.ct_eq(&wanted));
    }
    fitting
}

impl Responder {
    /// Reads message 1 and makes message 2, without a check for replays.
    ///
    /// # Errors
    /// The errors of [`Greeting::read`] and [`Greeting::answer`].
    pub fn accept<K: Borrow<SharedKey>, R: TryCryptoRng + ?Sized>(
        message: &[u8],
        keys: impl IntoIterator<Item = K, IntoIter: Clone>,
        accepted: Accepted,
        random: &mut R,
    ) -> Result<Self, HandshakeError> {
        Greeting::read(message, keys, accepted)?.answer(random)
    }
}
