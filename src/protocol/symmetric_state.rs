//! Noise's symmetric state, which both ends of a handshake keep the same.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::aead::{AuthenticationFailed, Cipher, TAG};
use super::hkdf::hkdf_sha256;
use super::suite::Suite;
use super::transport::Transport;

/// The prologue before the suite's byte.
const PROLOGUE: &[u8; 8] = b"spiped-2";

/// Noise's SymmetricState (section 5.2) with the CipherState inside it. All payloads are
/// empty, so each key seals one tag, with nonce 0.
pub(super) struct SymmetricState {
    pub(super) suite: Suite,
    ck: Zeroizing<[u8; 32]>,
    h: [u8; 32],
    k: Zeroizing<[u8; 32]>,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)`, then `MixHash(prologue)`.
    pub(super) fn new(suite: Suite) -> Self {
        let name = suite.noise_name().as_bytes();
        let mut h = [0; 32];
        // A name of at most 32 bytes is padded with zeros, a longer one hashed.
        match h.get_mut(..name.len()) {
            Some(head) => head.copy_from_slice(name),
            None => h = Sha256::digest(name).into(),
        }
        let mut state = Self { suite, ck: Zeroizing::new(h), h, k: Zeroizing::new([0; 32]) };
        let mut prologue = [suite.byte(); 9];
        prologue.split_at_mut(8).0.copy_from_slice(PROLOGUE);
        state.mix_hash(&prologue);
        state
    }

    /// `MixKey(input)`: ck, k = HKDF(ck, input, 2).
    pub(super) fn mix_key(&mut self, input: &[u8; 32]) {
        let [ck, k] = &*noise_hkdf::<2>(&self.ck, input);
        self.ck.copy_from_slice(ck);
        self.k.copy_from_slice(k);
    }

    /// `MixHash(data)`: h = HASH(h ‖ data).
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.h = Sha256::new().chain_update(self.h).chain_update(data).finalize().into();
    }

    /// `MixKeyAndHash(input)`: ck, h', k = HKDF(ck, input, 3).
    pub(super) fn mix_key_and_hash(&mut self, input: &[u8; 32]) {
        let [ck, temp_h, k] = &*noise_hkdf::<3>(&self.ck, input);
        self.ck.copy_from_slice(ck);
        self.mix_hash(temp_h);
        self.k.copy_from_slice(k);
    }

    /// The token `e`: with a psk the public key is mixed into the key as well
    /// (section 9.2).
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    /// `EncryptAndHash("")`, which is only a tag.
    pub(super) fn encrypt_and_hash(&mut self) -> [u8; TAG] {
        let tag = Cipher::new(self.suite, &self.k).seal(0, &self.h, &mut []);
        self.mix_hash(&tag);
        tag
    }

    /// `DecryptAndHash(tag)`.
    pub(super) fn decrypt_and_hash(&mut self, tag: &[u8; TAG]) -> Result<(), AuthenticationFailed> {
        Cipher::new(self.suite, &self.k).open(0, &self.h, &mut [], tag)?;
        self.mix_hash(tag);
        Ok(())
    }

    /// `Split()`: the initiator's direction, then the responder's.
    pub(super) fn split(self, interval: u64) -> (Transport, Transport) {
        let [first, second] = &*noise_hkdf::<2>(&self.ck, &[]);
        let transport = |key| Transport::new(Cipher::new(self.suite, key), interval);
        (transport(first), transport(second))
    }
}

/// Noise's HKDF (section 4.3) with `N` outputs of 32 bytes.
fn noise_hkdf<const N: usize>(ck: &[u8; 32], input: &[u8]) -> Zeroizing<[[u8; 32]; N]> {
    let mut out = Zeroizing::new([[0; 32]; N]);
    hkdf_sha256(ck, input, &[], out.as_flattened_mut());
    out
}
