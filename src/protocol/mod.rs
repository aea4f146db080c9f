//! The wire protocol: bytes in, bytes out.
//!
//! Nothing here knows a socket, a clock or a file, and randomness is handed in. The
//! handshake is standard Noise (revision 34): patterns **`NNpsk0`** and, with the hybrid
//! key exchange, **`NNhfs+psk0`**; X25519, ML-KEM-768, SHA-256, a 32-byte pre-shared key.
//! The sender (`-e`) is the initiator, the receiver (`-d`) the responder.
//! `man/spiped-protocol.7` describes the protocol for other implementations.
//!
//! # The initiator
//!
//! - **I1.** Choose a suite; send `suite(1) ‖ hint(8) ‖ e_I(32) ‖ tag(16)`, 57 bytes. With
//!   the hybrid exchange the KEM's key, `ek(1200)`, stands before the tag: 1257 bytes.
//! - **I2.** Read 48 bytes, `e_R(32) ‖ tag(16)`; 1152 with the KEM's `ct(1104)` before the
//!   tag. A wrong tag or an all-zero Diffie-Hellman result ends the connection.
//! - **I3.** Send OPEN, in one write with the first DATA where there is some; without DATA,
//!   send OPEN at once.
//! - **I4.** The first record from the responder is OPENED, or ABORT.
//!
//! # The responder
//!
//! - **R1.** Read message 1. If the first byte names no suite, or one that is not accepted,
//!   or the message is a known one, close at once. Compute the hint of each key, and try on
//!   the tags only a key whose hint fits. If none fits, close without an answer. If one
//!   fits, the message is known from now on.
//! - **R2.** Only now generate a key, do Diffie-Hellman and encapsulate; send message 2.
//! - **R3.** Read the first record, of at most 274 bytes: OPEN, or one empty PADDED and OPEN
//!   later. Either record proves the initiator live, since message 1 may be a replay. Only
//!   now does the connection count. Answer a record of an unknown kind by ABORT.
//! - **R4.** On OPEN connect to the target: send OPENED, or ABORT with the reason.
//!
//! # Both
//!
//! - **B1.** The stream goes in DATA records (or PADDED), each
//!   `length(2, big endian) ‖ ciphertext`, sealed in order with nonces 0, 1, 2, …
//! - **B2.** Before record 2^20, 2·2^20, … of a direction: Noise's `Rekey()`.
//! - **B3.** At the end of the local stream, send END. A side that has sent END, has passed
//!   on all that came before the other side's END, and has ended that stream, sends DONE:
//!   its last record. The connection has ended well once DONE went both ways, and either
//!   side then closes it. A DONE before the END of this side was sent is a violation, and
//!   so is any record after DONE; between END and DONE, an ABORT may come. The end of the
//!   TCP connection says nothing: without DONE it is a truncation.
//! - **B4.** Whatever fails, send ABORT where it can still be sent, then close. A side that
//!   gets an ABORT, a truncation or a wrong record resets its local peer, unless the peer
//!   has got END already: then the peer's stream is complete, and is closed.

// The bytes are hostile here: an impossible length is an error, never a panic. Elsewhere a
// wrong range or count is our own mistake, and must end its connection.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod aead;
pub mod carrier;
mod dh;
mod extensions;
mod handshake;
mod hkdf;
mod ids;
mod kem;
mod keys;
mod opener;
mod record;
mod replay;
mod sealer;
mod stranger;
mod suite;
mod symmetric_state;
mod transport;

#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use extensions::{Client, Extensions};
pub use handshake::{Greeting, HandshakeError, Initiator, MESSAGE_1_MAX, Responder, Session};
pub use ids::{ConnectionId, HandshakeHash, KeyId};
pub use kem::warm_up;
pub use keys::{
    HINT_KEY, HintKeys, KEY_FILE_MAX, KEY_FILE_MIN, KEY_SECRETS, KeyLengthError, SharedKey,
};
pub use opener::{Join, OpenError, Opener, Record};
pub use record::{
    AbortReason, CARRIED_MAX, FIRST_RECORD_MAX, FRAMES_MAX, HEADER, OPEN_MAX, OVERHEAD,
    PADDED_COUNT, PREFIX, Padding, PaddingError, RECORD_MAX, SUFFIX,
};
pub use replay::ReplaySet;
pub use sealer::{SealError, Sealer};
pub use stranger::LooksLike;
pub use suite::{Accepted, Cipher, Kex, Suite};
pub use transport::Exhausted;
