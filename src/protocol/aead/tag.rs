//! The tag that authenticates a ciphertext.

use thiserror::Error;

/// The length of a tag.
pub(in crate::protocol) const TAG: usize = 16;

/// A tag does not fit its ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("authentication failed")]
pub(in crate::protocol) struct AuthenticationFailed;
