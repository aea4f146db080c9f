//! Which end of the pipe this is.

use std::fmt;

/// Which end of the pipe this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `-e`: takes plaintext on the source, sends it encrypted to the target.
    /// The protocol's initiator.
    Encrypt,
    /// `-d`: takes encrypted connections on the source, sends plaintext to the
    /// target. The protocol's responder.
    Decrypt,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "sender",
            Self::Decrypt => "receiver",
        })
    }
}
