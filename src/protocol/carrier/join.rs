//! The proof in JOIN: this session belongs to that stream of that carrier (rule C10).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::frame::StreamId;
use crate::protocol::hkdf::hkdf_sha256;
use crate::protocol::ids::HandshakeHash;
use crate::protocol::record::{PROOF, SECRET};

/// What only the two ends of a carrier know: 32 random bytes of the responder, new for each
/// carrier (C1). Wiped when dropped, never shown, and compared in constant time.
pub struct CarrierSecret(Box<[u8; SECRET]>);

impl CarrierSecret {
    /// The secret of these random bytes.
    #[must_use]
    pub fn new(random: &[u8; SECRET]) -> Self {
        Self(Box::new(*random))
    }

    pub(in crate::protocol) const fn bytes(&self) -> &[u8; SECRET] {
        &self.0
    }

    /// The proof that a session, the one whose handshake ended in `hash`, is to take over a
    /// stream of this carrier:
    ///
    /// ```text
    /// HKDF-SHA256(salt = secret, ikm = handshake hash, info = "join" ‖ stream(4))[16]
    /// ```
    #[must_use]
    pub fn proof(&self, hash: &HandshakeHash, id: StreamId) -> JoinProof {
        let info = [&b"join"[..], &id.number().to_be_bytes()].concat();
        let mut proof = [0; PROOF];
        hkdf_sha256(self.bytes(), hash.bytes(), &info, &mut proof);
        JoinProof(proof)
    }
}

impl Drop for CarrierSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for CarrierSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for CarrierSecret {}

impl fmt::Debug for CarrierSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CarrierSecret(_)")
    }
}

/// The proof in JOIN. Compared in constant time.
#[derive(Clone, Copy)]
pub struct JoinProof(pub(in crate::protocol) [u8; PROOF]);

impl PartialEq for JoinProof {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinProof {}

impl fmt::Debug for JoinProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinProof(_)")
    }
}
