//! Ids that people compare, such as `3f9a-12bc-07de-5581`: 8 bytes that tell nothing of
//! the secret that they come from.

use std::fmt;

use super::hkdf::hkdf_sha256;

/// The id of a key: its public name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

/// The id of a connection, by which the logs of both ends can be joined.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub(super) [u8; 8]);

/// Noise's handshake hash (section 11.2): both sides have it, and no other session has the same.
/// It is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeHash([u8; 32]);

impl HandshakeHash {
    pub(crate) const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl ConnectionId {
    /// The id of the session that a handshake with this hash ended in:
    ///
    /// ```text
    /// HKDF-SHA256(salt = handshake hash, ikm = "", info = "connection id")[8]
    /// ```
    pub(crate) fn of(hash: &HandshakeHash) -> Self {
        let mut id = [0; 8];
        hkdf_sha256(hash.bytes(), &[], b"connection id", &mut id);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_groups(self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_groups(self.0, f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// Writes four groups of four digits.
fn write_groups(id: [u8; 8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let hex = u64::from_be_bytes(id);
    let group = |shift: u32| hex.wrapping_shr(shift) & 0xffff;
    write!(f, "{:04x}-{:04x}-{:04x}-{:04x}", group(48), group(32), group(16), group(0))
}
