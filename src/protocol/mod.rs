//! The wire protocol: bytes in, bytes out.
//!
//! Nothing here knows a socket, a clock or a file, and randomness is handed in. The
//! handshake is standard Noise (revision 34): pattern **`NNpsk0`**, X25519, SHA-256, a
//! 32-byte pre-shared key. The sender (`-e`) is the initiator, the receiver (`-d`) the
//! responder. `man/spiped-protocol.7` describes the protocol for other implementations.
//!
//! # The initiator
//!
//! - **I1.** Choose a suite; send `suite(1) ‖ e_I(32) ‖ tag(16)`, 49 bytes.
//! - **I2.** Read 48 bytes, `e_R(32) ‖ tag(16)`. A wrong tag or an all-zero
//!   Diffie-Hellman result ends the connection.
//! - **I3.** Send OPEN, in one write with the first DATA where there is some; without DATA,
//!   send OPEN at once.
//! - **I4.** The first record from the responder is OPENED, or ABORT.
//!
//! # The responder
//!
//! - **R1.** Read 49 bytes. If the first byte names no suite, or the message is a known
//!   one, close at once. Try each key on the tag. If none fits, close without an answer.
//!   If one fits, the message is known from now on.
//! - **R2.** Only now generate a key and do Diffie-Hellman; send
//!   `e_R(32) ‖ tag(16)`, 48 bytes.
//! - **R3.** Read the first record, of at most 21 bytes: OPEN, or one empty PADDED
//!   (without zeros) and OPEN later. Either record proves the initiator live, since
//!   message 1 may be a replay. Only now does the connection count.
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
mod dh;
mod handshake;
mod hkdf;
mod keys;
mod opener;
mod record;
mod replay;
mod sealer;
mod stranger;
mod suite;
mod symmetric_state;
mod transport;

#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub(crate) use handshake::keyed_message;
pub use handshake::{
    Greeting, HandshakeError, Initiator, MESSAGE_1, MESSAGE_2, Responder, Session,
};
pub use keys::{KEY_FILE_MAX, KEY_FILE_MIN, KeyId, KeyLengthError, SharedKey};
pub use opener::{OpenError, Opener, Record};
pub use record::{
    AbortReason, HEADER, OVERHEAD, PADDED_COUNT, PREFIX, Padding, PaddingError, RECORD_MAX,
    RECORD_MAX_BEFORE_OPEN, SUFFIX,
};
pub use replay::ReplaySet;
pub use sealer::{SealError, Sealer};
pub use stranger::LooksLike;
pub use suite::Suite;
pub use transport::Exhausted;

/// Who opens the records of a direction; for tests only.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// They come from the responder.
    Initiator,
    /// They come from the initiator.
    Responder,
}

/// Both ends of one direction, without a handshake; for tests only.
#[cfg(any(test, fuzzing))]
pub(crate) fn one_direction(
    suite: Suite,
    key: [u8; 32],
    to: To,
    rekey_interval: u64,
) -> (Sealer, Opener) {
    let cipher = || aead::Cipher::new(suite, &key);
    let transport = || transport::Transport::new(cipher(), rekey_interval);
    let opener = match to {
        To::Initiator => Opener::of_initiator,
        To::Responder => Opener::of_responder,
    };
    (Sealer::new(transport()), opener(transport()))
}
