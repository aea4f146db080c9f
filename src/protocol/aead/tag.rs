//! The tag that authenticates what is sealed.

use thiserror::Error;

/// The length of a tag.
pub(in crate::protocol) const TAG: usize = 16;

/// A tag that does not fit what it should authenticate. Says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("authentication failed")]
pub(in crate::protocol) struct AuthenticationFailed;
