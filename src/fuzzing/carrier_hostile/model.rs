//! What must be known of a carrier at an end, by what came there and what was written there.

use std::collections::BTreeMap;

use super::rules::{Broken, Frame, Said, read};
use crate::protocol::carrier::{Event, FIRST_CREDIT, Side, StreamId};

/// How far an initiator has come with a session for a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Join {
    No,
    Begun,
    Lost,
}

/// A stream that lives, or whose last frame is not written.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// What the end says, written or not, and what is written of it.
    pub(super) said: Said,
    pub(super) wrote: Said,
    pub(super) came: Said,
    /// Bytes that came, and that the local socket took.
    pub(super) taken: u64,
    pub(super) join: Join,
}

impl Stream {
    pub(super) fn new(said: Said, came: Said) -> Self {
        Self { said, wrote: Said::default(), came, taken: 0, join: Join::No }
    }

    /// Whether the end may still say something of it on the carrier.
    pub(super) fn is_here(&self) -> bool {
        self.said.open && !self.said.moved && !self.said.abort
    }

    pub(super) fn sendable(&self) -> u64 {
        let sends = self.is_here() && !self.said.end;
        if sends { self.came.may_be_sent() - self.wrote.bytes } else { 0 }
    }

    pub(super) fn may_join(&self) -> bool {
        let has_ended = self.said.end && self.came.end;
        self.came.open && self.join == Join::No && !self.said.abort && !has_ended
    }

    pub(super) fn may_accept_join(&self) -> bool {
        self.is_here() && !self.said.done
    }

    /// The end says ABORT in place of all that is not written.
    pub(super) fn abort(&mut self) {
        self.said = Said { abort: true, ..self.wrote };
    }

    /// Bytes that the local socket took, and that there was no CREDIT for.
    pub(super) fn owed(&self) -> u64 {
        self.taken - self.wrote.credit
    }

    /// Whether CREDIT is due: not before half of the first credit was taken, and none where
    /// nobody needs it.
    pub(super) fn is_credit_due(&self) -> bool {
        let is_needed = !self.came.end && !self.came.moved && self.is_here();
        is_needed && self.owed() >= u64::from(FIRST_CREDIT / 2)
    }

    fn is_over(&self, side: Side) -> bool {
        let has_left = match side {
            Side::Initiator => self.said.moved,
            Side::Responder => self.came.moved,
        };
        let has_ended = self.said.done && self.came.done;
        self.said == self.wrote && (self.said.abort || has_ended || has_left)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) side: Side,
    pub(super) allowed: usize,
    /// The number of the last OPEN, and, at an initiator, of the last one that is written.
    pub(super) highest: u32,
    highest_written: u32,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// A responder says GOAWAY.
    pub(super) says_go_away: bool,
    /// GOAWAY was written, or has come.
    pub(super) has_go_away: bool,
}

impl Model {
    pub(super) fn new(side: Side, allowed: usize) -> Self {
        Self {
            side,
            allowed,
            highest: 0,
            highest_written: 0,
            streams: BTreeMap::new(),
            says_go_away: false,
            has_go_away: false,
        }
    }

    /// What is to be told of what a record held, and whether a rule is broken then.
    pub(super) fn receive(&mut self, held: &[u8]) -> (Vec<Event>, Result<(), Broken>) {
        let (mut events, mut at) = (vec![], 0);
        loop {
            let event = match read(held, &mut at) {
                Ok(Some((number, frame))) => self.receive_frame(number, &frame),
                Ok(None) => return (events, Ok(())),
                Err(broken) => Err(broken),
            };
            match event {
                Ok(event) => events.extend(event),
                Err(broken) => return (events, Err(broken)),
            }
        }
    }

    fn receive_frame(&mut self, number: u32, frame: &Frame) -> Result<Option<Event>, Broken> {
        let Some(id) = StreamId::from_number(number) else {
            if let Frame::GoAway(reason) = frame
                && self.side == Side::Initiator
                && !self.has_go_away
            {
                self.has_go_away = true;
                return Ok(Some(Event::GoAway(*reason)));
            }
            return Err(Broken);
        };
        if let Frame::Open(extensions) = frame {
            let is_full = self.streams.len() == self.allowed;
            if self.side == Side::Initiator || number <= self.highest || is_full {
                return Err(Broken);
            }
            self.highest = number;
            let came = Said { open: true, ..Said::default() };
            self.streams.insert(number, Stream::new(Said::default(), came));
            return Ok(Some(Event::Open(id, *extensions)));
        }
        if matches!(frame, Frame::GoAway(_)) || number > self.highest {
            return Err(Broken);
        }
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(None) };
        let aborts = matches!(frame, Frame::Abort(_));
        if stream.said.abort {
            if aborts {
                self.streams.remove(&number);
            }
            return Ok(None);
        }
        let event = stream.receive(self.side, id, frame)?;
        if aborts || stream.is_over(self.side) {
            self.streams.remove(&number);
        }
        Ok(event)
    }

    /// What is written must be right, and said.
    pub(super) fn wrote(&mut self, held: &[u8]) {
        let mut at = 0;
        while let Some((number, frame)) = read(held, &mut at).expect("frames are written") {
            if matches!(frame, Frame::GoAway(_)) {
                assert!(number == 0 && self.says_go_away && !self.has_go_away, "GOAWAY");
                self.has_go_away = true;
                continue;
            }
            let context = (number, &frame, self.streams.get(&number).cloned());
            let stream = self.streams.get_mut(&number).expect("a stream lives");
            if let Frame::Open(_) = frame {
                assert!(number > self.highest_written, "OPEN out of order: {context:?}");
                assert!(self.side == Side::Initiator && !stream.wrote.open, "{context:?}");
                self.highest_written = number;
            } else {
                assert!(stream.may_write(self.side, &frame), "{context:?}");
                if let Frame::Data(range) = frame.clone() {
                    let byte = number.to_be_bytes()[3];
                    assert!(held[range].iter().all(|written| *written == byte), "{context:?}");
                }
            }
            stream.wrote.add(&frame);
            (stream.said.bytes, stream.said.credit) = (stream.wrote.bytes, stream.wrote.credit);
            if stream.is_over(self.side) {
                self.streams.remove(&number);
            }
        }
    }
}

impl Stream {
    fn receive(
        &mut self,
        side: Side,
        id: StreamId,
        frame: &Frame,
    ) -> Result<Option<Event>, Broken> {
        // Nobody can know of a stream whose OPEN is not written.
        if side == Side::Initiator && !self.wrote.open {
            return Err(Broken);
        }
        let other_side = match side {
            Side::Initiator => Side::Responder,
            Side::Responder => Side::Initiator,
        };
        let is_unasked = side == Side::Initiator && self.join == Join::No;
        // CREDIT means nothing as soon as END or MOVED is said, whether it is written or not.
        let other = if matches!(frame, Frame::Credit(_)) { &self.said } else { &self.wrote };
        let may_come = self.came.may_say(other_side, frame, other);
        if !may_come || (is_unasked && matches!(frame, Frame::Moved)) {
            return Err(Broken);
        }
        self.came.add(frame);
        Ok(match frame {
            Frame::Opened(extensions) => Some(Event::Opened(id, *extensions)),
            Frame::Data(range) => Some(Event::Data(id, range.clone())),
            Frame::End => Some(Event::End(id)),
            Frame::Done => Some(Event::Done(id)),
            Frame::Abort(reason) => Some(Event::Abort(id, *reason)),
            Frame::Credit(_) => (!self.said.end && !self.said.moved).then_some(Event::Credit(id)),
            Frame::Moved if self.join == Join::Lost => {
                if self.wrote.done {
                    self.said.moved = true;
                } else {
                    self.abort();
                }
                Some(Event::JoinLost(id))
            }
            Frame::Moved => {
                self.said.moved = true;
                Some(Event::Moved(id))
            }
            Frame::Open(_) | Frame::GoAway(_) => None,
        })
    }

    fn may_write(&self, side: Side, frame: &Frame) -> bool {
        let is_right = match frame {
            Frame::Credit(bytes) => self.is_credit_due() && *bytes == self.owed(),
            Frame::Abort(_) => !self.wrote.moved,
            Frame::Open(_)
            | Frame::Opened(_)
            | Frame::Data(_)
            | Frame::End
            | Frame::Done
            | Frame::Moved
            | Frame::GoAway(_) => true,
        };
        let is_said = self.said.has(frame) && self.wrote.may_say(side, frame, &self.came);
        is_right && is_said && !self.wrote.abort
    }
}
