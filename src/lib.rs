//! `spiped`: an encrypted, authenticated pipe between two sockets.
//!
//! ```text
//!             sender (-e)                                receiver (-d)
//! client ──▶ source   target ══ handshake, records ══▶ source   target ──▶ server
//!   plaintext                        encrypted                     plaintext
//! ```
//!
//! [`protocol`]: the handshake and the records.

pub mod protocol;
