//! X25519 in pure Rust, by x25519-dalek.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::protocol::hkdf::wipe_stack;

/// A private key, wiped when dropped. Boxed, so that moving the key leaves no copy behind.
pub(in crate::protocol) struct PrivateKey(Box<StaticSecret>);

impl PrivateKey {
    /// The private key of these random bytes.
    pub(in crate::protocol) fn new(bytes: &[u8; 32]) -> Self {
        let key = boxed(bytes);
        wipe_stack();
        Self(key)
    }

    /// The public key of this private key.
    pub(in crate::protocol) fn public(&self) -> [u8; 32] {
        let public = public_of(&self.0);
        wipe_stack();
        public
    }

    /// `DH(self, public)`; `None` when the result is all zeros.
    pub(in crate::protocol) fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = shared_with(&self.0, public);
        wipe_stack();
        shared
    }
}

// Each in a stack frame of its own, which is wiped.

#[inline(never)]
fn boxed(bytes: &[u8; 32]) -> Box<StaticSecret> {
    Box::new(StaticSecret::from(*bytes))
}

#[inline(never)]
fn public_of(key: &StaticSecret) -> [u8; 32] {
    PublicKey::from(key).to_bytes()
}

#[inline(never)]
fn shared_with(key: &StaticSecret, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = key.diffie_hellman(&PublicKey::from(*public));
    // was_contributory compares in constant time.
    shared.was_contributory().then(|| Zeroizing::new(*shared.as_bytes()))
}
