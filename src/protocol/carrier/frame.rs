//! Frames: what a record of a carrier holds.
//!
//! ```text
//! type(1) ‖ stream(4, big endian) ‖ length(2, big endian) ‖ payload(length)
//! ```
//!
//! PAD is one byte without a header: it and all to the record's end are zeros.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use super::violation::Violation;
use crate::protocol::extensions::{Extensions, ExtensionsError};
use crate::protocol::record::AbortReason;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER: usize = 1 + 4 + 2;

/// The number of a stream on its carrier: from 1, each higher than all before (rule C3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(NonZeroU32);

impl StreamId {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// The one with this number, for tests of those who use carriers.
    #[cfg(any(test, fuzzing))]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Self::new(number)
    }

    /// The first one of a carrier.
    pub(super) const FIRST: Self = Self(NonZeroU32::MIN);

    /// The one with this number, which is not 0.
    pub(in crate::protocol) const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The next one; `None` when all numbers are used.
    pub(super) const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of a frame: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameType {
    /// 1, from the initiator: connect to the target for this stream.
    Open,
    /// 2, from the responder: the target accepted.
    Opened,
    /// 3: at least one byte of the stream.
    Data,
    /// 4: the authenticated end of this direction.
    End,
    /// 5: the stream is over.
    Abort,
    /// 6: so many more bytes of DATA may be sent.
    Credit,
    /// 7: what this side still says of the stream, it says in its session.
    Moved,
    /// 8, from the responder, stream 0, once: open no more.
    GoAway,
    /// 9, the last frame of this direction: all of the other one is passed on.
    Done,
}

impl FrameType {
    /// The byte on the wire.
    const fn byte(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Opened => 2,
            Self::Data => 3,
            Self::End => 4,
            Self::Abort => 5,
            Self::Credit => 6,
            Self::Moved => 7,
            Self::GoAway => 8,
            Self::Done => 9,
        }
    }

    /// The type a byte names.
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Open),
            2 => Some(Self::Opened),
            3 => Some(Self::Data),
            4 => Some(Self::End),
            5 => Some(Self::Abort),
            6 => Some(Self::Credit),
            7 => Some(Self::Moved),
            8 => Some(Self::GoAway),
            9 => Some(Self::Done),
            _ => None,
        }
    }
}

/// The byte that fills a record up.
const PAD: u8 = 0;

/// A frame of a stream, read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The extensions, or what is wrong in them for this stream alone.
    Open(Result<Extensions, NotUnderstood>),
    Opened(Result<Extensions, NotUnderstood>),
    /// Where the bytes stand in what the frame was read from.
    Data(Range<usize>),
    End,
    Done,
    Abort(AbortReason),
    /// 1 or more.
    Credit(NonZeroU32),
    Moved,
}

/// An extension of a later version, which must be understood: ABORT 8, for this stream alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood;

/// What stands next in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame of this stream.
    Stream(StreamId, Frame),
    /// GOAWAY.
    GoAway(AbortReason),
    /// The record is over.
    Nothing,
}

/// Reads the frame at `at` in `body`, and moves `at` behind it.
///
/// # Errors
/// When there is none (rule C7).
pub(super) fn read(body: &[u8], at: &mut usize) -> Result<Next, Violation> {
    let rest = body.get(*at..).unwrap_or_default();
    let (kind, header_rest) = match rest.split_first() {
        None => return Ok(Next::Nothing),
        Some((&PAD, zeros)) if zeros.iter().all(|byte| *byte == PAD) => {
            *at = body.len();
            return Ok(Next::Nothing);
        }
        Some((&PAD, _)) => return Err(Violation::Padding),
        Some((kind, rest)) => (FrameType::from_byte(*kind).ok_or(Violation::Type)?, rest),
    };
    let (number, length_rest) = header_rest.split_first_chunk().ok_or(Violation::Length)?;
    let (length, payload) = length_rest.split_first_chunk().ok_or(Violation::Length)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let payload = payload.get(..length).ok_or(Violation::Length)?;
    let start = at.saturating_add(FRAME_HEADER);
    *at = start.saturating_add(length);
    match (StreamId::new(u32::from_be_bytes(*number)), kind, payload) {
        (None, FrameType::GoAway, [reason]) => Ok(Next::GoAway(AbortReason::from_byte(*reason))),
        (None, FrameType::GoAway, _) => Err(Violation::Length),
        (None, _, _) | (Some(_), FrameType::GoAway, _) => Err(Violation::Number),
        (Some(id), kind, payload) => Ok(Next::Stream(id, of_stream(kind, payload, start..*at)?)),
    }
}

/// Reads the payload of a frame of a stream; `range` is where the payload stands.
fn of_stream(kind: FrameType, payload: &[u8], range: Range<usize>) -> Result<Frame, Violation> {
    match (kind, payload) {
        (FrameType::Open, payload) => Ok(Frame::Open(read_extensions(payload)?)),
        (FrameType::Opened, payload) => Ok(Frame::Opened(read_extensions(payload)?)),
        (FrameType::Data, [_, ..]) => Ok(Frame::Data(range)),
        (FrameType::End, []) => Ok(Frame::End),
        (FrameType::Done, []) => Ok(Frame::Done),
        (FrameType::Moved, []) => Ok(Frame::Moved),
        (FrameType::Abort, [reason]) => Ok(Frame::Abort(AbortReason::from_byte(*reason))),
        (FrameType::Credit, [a, b, c, d]) => NonZeroU32::new(u32::from_be_bytes([*a, *b, *c, *d]))
            .map(Frame::Credit)
            .ok_or(Violation::NoCredit),
        _ => Err(Violation::Length),
    }
}

/// Reads extensions: whether they can be understood.
pub(crate) fn read_extensions(
    payload: &[u8],
) -> Result<Result<Extensions, NotUnderstood>, Violation> {
    match Extensions::parse(payload) {
        Ok(extensions) => Ok(Ok(extensions)),
        Err(ExtensionsError::NotUnderstood) => Ok(Err(NotUnderstood)),
        Err(ExtensionsError::Violation) => Err(Violation::Extensions),
    }
}

/// The header of a frame with a payload of `length` bytes.
pub(super) const fn header(
    kind: FrameType,
    id: Option<StreamId>,
    length: u16,
) -> [u8; FRAME_HEADER] {
    let number = match id {
        Some(id) => id.number(),
        None => 0,
    };
    let [a, b, c, d] = number.to_be_bytes();
    let [high, low] = length.to_be_bytes();
    [kind.byte(), a, b, c, d, high, low]
}
