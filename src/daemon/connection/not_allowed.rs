//! Why a client may not use a sender.

use std::io;

use thiserror::Error;

/// Why a client may not use a sender.
#[derive(Debug, Error)]
pub(crate) enum NotAllowed {
    #[error("the client's user may not use this sender")]
    User {
        uid: u32,
        /// The process, where it is known.
        pid: Option<u32>,
    },
    #[error("it is not known whose client this is: {0}")]
    Unknown(io::Error),
}

impl NotAllowed {
    /// What may help the operator.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::User { .. } => "--allow-uid and --allow-gid name who may",
            Self::Unknown(_) => "whoever closes at once cannot be identified, and is refused",
        }
    }

    /// The user and the process, as far as they are known.
    pub(crate) const fn who(&self) -> (Option<u32>, Option<u32>) {
        match self {
            Self::User { uid, pid } => (Some(*uid), *pid),
            Self::Unknown(_) => (None, None),
        }
    }
}
