//! Noise's symmetric state, which both ends of a handshake keep the same.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::aead::{AuthenticationFailed, CipherKey, TAG};
use super::hkdf::hkdf_sha256;
use super::keys::HINT;
use super::suite::Suite;
use super::transport::Transport;

/// The prologue before the suite's byte and the hint.
const PROLOGUE: &[u8; 8] = b"spiped-2";

/// Noise's SymmetricState (section 5.2) with the CipherState inside it.
pub(super) struct SymmetricState {
    pub(super) suite: Suite,
    h: [u8; 32],
    /// Boxed, as `k` is, so that moving the state leaves no copy behind.
    ck: Box<Zeroizing<[u8; 32]>>,
    k: Box<Zeroizing<[u8; 32]>>,
    /// The next nonce under `k`.
    n: u64,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)`, then `MixHash(prologue)`.
    pub(super) fn new(suite: Suite, hint: [u8; HINT]) -> Self {
        let name = suite.noise_name().as_bytes();
        let mut h = [0; 32];
        // A name of at most 32 bytes is padded with zeros, a longer one hashed.
        match h.get_mut(..name.len()) {
            Some(head) => head.copy_from_slice(name),
            None => h = Sha256::digest(name).into(),
        }
        let ck = Box::new(Zeroizing::new(h));
        let mut state = Self { suite, h, ck, k: Box::default(), n: 0 };
        state.mix_hash(&[&PROLOGUE[..], &[suite.byte()], &hint].concat());
        state
    }

    /// `MixKey(input)`: ck, k = HKDF(ck, input, 2).
    pub(super) fn mix_key(&mut self, input: &[u8; 32]) {
        let [ck, k] = &*noise_hkdf::<2>(&self.ck, input);
        self.ck.copy_from_slice(ck);
        self.initialize_key(k);
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
        self.initialize_key(k);
    }

    /// The token `e`: with a psk the public key is mixed into the key as well
    /// (section 9.2).
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    /// `EncryptAndHash(plaintext)`: appends `ciphertext ‖ tag` to `message`.
    pub(super) fn encrypt_and_hash(&mut self, plaintext: &[u8], message: &mut Vec<u8>) {
        let start = message.len();
        message.extend(plaintext);
        let n = self.next_nonce();
        let (_before, ciphertext) = message.split_at_mut(start);
        let tag = CipherKey::new(self.suite.cipher, &self.k).seal(n, &self.h, ciphertext);
        message.extend(tag);
        self.mix_hash(message.split_at(start).1);
    }

    /// `DecryptAndHash(ciphertext ‖ tag)`, into `plaintext`, which is as long as the
    /// ciphertext. The ciphertext stays as it came.
    pub(super) fn decrypt_and_hash(
        &mut self,
        ciphertext: &[u8],
        tag: &[u8; TAG],
        plaintext: &mut [u8],
    ) -> Result<(), AuthenticationFailed> {
        plaintext.copy_from_slice(ciphertext);
        let n = self.next_nonce();
        CipherKey::new(self.suite.cipher, &self.k).open(n, &self.h, plaintext, tag)?;
        let hash = Sha256::new().chain_update(self.h).chain_update(ciphertext);
        self.h = hash.chain_update(tag).finalize().into();
        Ok(())
    }

    /// `GetHandshakeHash()`.
    pub(super) const fn handshake_hash(&self) -> &[u8; 32] {
        &self.h
    }

    /// `Split()`: the initiator's direction, then the responder's.
    pub(super) fn split(self, interval: u64) -> (Transport, Transport) {
        let [first, second] = &*noise_hkdf::<2>(&self.ck, &[]);
        let transport = |key| Transport::new(CipherKey::new(self.suite.cipher, key), interval);
        (transport(first), transport(second))
    }

    /// `InitializeKey(k)`.
    fn initialize_key(&mut self, k: &[u8; 32]) {
        self.k.copy_from_slice(k);
        self.n = 0;
    }

    /// A key seals two messages at most.
    fn next_nonce(&mut self) -> u64 {
        let n = self.n;
        self.n = n.wrapping_add(1);
        n
    }
}

/// Noise's HKDF (section 4.3) with `N` outputs of 32 bytes.
fn noise_hkdf<const N: usize>(ck: &[u8; 32], input: &[u8]) -> Zeroizing<[[u8; 32]; N]> {
    let mut out = Zeroizing::new([[0; 32]; N]);
    hkdf_sha256(ck, input, &[], out.as_flattened_mut());
    out
}
