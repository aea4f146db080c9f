//! The handshake: Noise NNpsk0 (revision 34, sections 5, 7 and 9), and with the hybrid
//! suites the extension HFS (revision 1).
//!
//! ```text
//! NNpsk0:                                                              bytes
//!   -> psk, e         suite(1) ‖ hint(8) ‖ e_I(32) ‖ tag(16)           57
//!   <- e, ee          e_R(32) ‖ tag(16)                                48
//!
//! NNhfs+psk0:
//!   -> psk, e, e1     suite(1) ‖ hint(8) ‖ e_I(32) ‖ ek(1200) ‖ tag(16)  1257
//!   <- e, ee, ekem1   e_R(32) ‖ ct(1104) ‖ tag(16)                     1152
//! ```
//!
//! `ek` is the KEM's encapsulation key and `ct` its ciphertext, each encrypted, with a tag.
//! The prologue is `spiped-2`, the suite's byte and the hint, so an altered suite or hint
//! fails the first tag. Each phase consumes the one before: an [`Initiator`] becomes a
//! [`Session`]; a [`Greeting`] becomes a [`Responder`], which has the reply and the session
//! at once.

mod ephemeral;
mod error;
mod initiator;
mod message;
mod responder;
mod session;

pub use self::error::HandshakeError;
pub use self::initiator::Initiator;
pub use self::responder::{Greeting, Responder};
pub use self::session::Session;

/// Bytes of the longest message of an initiator.
pub const MESSAGE_1_MAX: usize = 1257;
