//! The session that a handshake ends in.

use crate::protocol::ids::ConnectionId;
use crate::protocol::opener::Opener;
use crate::protocol::sealer::Sealer;
use crate::protocol::suite::Suite;

/// A session, in which a handshake ends: fresh keys, one for each direction.
pub struct Session {
    /// Seals the records of this side.
    pub sealer: Sealer,
    /// Opens the records of the other side.
    pub opener: Opener,
    /// The suite of both sides.
    pub suite: Suite,
    /// The hash of its handshake: what a JOIN in this session is bound to.
    pub hash: HandshakeHash,
    /// The name that both sides have for this session.
    pub connection_id: ConnectionId,
}

/// Noise's handshake hash (section 11.2): both sides have it, and no other session has the same.
/// It is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeHash([u8; 32]);

impl HandshakeHash {
    pub(crate) const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    pub(in crate::protocol) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
