//! X25519 by AWS-LC.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use zeroize::Zeroizing;

/// A private key, which AWS-LC wipes when it frees it.
pub(in crate::protocol) struct PrivateKey {
    private: agreement::PrivateKey,
    public: [u8; 32],
}

impl PrivateKey {
    /// The private key of these random bytes.
    pub(in crate::protocol) fn new(bytes: &[u8; 32]) -> Self {
        let Ok(private) = agreement::PrivateKey::from_private_key(&X25519, bytes) else {
            unreachable!("any 32 bytes are a private key");
        };
        let mut public = [0; 32];
        match private.compute_public_key() {
            Ok(key) => public.copy_from_slice(key.as_ref()),
            Err(_) => unreachable!("every private key has a public key"),
        }
        Self { private, public }
    }

    /// The public key of this private key.
    pub(in crate::protocol) fn public(&self) -> [u8; 32] {
        self.public
    }

    /// `DH(self, public)`; `None` when the result is all zeros.
    pub(in crate::protocol) fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        // AWS-LC fails on zeros, which it tests in constant time, and wipes `shared`.
        agreement::agree(&self.private, UnparsedPublicKey::new(&X25519, public), (), |shared| {
            let mut secret = Zeroizing::new([0; 32]);
            secret.copy_from_slice(shared);
            Ok(secret)
        })
        .ok()
    }
}
