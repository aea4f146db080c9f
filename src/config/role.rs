//! Which end of the pipe this is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which end of the pipe this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// `-e`: takes plaintext on the source, sends it encrypted to the target.
    /// The protocol's initiator.
    #[serde(rename = "sender")]
    Encrypt,
    /// `-d`: takes encrypted connections on the source, sends plaintext to the
    /// target. The protocol's responder.
    #[serde(rename = "receiver")]
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
