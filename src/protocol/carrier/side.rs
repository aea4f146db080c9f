//! The two ends of a carrier.

/// Which end of a carrier this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender of the pipe: it opens streams.
    Initiator,
    /// The receiver of the pipe: it answers them.
    Responder,
}
