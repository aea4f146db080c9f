//! The rules of frames once more, by what was said before; see `crate::protocol::carrier`.

use std::ops::Range;

use crate::protocol::AbortReason;
use crate::protocol::Extensions;
use crate::protocol::carrier::{FIRST_CREDIT, FRAME_HEADER, NotUnderstood, Side, read_extensions};

/// The most credit that may be unspent.
pub(super) const CREDIT_MAX: u64 = 0x7fff_ffff;

/// The bytes are no frame, or one that may not come.
#[derive(Debug)]
pub(super) struct Broken;

/// A frame, whatever its stream.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Open(Result<Extensions, NotUnderstood>),
    Opened(Result<Extensions, NotUnderstood>),
    /// Where the bytes stand.
    Data(Range<usize>),
    End,
    Abort(AbortReason),
    Credit(u64),
    Moved,
    GoAway(AbortReason),
    Done,
}

/// Reads the number and the frame at `at`, and moves `at` behind it; `None` at the end.
pub(super) fn read(held: &[u8], at: &mut usize) -> Result<Option<(u32, Frame)>, Broken> {
    let rest = &held[*at..];
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let [kind, a, b, c, d, high, low, payload @ ..] = rest else { return Err(Broken) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let payload = payload.get(..length).ok_or(Broken)?;
    let start = *at + FRAME_HEADER;
    *at = start + length;
    let frame = match (kind, payload) {
        (1, extensions) => Frame::Open(read_extensions(extensions).map_err(|_| Broken)?),
        (2, extensions) => Frame::Opened(read_extensions(extensions).map_err(|_| Broken)?),
        (3, [_, ..]) => Frame::Data(start..*at),
        (4, []) => Frame::End,
        (5, [reason]) => Frame::Abort(AbortReason::from_byte(*reason)),
        (6, [0, 0, 0, 0]) => return Err(Broken),
        (6, [a, b, c, d]) => Frame::Credit(u32::from_be_bytes([*a, *b, *c, *d]).into()),
        (7, []) => Frame::Moved,
        (8, [reason]) => Frame::GoAway(AbortReason::from_byte(*reason)),
        (9, []) => Frame::Done,
        _ => return Err(Broken),
    };
    Ok(Some((u32::from_be_bytes([*a, *b, *c, *d]), frame)))
}

/// What a side has said of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "a flag for each frame that is said once")]
pub(super) struct Said {
    /// An initiator's OPEN, a responder's OPENED.
    pub(super) open: bool,
    pub(super) end: bool,
    pub(super) done: bool,
    pub(super) moved: bool,
    pub(super) abort: bool,
    /// Bytes of DATA, and of CREDIT.
    pub(super) bytes: u64,
    pub(super) credit: u64,
}

impl Said {
    /// Whether the side that has said this may say a frame next, but OPEN and GOAWAY; the
    /// other side has said `other`.
    pub(super) fn may_say(&self, side: Side, frame: &Frame, other: &Self) -> bool {
        let may_say_bytes = self.open && !self.end && !self.moved;
        match frame {
            Frame::Opened(_) => side == Side::Responder && !self.open,
            Frame::Data(range) => may_say_bytes && self.bytes + bytes(range) <= other.may_be_sent(),
            Frame::End => may_say_bytes,
            Frame::Done => self.end && other.end && !self.done && !self.moved,
            Frame::Abort(_) => !self.done,
            // None counts where the other side has no more to say here.
            Frame::Credit(more) => {
                let unspent = self.may_be_sent() + more - other.bytes;
                self.open && (other.end || other.moved || unspent <= CREDIT_MAX)
            }
            Frame::Moved => {
                let may_move = match side {
                    Side::Initiator => other.moved,
                    Side::Responder => !self.done,
                };
                self.open && !self.moved && may_move
            }
            Frame::Open(_) | Frame::GoAway(_) => false,
        }
    }

    /// How much DATA the other side may send in all.
    pub(super) fn may_be_sent(&self) -> u64 {
        u64::from(FIRST_CREDIT) + self.credit
    }

    /// Whether this has, beside what may be said any number of times, this frame.
    pub(super) fn has(&self, frame: &Frame) -> bool {
        match frame {
            Frame::Open(_) | Frame::Opened(_) => self.open,
            Frame::End => self.end,
            Frame::Done => self.done,
            Frame::Moved => self.moved,
            Frame::Abort(_) => self.abort,
            Frame::Data(_) | Frame::Credit(_) | Frame::GoAway(_) => true,
        }
    }

    pub(super) fn add(&mut self, frame: &Frame) {
        match frame {
            Frame::Open(_) | Frame::Opened(_) => self.open = true,
            Frame::Data(range) => self.bytes += bytes(range),
            Frame::End => self.end = true,
            Frame::Done => self.done = true,
            Frame::Abort(_) => self.abort = true,
            Frame::Credit(more) => self.credit += more,
            Frame::Moved => self.moved = true,
            Frame::GoAway(_) => {}
        }
    }
}

fn bytes(range: &Range<usize>) -> u64 {
    u64::try_from(range.len()).unwrap()
}
