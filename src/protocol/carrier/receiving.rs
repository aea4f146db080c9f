//! What the other side says: frames in, events out.

use super::event::Event;
use super::frame::{self, Frame, Next, StreamId};
use super::side::Side;
use super::stream::{Received, Stream};
use super::violation::Violation;
use super::{Carrier, GoAway};
use crate::protocol::record::AbortReason;

impl Carrier {
    /// Reads on at `at` in what a record held, up to the next frame that means something, and
    /// moves `at` behind it; `None` at the record's end.
    ///
    /// # Errors
    /// When the other side has broken a rule. The carrier has then failed for ever, and all
    /// its streams with it (C18).
    pub fn receive(&mut self, held: &[u8], at: &mut usize) -> Result<Option<Event>, Violation> {
        if self.has_failed {
            return Err(Violation::Failed);
        }
        let event = self.next_event(held, at);
        self.has_failed = event.is_err();
        event
    }

    fn next_event(&mut self, held: &[u8], at: &mut usize) -> Result<Option<Event>, Violation> {
        loop {
            let event = match frame::read(held, at)? {
                Next::Nothing => return Ok(None),
                Next::GoAway(reason) => Some(self.receive_go_away(reason)?),
                Next::Stream(id, Frame::Open(extensions)) => {
                    self.receive_open(id)?;
                    Some(Event::Open(id, extensions))
                }
                Next::Stream(id, frame) => self.receive_frame(id, frame)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn receive_go_away(&mut self, reason: AbortReason) -> Result<Event, Violation> {
        match (self.side, self.go_away) {
            (Side::Responder, _) => Err(Violation::WrongEnd),
            (Side::Initiator, GoAway::Done) => Err(Violation::AfterEnd),
            (Side::Initiator, GoAway::No | GoAway::Due(_)) => {
                self.go_away = GoAway::Done;
                Ok(Event::GoAway(reason))
            }
        }
    }

    fn receive_open(&mut self, id: StreamId) -> Result<(), Violation> {
        if self.side == Side::Initiator {
            return Err(Violation::WrongEnd);
        }
        if self.highest >= Some(id) {
            return Err(Violation::Order);
        }
        if self.is_full() {
            return Err(Violation::TooMany);
        }
        self.highest = Some(id);
        self.streams.insert(id, Stream::new(self.side));
        Ok(())
    }

    /// Takes a frame of a stream that was opened before; `None` if it means nothing (C6).
    fn receive_frame(&mut self, id: StreamId, frame: Frame) -> Result<Option<Event>, Violation> {
        if self.highest < Some(id) {
            return Err(Violation::NeverOpened);
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_aborted()) else {
            if matches!(frame, Frame::Abort(_)) {
                self.streams.remove(&id);
            }
            return Ok(None);
        };
        if stream.is_open_due() {
            return Err(Violation::NeverOpened);
        }
        let received = stream.receive(self.side, &frame)?;
        // An answer of this side: ABORT, or an initiator's MOVED.
        if matches!(frame, Frame::Moved) {
            self.queue(id);
        }
        self.forget_if_over(id);
        Ok(match received {
            Received::Ignored => None,
            Received::JoinLost => Some(Event::JoinLost(id)),
            Received::Told => Some(match frame {
                Frame::Open(extensions) => Event::Open(id, extensions),
                Frame::Opened(extensions) => Event::Opened(id, extensions),
                Frame::Data(range) => Event::Data(id, range),
                Frame::End => Event::End(id),
                Frame::Done => Event::Done(id),
                Frame::Abort(reason) => Event::Abort(id, reason),
                Frame::Credit(_) => Event::Credit(id),
                Frame::Moved => Event::Moved(id),
            }),
        })
    }
}
