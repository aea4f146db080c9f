//! One stream at one side of a carrier: what was said of it, and the credit each way.

use super::frame::{Frame, FrameType};
use super::side::Side;
use super::violation::Violation;
use crate::protocol::record::AbortReason;

/// The credit that each direction begins with, in bytes of DATA (rule C8).
pub const FIRST_CREDIT: u32 = 65_536;
/// How many bytes the local socket takes before CREDIT is sent for them.
const CREDIT_STEP: u32 = FIRST_CREDIT / 2;
/// The most credit that may be unspent (rule C7).
const CREDIT_MAX: u32 = i32::MAX.unsigned_abs();

/// A set of types of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frames(u16);

impl Frames {
    const fn of(kind: FrameType) -> u16 {
        match kind {
            FrameType::Open => 1,
            FrameType::Opened => 1 << 1,
            FrameType::Data => 1 << 2,
            FrameType::End => 1 << 3,
            FrameType::Done => 1 << 4,
            FrameType::Abort => 1 << 5,
            FrameType::Credit => 1 << 6,
            FrameType::Moved => 1 << 7,
            FrameType::GoAway => 1 << 8,
        }
    }

    const fn has(self, kind: FrameType) -> bool {
        self.0 & Self::of(kind) != 0
    }

    const fn add(&mut self, kind: FrameType) {
        self.0 |= Self::of(kind);
    }
}

/// How far an initiator has come with a session for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    /// It has not begun.
    No,
    /// The session is being made, or waits for MOVED.
    Begun,
    /// The session was refused or has failed (C10, C14): the stream stays.
    Lost,
}

/// The state of a stream. What is to be sent is the difference of `said` and `written`, never
/// a queue (D1).
#[cfg_attr(any(test, fuzzing), derive(Clone))]
pub(super) struct Stream {
    /// What this side says, whether the frames are written or not.
    said: Frames,
    written: Frames,
    received: Frames,
    /// Bytes of DATA that this side may still send.
    credit: u32,
    /// Bytes of DATA that the other side may still send.
    window: u32,
    /// Bytes that the local socket took since the last CREDIT.
    owed: u32,
    join: Join,
    /// Of an ABORT that is said and not written.
    reason: AbortReason,
    /// Whether the stream is in the carrier's queue of those that have something to write.
    pub(super) is_queued: bool,
}

/// What a frame means for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// To be told.
    Told,
    /// Nothing new: CREDIT that this side does not need any more.
    Ignored,
    /// MOVED for a session that has failed (C14): this side has said ABORT.
    JoinLost,
}

impl Stream {
    /// A stream that this side, an initiator, opens, or that OPEN has opened.
    pub(super) fn new(side: Side) -> Self {
        let mut stream = Self {
            said: Frames::default(),
            written: Frames::default(),
            received: Frames::default(),
            credit: FIRST_CREDIT,
            window: FIRST_CREDIT,
            owed: 0,
            join: Join::No,
            reason: AbortReason::Other(0),
            is_queued: false,
        };
        match side {
            Side::Initiator => stream.said.add(FrameType::Open),
            Side::Responder => stream.received.add(FrameType::Open),
        }
        stream
    }

    /// Whether nothing more of the stream matters here, and all is written that this side has
    /// said of it (C5, C15, D1).
    pub(super) fn is_over(&self, side: Side) -> bool {
        let is_written = self.said == self.written;
        let ended = self.said.has(FrameType::Done) && self.received.has(FrameType::Done);
        let said_last = self.said.has(FrameType::Abort) || ended;
        let has_left = match side {
            Side::Initiator => self.said.has(FrameType::Moved),
            Side::Responder => self.received.has(FrameType::Moved),
        };
        self.received.has(FrameType::Abort) || (is_written && (said_last || has_left))
    }

    /// Whether frames of the stream still mean something.
    pub(super) const fn is_aborted(&self) -> bool {
        self.said.has(FrameType::Abort)
    }

    // What this side says.

    /// How many bytes of DATA may be sent now. None after END, MOVED and ABORT, and before a
    /// responder's OPENED.
    pub(super) fn sendable(&self) -> u32 {
        let is_open = self.said.has(FrameType::Open) || self.said.has(FrameType::Opened);
        let has_ended = [FrameType::End, FrameType::Moved, FrameType::Abort];
        if is_open && !has_ended.iter().any(|kind| self.said.has(*kind)) { self.credit } else { 0 }
    }

    /// DATA was written.
    pub(super) fn spent(&mut self, bytes: u32) {
        match self.credit.checked_sub(bytes) {
            Some(credit) => self.credit = credit,
            None => unreachable!("DATA is written only as far as there is credit"),
        }
    }

    /// Says a frame.
    ///
    /// # Panics
    /// When it may not be said now.
    pub(super) fn say(&mut self, kind: FrameType) {
        let said = |kind| self.said.has(kind);
        let may = match kind {
            FrameType::Opened => self.received.has(FrameType::Open) && !said(FrameType::Opened),
            FrameType::End => {
                (said(FrameType::Open) || said(FrameType::Opened)) && !said(FrameType::End)
            }
            FrameType::Done => {
                let both = said(FrameType::End) && self.received.has(FrameType::End);
                both && !said(FrameType::Done)
            }
            FrameType::Moved => {
                said(FrameType::Opened) && !said(FrameType::Moved) && !said(FrameType::Done)
            }
            FrameType::Open
            | FrameType::Data
            | FrameType::Abort
            | FrameType::Credit
            | FrameType::GoAway => false,
        };
        let has_moved = said(FrameType::Moved);
        assert!(may && !has_moved && !self.is_aborted(), "{kind:?} may not be said now");
        self.said.add(kind);
    }

    /// Says ABORT where it may, and drops what is not written (D1).
    pub(super) fn abort(&mut self, reason: AbortReason) -> Abort {
        let is_known = self.received.has(FrameType::Open) || self.written.has(FrameType::Open);
        if !is_known || self.written.has(FrameType::Moved) {
            return Abort::Forgotten;
        }
        if self.written.has(FrameType::Done) {
            return Abort::Needless;
        }
        self.said = self.written;
        self.said.add(FrameType::Abort);
        self.reason = reason;
        Abort::Said
    }

    /// The local socket took bytes that came over the carrier. Returns whether CREDIT is to be
    /// sent.
    pub(super) fn taken(&mut self, bytes: u32) -> bool {
        self.owed = self.owed.saturating_add(bytes);
        assert!(
            self.owed.saturating_add(self.window) <= FIRST_CREDIT,
            "the local socket took more than came"
        );
        self.credit_due().is_some()
    }

    /// How much CREDIT is to be sent. None is owed to a side that sends no more DATA here, and
    /// none is sent once this side has moved (C8, C11).
    fn credit_due(&self) -> Option<u32> {
        let sends_no_more =
            self.received.has(FrameType::End) || self.received.has(FrameType::Moved);
        let says_no_more = self.said.has(FrameType::Moved) || self.is_aborted();
        (self.owed >= CREDIT_STEP && !sends_no_more && !says_no_more).then_some(self.owed)
    }

    /// The next frame to be written, but OPEN, with its payload.
    pub(super) fn next_due(&self) -> Option<Due> {
        let is_due = |kind| self.said.has(kind) && !self.written.has(kind);
        if is_due(FrameType::Abort) {
            return Some(Due::Abort(self.reason));
        }
        if is_due(FrameType::Opened) {
            return Some(Due::Empty(FrameType::Opened));
        }
        if let Some(bytes) = self.credit_due() {
            return Some(Due::Credit(bytes));
        }
        let rest = [FrameType::End, FrameType::Done, FrameType::Moved];
        rest.into_iter().find(|kind| is_due(*kind)).map(Due::Empty)
    }

    /// Whether OPEN is still to be written.
    pub(super) const fn is_open_due(&self) -> bool {
        self.said.has(FrameType::Open) && !self.written.has(FrameType::Open)
    }

    /// A frame is written.
    pub(super) fn wrote(&mut self, kind: FrameType) {
        if kind == FrameType::Credit {
            self.window = self.window.saturating_add(self.owed);
            self.owed = 0;
        } else {
            self.written.add(kind);
        }
    }

    // Moving.

    /// Whether an initiator may begin to move the stream (C9): once, after OPENED, and as long
    /// as either side has more to say than DONE.
    pub(super) fn may_join(&self) -> bool {
        let ended = self.said.has(FrameType::End) && self.received.has(FrameType::End);
        self.received.has(FrameType::Opened)
            && self.join == Join::No
            && !ended
            && !self.is_aborted()
    }

    pub(super) fn join(&mut self) {
        assert!(self.may_join(), "a stream may not be moved now");
        self.join = Join::Begun;
    }

    pub(super) fn join_lost(&mut self) {
        self.join = Join::Lost;
    }

    /// Whether a responder may accept a session for the stream (C10).
    pub(super) const fn may_accept_join(&self) -> bool {
        self.said.has(FrameType::Opened)
            && !self.said.has(FrameType::Moved)
            && !self.said.has(FrameType::Done)
            && !self.is_aborted()
    }

    // What the other side says.

    /// Takes a frame of a stream that this side has not aborted.
    ///
    /// # Errors
    /// When the frame may not come now (C4, C7, C14).
    pub(super) fn receive(&mut self, side: Side, frame: &Frame) -> Result<Received, Violation> {
        let kind = frame.kind();
        self.check_order(side, kind)?;
        match frame {
            Frame::Data(range) => {
                let bytes = u32::try_from(range.len()).map_err(|_| Violation::Length)?;
                self.window = self.window.checked_sub(bytes).ok_or(Violation::BeyondCredit)?;
            }
            Frame::Credit(bytes) => {
                if self.said.has(FrameType::End) || self.said.has(FrameType::Moved) {
                    return Ok(Received::Ignored);
                }
                let credit = self.credit.checked_add(bytes.get());
                self.credit =
                    credit.filter(|sum| *sum <= CREDIT_MAX).ok_or(Violation::TooMuchCredit)?;
            }
            Frame::Done if !self.written.has(FrameType::End) => return Err(Violation::Unfounded),
            Frame::Moved => return self.receive_moved(side),
            Frame::Open(_) | Frame::Opened(_) | Frame::End | Frame::Done | Frame::Abort(_) => {
                self.received.add(kind);
            }
        }
        Ok(Received::Told)
    }

    /// Whether a frame of this kind may come, as far as only its order counts.
    fn check_order(&self, side: Side, kind: FrameType) -> Result<(), Violation> {
        let received = |kind| self.received.has(kind);
        match (side, kind) {
            (Side::Initiator, FrameType::Opened | FrameType::Abort) => {}
            (Side::Responder, FrameType::Opened) => return Err(Violation::WrongEnd),
            // C4: a responder answers first.
            (Side::Initiator, _) if !received(FrameType::Opened) => {
                return Err(Violation::NotOpened);
            }
            _ => {}
        }
        let after_end = match kind {
            FrameType::Data | FrameType::End => {
                received(FrameType::End) || received(FrameType::Moved)
            }
            FrameType::Done => {
                !received(FrameType::End) || received(FrameType::Done) || received(FrameType::Moved)
            }
            FrameType::Opened => received(FrameType::Opened),
            FrameType::Abort => received(FrameType::Done),
            // A responder that has said DONE accepts no session.
            FrameType::Moved => {
                received(FrameType::Moved) || (side == Side::Initiator && received(FrameType::Done))
            }
            FrameType::Credit | FrameType::Open | FrameType::GoAway => false,
        };
        if after_end { Err(Violation::AfterEnd) } else { Ok(()) }
    }

    fn receive_moved(&mut self, side: Side) -> Result<Received, Violation> {
        match (side, self.join) {
            (Side::Initiator, Join::No) => Err(Violation::NotAsked),
            // Where DONE is said, ABORT is not: only the other side's DONE is lost.
            (Side::Initiator, Join::Lost) if self.abort(AbortReason::Other(0)) == Abort::Said => {
                Ok(Received::JoinLost)
            }
            (Side::Initiator, Join::Lost) => {
                self.received.add(FrameType::Moved);
                self.said.add(FrameType::Moved);
                Ok(Received::JoinLost)
            }
            (Side::Initiator, Join::Begun) => {
                self.received.add(FrameType::Moved);
                self.said.add(FrameType::Moved);
                Ok(Received::Told)
            }
            (Side::Responder, _) if !self.written.has(FrameType::Moved) => Err(Violation::NotAsked),
            (Side::Responder, _) => {
                self.received.add(FrameType::Moved);
                Ok(Received::Told)
            }
        }
    }
}

/// What an ABORT of this side came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// It is to be written.
    Said,
    /// The stream means nothing here any more: the other side does not know of it, or this
    /// side has moved, and says it in the session (C16).
    Forgotten,
    /// DONE was the last word of this side. The other side's is still to come.
    Needless,
}

/// A frame that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// OPENED, END, DONE or MOVED.
    Empty(FrameType),
    Credit(u32),
    Abort(AbortReason),
}

impl Frame {
    const fn kind(&self) -> FrameType {
        match self {
            Self::Open(_) => FrameType::Open,
            Self::Opened(_) => FrameType::Opened,
            Self::Data(_) => FrameType::Data,
            Self::End => FrameType::End,
            Self::Done => FrameType::Done,
            Self::Abort(_) => FrameType::Abort,
            Self::Credit(_) => FrameType::Credit,
            Self::Moved => FrameType::Moved,
        }
    }
}
