//! Carriers: many streams over one session.
//!
//! A carrier is the state that both ends share of its streams, and nothing else: no socket,
//! no clock, no bytes of a stream. Its owner hands in what a record held, and is told what it
//! means; it says what happened to its local sockets, and lets the carrier write the frames
//! that this leads to.
//!
//! ```text
//! record ─▶ receive ─▶ Event                what the other end says of a stream
//! open, opened, end, done, abort, taken ─┐
//!                      data, write_due ◀─┴─▶ Batch ─▶ record
//! ```
//!
//! What waits to be sent is kept as flags of its stream, so memory is bounded by the streams
//! that are allowed (D1). All rules, and the duties of an owner, stand in
//! `man/spiped-protocol.7`, under CARRIERS.
//!
//! # Frames
//!
//! | type | from | payload | meaning |
//! |---|---|---|---|
//! | 0 PAD | both | – | this byte and all to the record's end are zeros |
//! | 1 OPEN | I | extensions | connect to the target for this stream |
//! | 2 OPENED | R | extensions | the target accepted |
//! | 3 DATA | both | 1 byte or more | the next bytes |
//! | 4 END | both | – | the authenticated end of this direction |
//! | 5 ABORT | both | reason(1) | the stream is over |
//! | 6 CREDIT | both | bytes(4), 1 or more | so many more bytes of DATA may be sent |
//! | 7 MOVED | both, R first | – | the session goes on, complete in itself |
//! | 8 GOAWAY | R, stream 0, once | reason(1) | open no more |
//! | 9 DONE | both | – | all that came before the other side's END is passed on |
//!
//! # The rules that are kept here
//!
//! A violation ends the carrier at once, without an answer; all its streams are reset.
//!
//! - **C3.** Each OPEN has a higher number than all before, from 1. OPEN while as many streams
//!   live as are allowed is a violation. R may refuse any stream by ABORT.
//! - **C4.** DATA and END may follow OPEN at once. R's first frame of a stream is OPENED or
//!   ABORT.
//! - **C5.** A stream is over at a side when DONE has been sent and has come, or when ABORT
//!   been sent or has come. DONE is said as in a session: after END both ways, once all is
//!   passed on; nothing of the stream follows it, but I's MOVED.
//! - **C6.** Frames of a stream that is over are ignored: they were on their way. A frame but
//!   OPEN above the highest number opened is a violation.
//! - **C7.** These are violations: OPENED, DONE, MOVED or GOAWAY twice; DATA or END after END
//!   or MOVED; DONE before END went both ways, or after MOVED; ABORT after DONE; MOVED from R
//!   after DONE; DATA beyond the credit; unspent credit above 2^31-1, and CREDIT of 0; an
//!   unknown type; a length that the type cannot have; a frame over its record's end; PAD
//!   before a byte that is not zero; extensions of a wrong form; stream 0 elsewhere than in
//!   GOAWAY; OPEN from R; OPENED and GOAWAY from I.
//! - **C8.** Credit counts bytes of DATA alone; each direction of a stream begins with 65,536.
//!   A side grants what its local socket has taken, in frames for half of that or more. To a
//!   direction that has had END or MOVED none is owed, and one that comes is ignored.
//! - **C9.** I moves a stream, once, after OPENED, before END went both ways.
//! - **C10.** It opens a session with JOIN, which proves the carrier and the stream. R takes
//!   it for a living, opened stream that has none and has not said DONE. If not, the stream
//!   stays where it is.
//! - **C11.** R says MOVED here, and OPENED in the session; I, when MOVED comes, says MOVED.
//!   From its MOVED on a side speaks in the session, which is complete in itself: a direction
//!   that had ended here ends there again, by END before any DATA, and DONE follows as in any
//!   session, after END both ways in it. A DONE that was said here means nothing any more. No
//!   CREDIT follows MOVED.
//! - **C14.** MOVED that finds no session at I: I says ABORT; or MOVED, if it has said DONE, so
//!   that R can forget the stream. MOVED that nobody asked for is a violation.
//! - **C15.** At I a stream has left the carrier when it sends MOVED, at R when it receives it.
//! - **C16.** A moved stream is over when its session is. ABORT is said on the carrier before
//!   a side's MOVED and in the session after it.
//! - **C19.** After GOAWAY, I opens no more; what was on its way, R still accepts.

mod batch;
mod event;
mod frame;
pub(super) mod join;
mod receiving;
mod side;
mod stream;
#[cfg(test)]
mod tests;
mod violation;

use std::collections::{HashMap, VecDeque};

use self::frame::FrameType;
use self::stream::{Abort, Due, Stream};
use super::extensions::Extensions;
use super::record::AbortReason;

pub use self::batch::Batch;
pub use self::event::{Event, NoStream, Sent};
#[cfg(any(test, fuzzing))]
pub(crate) use self::frame::read_extensions;
pub use self::frame::{FRAME_HEADER, NotUnderstood, StreamId};
pub use self::join::{CarrierSecret, JoinProof};
pub use self::side::Side;
pub use self::stream::FIRST_CREDIT;
pub use self::violation::Violation;

/// One end of a carrier.
#[cfg_attr(any(test, fuzzing), derive(Clone))]
pub struct Carrier {
    side: Side,
    /// How many streams may live at once.
    allowed: u32,
    /// The number of the last OPEN.
    highest: Option<StreamId>,
    streams: HashMap<StreamId, Stream>,
    /// Streams whose OPEN is to be written, in the order of their numbers.
    opening: VecDeque<(StreamId, Extensions)>,
    /// Other streams that have something to write, each once, in turn.
    due: VecDeque<StreamId>,
    go_away: GoAway,
    has_failed: bool,
}

/// How far GOAWAY has come (C19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoAway {
    No,
    /// This side says it.
    Due(AbortReason),
    /// It was written, or has come.
    Done,
}

impl Carrier {
    /// A carrier on which `allowed` streams may live at once, 1 or more, as CARRIED told.
    #[must_use]
    pub fn new(side: Side, allowed: u32) -> Self {
        Self {
            side,
            allowed,
            highest: None,
            streams: HashMap::new(),
            opening: VecDeque::new(),
            due: VecDeque::new(),
            go_away: GoAway::No,
            has_failed: false,
        }
    }

    /// How many streams live.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether a stream lives: its frames, and what is said of it, still mean something.
    #[must_use]
    pub fn lives(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| !stream.is_aborted())
    }

    // What this side says.

    /// Opens a stream, at the initiator. DATA and END may follow at once (C4).
    ///
    /// # Errors
    /// When this carrier has no room for another stream.
    ///
    /// # Panics
    /// At a responder.
    pub fn open(&mut self, extensions: Extensions) -> Result<StreamId, NoStream> {
        assert!(self.side == Side::Initiator, "only an initiator opens a stream");
        if self.go_away != GoAway::No || self.has_failed {
            return Err(NoStream::Over);
        }
        if self.is_full() {
            return Err(NoStream::Full);
        }
        let next = self.highest.map_or(Some(StreamId::FIRST), StreamId::next);
        let id = next.ok_or(NoStream::Over)?;
        self.highest = Some(id);
        self.streams.insert(id, Stream::new(self.side));
        self.opening.push_back((id, extensions));
        Ok(id)
    }

    /// Says OPENED, at the responder: the target accepted.
    pub fn opened(&mut self, id: StreamId) {
        self.say(id, FrameType::Opened);
    }

    /// Says END, behind all DATA that was written.
    pub fn end(&mut self, id: StreamId) {
        self.say(id, FrameType::End);
    }

    /// Says DONE: this side has passed on all that came before the other side's END, and has
    /// said its own END. The stream is over once DONE went both ways (C5).
    pub fn done(&mut self, id: StreamId) {
        self.say(id, FrameType::Done);
    }

    /// Says ABORT, and drops what is not written. Returns whether that is said on the carrier;
    /// if not, and this side has moved, it is to be said in the stream's session (C16). It is
    /// not said of a stream that does not live, nor after DONE.
    pub fn abort(&mut self, id: StreamId, reason: AbortReason) -> bool {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_aborted()) else {
            return false;
        };
        let abort = stream.abort(reason);
        match abort {
            Abort::Said => self.queue(id),
            Abort::Forgotten => {
                self.opening.retain(|(opening, _)| *opening != id);
                self.streams.remove(&id);
            }
            Abort::Needless => {}
        }
        abort == Abort::Said
    }

    /// The local socket took bytes that came over the carrier: the other side may send as many
    /// more (C8). A responder's local socket takes nothing before OPENED is said.
    pub fn taken(&mut self, id: StreamId, bytes: u32) {
        // A stream that is over needs no credit.
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.taken(bytes)
        {
            self.queue(id);
        }
    }

    /// Says GOAWAY, at the responder: the initiator opens no more streams here (C19).
    ///
    /// # Panics
    /// At an initiator.
    pub fn go_away(&mut self, reason: AbortReason) {
        assert!(self.side == Side::Responder, "only a responder sends an initiator away");
        if self.go_away == GoAway::No {
            self.go_away = GoAway::Due(reason);
        }
    }

    /// How many bytes of DATA a stream may send now.
    #[must_use]
    pub fn sendable(&self, id: StreamId) -> u32 {
        self.streams.get(&id).map_or(0, Stream::sendable)
    }

    /// Writes the next bytes of a stream, at most `most`, behind what else is due of it:
    /// `read` puts them into their place and returns how many there are.
    ///
    /// # Errors
    /// That of `read`; nothing is written then.
    pub fn data<E>(
        &mut self,
        id: StreamId,
        most: usize,
        batch: &mut Batch<'_>,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Sent, E> {
        let credit = usize::try_from(self.sendable(id)).unwrap_or(usize::MAX);
        if credit == 0 {
            return Ok(Sent::NoCredit);
        }
        if !self.write_opening(batch) || !self.write_due_of(id, batch) {
            return Ok(Sent::NoRoom);
        }
        let most = match batch.room() {
            None | Some(0) => return Ok(Sent::NoRoom),
            Some(room) => room.min(credit).min(most),
        };
        let length = batch.fill(FrameType::Data, Some(id), most, read)?;
        let (Some(stream), Ok(spent)) = (self.streams.get_mut(&id), u32::try_from(length)) else {
            unreachable!("a stream that has credit lives, and a record has fewer bytes");
        };
        stream.spent(spent);
        Ok(Sent::Bytes(length))
    }

    /// Whether frames wait to be written.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty() || !self.opening.is_empty() || matches!(self.go_away, GoAway::Due(_))
    }

    /// Writes what is due. Returns whether that is all; if not, the record is full.
    pub fn write_due(&mut self, batch: &mut Batch<'_>) -> bool {
        if let GoAway::Due(reason) = self.go_away {
            if !batch.push(FrameType::GoAway, None, &[reason.byte()]) {
                return false;
            }
            self.go_away = GoAway::Done;
        }
        if !self.write_opening(batch) {
            return false;
        }
        while let Some(id) = self.due.front().copied() {
            if !self.write_due_of(id, batch) {
                return false;
            }
            self.due.pop_front();
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.is_queued = false;
                self.forget_if_over(id);
            }
        }
        true
    }

    // Moving.

    /// Whether a stream may be moved to a session of its own (C9).
    #[must_use]
    pub fn may_join(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(Stream::may_join)
    }

    /// Begins to move a stream, at the initiator: it opens a session with JOIN.
    ///
    /// # Panics
    /// When the stream may not be moved, and at a responder.
    pub fn join(&mut self, id: StreamId) {
        assert!(self.side == Side::Initiator, "only an initiator moves a stream");
        self.living(id).join();
    }

    /// The session was refused, or has failed before MOVED: the stream stays where it is
    /// (C10), and MOVED that comes all the same ends it (C14).
    pub fn join_lost(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.join_lost();
        }
    }

    /// Takes the session of a JOIN, whose proof was checked, at the responder: says MOVED,
    /// and from its next byte on speaks in the session (C11). Returns whether the stream is to
    /// be had; if not, the session is refused for [`AbortReason::NotAvailable`].
    ///
    /// # Panics
    /// At an initiator.
    #[must_use]
    pub fn accept_join(&mut self, id: StreamId) -> bool {
        assert!(self.side == Side::Responder, "only a responder is asked to move a stream");
        let accepts = self.streams.get(&id).is_some_and(Stream::may_accept_join);
        if accepts {
            self.say(id, FrameType::Moved);
        }
        accepts
    }

    /// Before one more stream is queued: drops those that are gone from the queue. It is done so
    /// seldom that each is looked at about once, and so often that the queue is never longer
    /// than twice the streams that are allowed (D1), also while nothing can be written.
    fn drop_stale(&mut self) {
        let Self { due, streams, allowed, .. } = self;
        if u32::try_from(due.len()).is_ok_and(|length| length / 2 < *allowed) {
            return;
        }
        due.retain(|id| streams.contains_key(id));
    }

    /// How many streams are in the queue, and how many of them may be.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn queued(&self) -> (usize, usize) {
        let most = usize::try_from(self.allowed).unwrap_or(usize::MAX);
        (self.due.len(), most.saturating_mul(2))
    }

    fn is_full(&self) -> bool {
        u32::try_from(self.streams.len()).map_or(true, |living| living >= self.allowed)
    }

    fn living(&mut self, id: StreamId) -> &mut Stream {
        match self.streams.get_mut(&id) {
            Some(stream) => stream,
            None => unreachable!("stream {id} is over, and something is said of it"),
        }
    }

    fn say(&mut self, id: StreamId, kind: FrameType) {
        self.living(id).say(kind);
        self.queue(id);
    }

    /// Queues a stream that has something to write.
    fn queue(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.is_queued
        {
            stream.is_queued = true;
            self.drop_stale();
            self.due.push_back(id);
        }
    }

    /// Forgets a stream that is over: its number and its state are free (C5).
    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.is_over(self.side)) {
            self.streams.remove(&id);
        }
    }

    /// Writes each OPEN, since their numbers ascend. Returns whether there was room for all.
    fn write_opening(&mut self, batch: &mut Batch<'_>) -> bool {
        while let Some((id, extensions)) = self.opening.front() {
            if !batch.push(FrameType::Open, Some(*id), &extensions.encode()) {
                return false;
            }
            if let Some(stream) = self.streams.get_mut(id) {
                stream.wrote(FrameType::Open);
            }
            self.opening.pop_front();
        }
        true
    }

    /// Writes what is due of a stream. Returns whether there was room for all.
    fn write_due_of(&mut self, id: StreamId, batch: &mut Batch<'_>) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        while let Some(due) = stream.next_due() {
            let (kind, is_written) = match due {
                Due::Empty(kind) => (kind, batch.push(kind, Some(id), &[])),
                Due::Credit(bytes) => {
                    let kind = FrameType::Credit;
                    (kind, batch.push(kind, Some(id), &bytes.to_be_bytes()))
                }
                Due::Abort(reason) => {
                    let kind = FrameType::Abort;
                    (kind, batch.push(kind, Some(id), &[reason.byte()]))
                }
            };
            if !is_written {
                return false;
            }
            stream.wrote(kind);
        }
        true
    }
}
