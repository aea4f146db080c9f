//! What only tests and fuzzing make.

use super::aead::CipherKey;
use super::extensions::Extensions;
use super::kem::ENCAPSULATION_KEY;
use super::keys::SharedKey;
use super::opener::{Opener, Record};
use super::sealer::Sealer;
use super::suite::{Cipher, Kex, Suite};
use super::symmetric_state::SymmetricState;
use super::transport::Transport;

/// The suite of tests that do not depend on one.
pub(crate) const GCM: Suite = Suite { kex: Kex::X25519, cipher: Cipher::Aes256Gcm };
/// OPEN without extensions.
pub(crate) const OPEN: Record = Record::Open(Extensions { client: None });
/// OPENED without extensions.
pub(crate) const OPENED: Record = Record::Opened(Extensions { client: None });

/// Which end gets the records of one direction.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum To {
    /// They come from the responder.
    Initiator,
    /// They come from the initiator.
    Responder,
}

/// Both ends of one direction, without a handshake.
pub(crate) fn one_direction(
    suite: Suite,
    key: [u8; 32],
    to: To,
    rekey_interval: u64,
) -> (Sealer, Opener) {
    let transport = || Transport::new(CipherKey::new(suite.cipher, &key), rekey_interval);
    let opener = match to {
        To::Initiator => Opener::of_initiator,
        To::Responder => Opener::of_responder,
    };
    (Sealer::new(transport()), opener(transport()))
}

/// Message 1 of a peer that holds the key and sends any public keys, for tests of what must
/// be refused.
pub(crate) fn keyed_message(
    suite: Suite,
    key: &SharedKey,
    public: [u8; 32],
    encapsulation_key: &[u8; ENCAPSULATION_KEY],
) -> Vec<u8> {
    let hint = key.hint(suite, &public);
    let mut state = SymmetricState::new(suite, hint);
    let mut message = vec![suite.byte()];
    message.extend(hint);
    message.extend(public);
    state.mix_key_and_hash(key.psk());
    state.mix_ephemeral(&public);
    if suite.kex == Kex::X25519MlKem768 {
        state.encrypt_and_hash(encapsulation_key, &mut message);
    }
    state.encrypt_and_hash(&[], &mut message);
    message
}
