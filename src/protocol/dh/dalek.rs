//! X25519 in pure Rust, by x25519-dalek.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A private key, wiped when dropped.
pub(in crate::protocol) struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// The private key of these random bytes.
    pub(in crate::protocol) fn new(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The public key of this private key.
    pub(in crate::protocol) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// `DH(self, public)`; `None` when the result is all zeros.
    pub(in crate::protocol) fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*public));
        // was_contributory compares in constant time.
        shared.was_contributory().then(|| Zeroizing::new(*shared.as_bytes()))
    }
}
