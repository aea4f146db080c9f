//! X25519 in pure Rust, by x25519-dalek.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Wiped when dropped.
pub(in crate::protocol) struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// A private key of random bytes.
    pub(in crate::protocol) fn new(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The public key that belongs to it.
    pub(in crate::protocol) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// `DH(self, public)`; `None` when it is all zeros.
    pub(in crate::protocol) fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*public));
        // Compares in constant time.
        shared.was_contributory().then(|| Zeroizing::new(*shared.as_bytes()))
    }
}
