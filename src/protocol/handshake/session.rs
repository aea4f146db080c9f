//! The session that a handshake ends in.

use crate::protocol::ids::{ConnectionId, HandshakeHash};
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
