//! The handshake: Noise NNpsk0 (revision 34, sections 5, 7 and 9).
//!
//! ```text
//! NNpsk0:
//!   -> psk, e      suite(1) ‖ e_I(32) ‖ tag(16)    49 bytes
//!   <- e, ee       e_R(32) ‖ tag(16)               48 bytes
//! ```
//!
//! The prologue is `spiped-2` and the suite's byte, so an altered suite fails
//! the first tag. Each phase consumes the one before: an [`Initiator`] becomes
//! a [`Session`], a [`Responder`] has the reply and the session at once.

use rand::TryCryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::aead::{AuthenticationFailed, TAG};
use super::dh::PrivateKey;
use super::keys::{KeyId, SharedKey};
use super::opener::Opener;
use super::sealer::Sealer;
use super::suite::Suite;
use super::symmetric_state::SymmetricState;
use super::transport::REKEY_INTERVAL;

/// Bytes of the initiator's message.
pub const MESSAGE_1: usize = 1 + 32 + TAG;
/// Bytes of the responder's message.
pub const MESSAGE_2: usize = 32 + TAG;

/// Why a handshake ended without a session. None of it is told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The first byte names no suite.
    #[error("not our protocol")]
    NotOurs,
    /// The responder does not accept this suite.
    #[error("the suite {0} is not accepted here")]
    SuiteRefused(Suite),
    /// The tag of the first message fits none of the keys.
    #[error("the key does not fit")]
    WrongKey,
    /// The peer's public key gave an all-zero Diffie-Hellman result.
    #[error("the peer sent a degenerate public key")]
    DegenerateKey,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Randomness,
}

impl From<AuthenticationFailed> for HandshakeError {
    fn from(_: AuthenticationFailed) -> Self {
        Self::WrongKey
    }
}

/// A session, in which a handshake ends: fresh keys, one for each direction.
pub struct Session {
    /// Seals the records of this side.
    pub sealer: Sealer,
    /// Opens the records of the other side.
    pub opener: Opener,
    /// The suite of both sides.
    pub suite: Suite,
}

/// The initiator, between message 1 and message 2.
pub struct Initiator {
    state: SymmetricState,
    e: PrivateKey,
}

/// Message 1 as the responder has read it: its tag fits a key. No key has been generated
/// yet, and no Diffie-Hellman done.
pub struct Greeting {
    state: SymmetricState,
    re: [u8; 32],
    key_id: KeyId,
}

/// The responder, once it has made message 2. The handshake is over, but the initiator is
/// not yet proved live (message 1 may be a replay).
pub struct Responder {
    /// Message 2, to be sent.
    pub reply: [u8; MESSAGE_2],
    /// Which of the keys the initiator holds.
    pub key_id: KeyId,
    /// The session, whose first record proves the initiator live.
    pub session: Session,
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
    ) -> Result<(Self, [u8; MESSAGE_1]), HandshakeError> {
        let mut state = SymmetricState::new(suite);
        let e = generate_keypair(random)?;
        let public = e.public();

        state.mix_key_and_hash(key.psk()); //                       psk
        state.mix_ephemeral(&public); //                            e
        let tag = state.encrypt_and_hash(); //                      payload: empty

        let mut message = [suite.byte(); MESSAGE_1];
        let (_suite, rest) = message.split_at_mut(1);
        write_message(rest, public, tag);
        Ok((Self { state, e }, message))
    }

    /// Reads message 2.
    ///
    /// # Errors
    /// When the tag or the public key of message 2 is wrong.
    pub fn finish(self, message: &[u8; MESSAGE_2]) -> Result<Session, HandshakeError> {
        self.finish_rekeying_every(REKEY_INTERVAL, message)
    }

    /// As [`Initiator::finish`]; another interval is for tests only.
    pub(super) fn finish_rekeying_every(
        mut self,
        interval: u64,
        message: &[u8; MESSAGE_2],
    ) -> Result<Session, HandshakeError> {
        let (re, tag) = read_message(message);

        self.state.mix_ephemeral(&re); //                           e
        self.state.mix_key(&*diffie_hellman(&self.e, &re)?); //     ee
        self.state.decrypt_and_hash(&tag)?; //                      payload: empty

        let suite = self.state.suite;
        let (sending, receiving) = self.state.split(interval);
        Ok(Session { sealer: Sealer::new(sending), opener: Opener::of_initiator(receiving), suite })
    }
}

impl Greeting {
    /// Reads message 1, and tries each key on its tag.
    ///
    /// # Errors
    /// When the message names no suite, the suite is refused, or no key fits.
    pub fn read<'k>(
        message: &[u8; MESSAGE_1],
        keys: impl IntoIterator<Item = &'k SharedKey>,
        only: Option<Suite>,
    ) -> Result<Self, HandshakeError> {
        let ([suite], rest) = split(message);
        let suite = Suite::from_byte(suite).ok_or(HandshakeError::NotOurs)?;
        if only.is_some_and(|only| only != suite) {
            return Err(HandshakeError::SuiteRefused(suite));
        }
        let (re, tag) = read_message(&rest);
        keys.into_iter()
            .find_map(|key| {
                let mut state = SymmetricState::new(suite);
                state.mix_key_and_hash(key.psk()); //               psk
                state.mix_ephemeral(&re); //                        e
                state.decrypt_and_hash(&tag).ok()?; //              payload: empty
                Some(Self { state, re, key_id: key.id() })
            })
            .ok_or(HandshakeError::WrongKey)
    }

    /// Makes message 2.
    ///
    /// # Errors
    /// When the peer's public key is degenerate, or `random` fails.
    pub fn answer<R: TryCryptoRng + ?Sized>(
        self,
        random: &mut R,
    ) -> Result<Responder, HandshakeError> {
        self.answer_rekeying_every(REKEY_INTERVAL, random)
    }

    /// As [`Greeting::answer`]; another interval is for tests only.
    pub(super) fn answer_rekeying_every<R: TryCryptoRng + ?Sized>(
        self,
        interval: u64,
        random: &mut R,
    ) -> Result<Responder, HandshakeError> {
        let Self { mut state, re, key_id } = self;
        let e = generate_keypair(random)?;
        let public = e.public();
        state.mix_ephemeral(&public); //                            e
        state.mix_key(&*diffie_hellman(&e, &re)?); //               ee
        let tag = state.encrypt_and_hash(); //                      payload: empty

        let mut reply = [0; MESSAGE_2];
        write_message(&mut reply, public, tag);
        let suite = state.suite;
        let (receiving, sending) = state.split(interval);
        let session = Session {
            sealer: Sealer::new(sending),
            opener: Opener::of_responder(receiving),
            suite,
        };
        Ok(Responder { reply, key_id, session })
    }
}

impl Responder {
    /// Reads message 1 and makes message 2, without a check for replays.
    ///
    /// # Errors
    /// The errors of [`Greeting::read`] and [`Greeting::answer`].
    pub fn accept<'k, R: TryCryptoRng + ?Sized>(
        message: &[u8; MESSAGE_1],
        keys: impl IntoIterator<Item = &'k SharedKey>,
        only: Option<Suite>,
        random: &mut R,
    ) -> Result<Self, HandshakeError> {
        Greeting::read(message, keys, only)?.answer(random)
    }
}

/// `GENERATE_KEYPAIR()`; the secret is wiped when dropped.
fn generate_keypair<R: TryCryptoRng + ?Sized>(
    random: &mut R,
) -> Result<PrivateKey, HandshakeError> {
    let mut bytes = Zeroizing::new([0; 32]);
    random.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| HandshakeError::Randomness)?;
    Ok(PrivateKey::new(&bytes))
}

/// `DH(e, re)`; an all-zero result ends the handshake (RFC 7748, section 6.1).
fn diffie_hellman(e: &PrivateKey, re: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
    e.agree(re).ok_or(HandshakeError::DegenerateKey)
}

/// Writes `public(32) ‖ tag(16)` into the 48 bytes of `out`.
fn write_message(out: &mut [u8], public: [u8; 32], tag: [u8; TAG]) {
    for (to, from) in out.iter_mut().zip(public.into_iter().chain(tag)) {
        *to = from;
    }
}

/// Reads `public(32) ‖ tag(16)`.
fn read_message(message: &[u8; MESSAGE_2]) -> ([u8; 32], [u8; TAG]) {
    split(message)
}

/// Splits an array in two.
pub(super) fn split<const N: usize, const A: usize, const B: usize>(
    all: &[u8; N],
) -> ([u8; A], [u8; B]) {
    const { assert!(A + B == N) }
    let (mut a, mut b) = ([0; A], [0; B]);
    let (head, tail) = all.split_at(A);
    a.copy_from_slice(head);
    b.copy_from_slice(tail);
    (a, b)
}

/// Message 1 of a peer that holds the key and sends any public key, for tests of what
/// must be refused.
#[cfg(any(test, fuzzing))]
pub(crate) fn keyed_message(suite: Suite, key: &SharedKey, public: [u8; 32]) -> [u8; MESSAGE_1] {
    let mut state = SymmetricState::new(suite);
    state.mix_key_and_hash(key.psk());
    state.mix_ephemeral(&public);
    let tag = state.encrypt_and_hash();
    let mut message = [suite.byte(); MESSAGE_1];
    write_message(message.split_at_mut(1).1, public, tag);
    message
}
