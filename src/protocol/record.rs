//! Records: their sizes, their kinds, and the reasons in an ABORT.
//!
//! ```text
//! length(2, big endian) ‖ ciphertext(length)          on the wire
//! kind(1) ‖ body  sealed into  ciphertext ‖ tag(16)   a Noise transport message
//! ```

use std::fmt;

use thiserror::Error;

use super::aead::TAG;
use super::extensions::{CLIENT_MAX, EXTENSIONS_MAX};

/// Bytes of the length before each record.
pub const HEADER: usize = 2;
/// Bytes of a record before its body: length and kind.
pub const PREFIX: usize = HEADER + 1;
/// Bytes of a record after its body: the tag.
pub const SUFFIX: usize = TAG;
/// Bytes of a record beside its body.
pub const OVERHEAD: usize = PREFIX + SUFFIX;
/// The longest ciphertext, tag included: Noise's limit for a message (section 3).
const CIPHERTEXT_MAX: usize = 65_535;
/// The longest record on the wire.
pub const RECORD_MAX: usize = HEADER + CIPHERTEXT_MAX;
/// The longest first record on the wire (rule R1): OPEN with the longest extensions.
pub const FIRST_RECORD_MAX: usize = OVERHEAD + EXTENSIONS_MAX;
/// The longest OPEN that this version sends: with a client's IPv6 address.
pub const OPEN_MAX: usize = OVERHEAD + CLIENT_MAX;
/// The longest CARRIED on the wire: with the longest extensions.
pub const CARRIED_MAX: usize = OVERHEAD + CARRIED_HEAD + EXTENSIONS_MAX;
/// Bytes of the secret in CARRIED.
pub(super) const SECRET: usize = 32;
/// Bytes of the proof in JOIN.
pub(super) const PROOF: usize = 16;
/// Bytes of CARRIED before its extensions: `streams(4) ‖ secret(32)`.
pub(super) const CARRIED_HEAD: usize = 4 + SECRET;
/// The most bytes of frames that a record of a carrier holds.
pub const FRAMES_MAX: usize = 16_384;
/// Bytes of JOIN's body: `connection id(8) ‖ stream(4) ‖ proof(16)`.
pub(super) const JOIN_BODY: usize = 8 + 4 + PROOF;
/// Bytes of the count that a PADDED body begins with.
pub const PADDED_COUNT: usize = 2;

/// The kind of a record: the first byte of its plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 1, from the initiator, once: connect to the target.
    Open,
    /// 2, from the responder, once: the target accepted.
    Opened,
    /// 3: at least one byte of the stream.
    Data,
    /// 4: the authenticated end of this direction.
    End,
    /// 5: refused or failed; one byte says why.
    Abort,
    /// 6: DATA with a count before it and zeros behind it.
    Padded,
    /// 7, from the initiator, in the place of OPEN: this session is a carrier.
    Carry,
    /// 8, from the responder, in the place of OPENED: so be it.
    Carried,
    /// 9, on a carrier: frames of its streams.
    Frames,
    /// 10, from the initiator, in the place of OPEN: this session takes over a stream.
    Join,
    /// 11, the last record of this direction: all of the other one is passed on.
    Done,
}

impl Kind {
    /// The byte on the wire.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Opened => 2,
            Self::Data => 3,
            Self::End => 4,
            Self::Abort => 5,
            Self::Padded => 6,
            Self::Carry => 7,
            Self::Carried => 8,
            Self::Frames => 9,
            Self::Join => 10,
            Self::Done => 11,
        }
    }

    /// The kind a byte names.
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Open),
            2 => Some(Self::Opened),
            3 => Some(Self::Data),
            4 => Some(Self::End),
            5 => Some(Self::Abort),
            6 => Some(Self::Padded),
            7 => Some(Self::Carry),
            8 => Some(Self::Carried),
            9 => Some(Self::Frames),
            10 => Some(Self::Join),
            11 => Some(Self::Done),
            _ => None,
        }
    }
}

/// The reason in an ABORT: why its side gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// 1: the target refused the connection.
    TargetRefused,
    /// 2: the target did not answer in time.
    TargetTimedOut,
    /// 3: the target cannot be reached, or its name does not resolve.
    TargetUnreachable,
    /// 4: the responder has reached its connection limit.
    ConnectionLimit,
    /// 5: the local peer of the side that gave up reset its connection.
    LocalPeerReset,
    /// 6: the side that gave up is shutting down.
    ShuttingDown,
    /// 7: the key was replaced since the session was made.
    KeyReplaced,
    /// 8: a record or an extension of a later version, which must be understood.
    NotUnderstood,
    /// 9: what was asked for is not to be had here.
    NotAvailable,
    /// 10: the key was revoked.
    KeyRevoked,
    /// Any other byte: 0 for none of these, or a reason of a later version.
    Other(u8),
}

impl AbortReason {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::TargetRefused => 1,
            Self::TargetTimedOut => 2,
            Self::TargetUnreachable => 3,
            Self::ConnectionLimit => 4,
            Self::LocalPeerReset => 5,
            Self::ShuttingDown => 6,
            Self::KeyReplaced => 7,
            Self::NotUnderstood => 8,
            Self::NotAvailable => 9,
            Self::KeyRevoked => 10,
            Self::Other(byte) => byte,
        }
    }

    /// The reason a byte names.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::TargetRefused,
            2 => Self::TargetTimedOut,
            3 => Self::TargetUnreachable,
            4 => Self::ConnectionLimit,
            5 => Self::LocalPeerReset,
            6 => Self::ShuttingDown,
            7 => Self::KeyReplaced,
            8 => Self::NotUnderstood,
            9 => Self::NotAvailable,
            10 => Self::KeyRevoked,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetRefused => {
                f.write_str("the server behind the receiver refused the connection")
            }
            Self::TargetTimedOut => {
                f.write_str("the server behind the receiver did not answer in time")
            }
            Self::TargetUnreachable => {
                f.write_str("the server behind the receiver cannot be reached")
            }
            Self::ConnectionLimit => f.write_str("the receiver has reached its connection limit"),
            Self::LocalPeerReset => f.write_str("the peer beyond the tunnel reset its connection"),
            Self::ShuttingDown => f.write_str("the other end is shutting down"),
            Self::KeyReplaced => f.write_str("the receiver has another key now"),
            Self::NotUnderstood => {
                f.write_str("the other end does not understand what this version asks for")
            }
            Self::NotAvailable => f.write_str("the other end does not offer what was asked for"),
            Self::KeyRevoked => f.write_str("the receiver has revoked this key"),
            Self::Other(byte) => write!(f, "the other end gave up for reason {byte}"),
        }
    }
}

/// The padding (`--pad`): plaintexts are filled up to a multiple of this many bytes, from 2
/// to 16,384.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding(u16);

/// The padding is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("padding must be a multiple of {} to {} bytes", Padding::MIN, Padding::MAX)]
pub struct PaddingError;

impl Padding {
    /// The smallest multiple.
    pub const MIN: u16 = 2;
    /// The largest multiple.
    pub const MAX: u16 = 16_384;

    /// A padding to multiples of `bytes`.
    ///
    /// # Errors
    /// When `bytes` is out of bounds.
    pub const fn new(bytes: u16) -> Result<Self, PaddingError> {
        if bytes < Self::MIN || bytes > Self::MAX {
            return Err(PaddingError);
        }
        Ok(Self(bytes))
    }

    /// The multiple, in bytes.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}
