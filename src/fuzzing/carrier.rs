//! Both ends of a carrier, its streams, and the sessions that they move to: any interleaving,
//! with cuts and resets at any point.
//!
//! Whatever happens, neither end breaks a rule. What is passed on is what was sent, in order
//! and once. An end that takes a stream for complete is right: the other end has passed all of
//! it on. Once nothing fails any more, all streams end, and nothing is left of them.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use super::input::Input;
use crate::protocol::carrier::{Batch, Carrier, Event, NoStream, Sent, Side, StreamId};
use crate::protocol::{AbortReason, Extensions, FRAMES_MAX, PREFIX, SUFFIX};

/// How many streams there are at most.
const STREAMS: usize = 24;
/// How many records are on their way at most.
const ON_THEIR_WAY: usize = 6;
/// How many bytes of a session an end holds.
const HELD: usize = 40_000;
/// After how many rounds all must have ended.
const ROUNDS: usize = 20_000;

/// Any bytes are any interleaving.
pub fn carrier(data: &[u8]) {
    let mut input = Input::new(data);
    let allowed = u32::from(input.byte() % 6 + 1);
    let mut world = World {
        ends: [End::new(Side::Initiator, allowed), End::new(Side::Responder, allowed)],
        carrier: Default::default(),
        sessions: vec![],
        joining: VecDeque::new(),
        opened: 0,
        received: 0,
        failing: input.byte(),
    };
    while !input.is_over() {
        world.step(&mut input);
    }
    world.settle();
}

/// One direction of a TCP connection.
struct Way<T> {
    held: VecDeque<T>,
    is_cut: bool,
    is_ended: bool,
}

impl<T> Default for Way<T> {
    fn default() -> Self {
        Self { held: VecDeque::new(), is_cut: false, is_ended: false }
    }
}

impl<T> Way<T> {
    fn has_room(&self) -> bool {
        self.held.len() < ON_THEIR_WAY
    }

    fn put(&mut self, what: T) {
        if !self.is_cut && !self.is_ended {
            self.held.push_back(what);
        }
    }

    /// Cuts it: some of what is on its way still arrives.
    fn cut(&mut self, input: &mut Input<'_>) {
        if !self.is_cut {
            self.held.truncate(input.below(self.held.len() + 1));
            self.is_cut = true;
        }
    }

    /// Whether nothing more comes.
    fn is_over(&self) -> bool {
        self.held.is_empty() && (self.is_cut || self.is_ended)
    }
}

/// A session's record.
#[derive(Debug)]
enum Said {
    Opened,
    NotAvailable,
    Data(usize),
    End,
    Done,
    Abort,
}

/// How a stream ended at one end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Complete,
    Reset,
}

/// A stream's local socket, and what its end has said and was told.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a flag for each thing that can have happened")]
struct Local {
    to_send: usize,
    sent: usize,
    has_closed: bool,
    /// Bytes that came, and those of them that the local socket took.
    came: usize,
    passed: usize,
    /// Of what came and was not taken: those that came over the carrier.
    by_carrier: usize,
    is_open: bool,
    said_end: bool,
    said_done: bool,
    end_came: bool,
    done_came: bool,
    /// This end speaks in the session; the other end does. What was said of the ends before
    /// is then said again (C11).
    has_moved: bool,
    other_has_moved: bool,
    /// The other direction had ended on the carrier.
    ended_before: bool,
    session: Option<usize>,
    is_accepted: bool,
    ended: Option<Ended>,
}

impl Local {
    /// This end says in the session what it has still to say, its ends in any case.
    const fn moves(&mut self) {
        self.has_moved = true;
        self.said_end = false;
        self.said_done = false;
    }

    /// So does the other end.
    const fn other_moves(&mut self) {
        self.other_has_moved = true;
        self.ended_before = self.end_came;
        self.end_came = false;
        self.done_came = false;
    }
}

/// One end of the carrier.
struct End {
    side: Side,
    carrier: Carrier,
    has_failed: bool,
    locals: BTreeMap<StreamId, Local>,
}

impl End {
    fn new(side: Side, allowed: u32) -> Self {
        let carrier = Carrier::new(side, allowed);
        Self { side, carrier, has_failed: false, locals: BTreeMap::new() }
    }

    /// A stream that has not ended.
    fn some(&self, input: &mut Input<'_>) -> Option<StreamId> {
        let living: Vec<_> = self.living().collect();
        let number = input.below(living.len().max(1));
        living.get(number).copied()
    }

    fn living(&self) -> impl Iterator<Item = StreamId> {
        self.locals.iter().filter(|(_, local)| local.ended.is_none()).map(|(id, _)| *id)
    }
}

struct World {
    ends: [End; 2],
    /// By the end that speaks, as in each session.
    carrier: [Way<Vec<u8>>; 2],
    sessions: Vec<[Way<Said>; 2]>,
    /// Sessions with JOIN that the responder has not looked at.
    joining: VecDeque<(usize, StreamId)>,
    opened: usize,
    /// How often something fails, of 256.
    failing: u8,
    /// Records of the carrier that came.
    received: usize,
}

/// The byte of a stream at a place, in one direction.
fn byte(id: StreamId, end: usize, at: usize) -> u8 {
    (at % 251 + at / 251 + usize::try_from(id.number()).unwrap() * 31 + end * 7).to_be_bytes()[7]
}

impl World {
    /// Something happens.
    fn step(&mut self, input: &mut Input<'_>) {
        let end = usize::from(input.choice());
        match input.byte() % 32 {
            0 | 1 => self.open(input),
            2..=6 => self.write(end, input.length(64) + 19),
            7..=12 => self.receive(end),
            13 | 14 => self.accept(),
            what => {
                if let Some(id) = self.ends[end].some(input) {
                    self.step_of(end, id, what, input);
                }
            }
        }
    }

    /// Something happens to a stream.
    fn step_of(&mut self, end: usize, id: StreamId, what: u8, input: &mut Input<'_>) {
        match what {
            15..=19 => self.send(end, id, input.length(FRAMES_MAX) + 1, input.length(FRAMES_MAX)),
            20..=22 => self.take(end, id, input.length(100_000)),
            23 | 24 => self.accept_stream(id),
            25 | 26 => self.join(id),
            27 | 28 => self.read_session(end, id),
            29 => self.local(end, id).has_closed = true,
            30 => self.say_ends(end, id),
            _ if input.byte() < self.failing => self.fail(end, id, input),
            _ => {}
        }
    }

    /// Something fails.
    fn fail(&mut self, end: usize, id: StreamId, input: &mut Input<'_>) {
        match input.byte() {
            0..=3 => {
                for way in &mut self.carrier {
                    way.cut(input);
                }
            }
            4..=7 => self.ends[1].carrier.go_away(AbortReason::ShuttingDown),
            8..=80 => self.reset(end, id),
            _ => {
                if let Some(session) = self.local(end, id).session {
                    for way in &mut self.sessions[session] {
                        way.cut(input);
                    }
                }
            }
        }
    }

    fn local(&mut self, end: usize, id: StreamId) -> &mut Local {
        self.ends[end].locals.get_mut(&id).unwrap()
    }

    fn open(&mut self, input: &mut Input<'_>) {
        if self.opened == STREAMS || self.ends[0].has_failed {
            return;
        }
        match self.ends[0].carrier.open(Extensions::default()) {
            Ok(id) => {
                self.opened += 1;
                let to_send = input.length(200_000);
                let local = Local { to_send, is_open: true, ..Local::default() };
                self.ends[0].locals.insert(id, local);
            }
            Err(NoStream::Full | NoStream::Over) => {}
        }
    }

    /// Sends up to `most` bytes of a stream, in a record with room for `room`.
    fn send(&mut self, end: usize, id: StreamId, most: usize, room: usize) {
        let End { carrier, has_failed, locals, .. } = &mut self.ends[end];
        let local = locals.get_mut(&id).unwrap();
        let count = (local.to_send - local.sent).min(most);
        if count == 0 || !local.is_open {
            return;
        }
        if local.has_moved {
            let session = &mut self.sessions[local.session.unwrap()][end];
            if session.has_room() {
                session.put(Said::Data(count));
                local.sent += count;
            }
            return;
        }
        if *has_failed || !self.carrier[end].has_room() {
            return;
        }
        let mut record = vec![0; PREFIX + room + SUFFIX];
        let mut batch = Batch::new(&mut record, 0);
        let from = local.sent;
        let read = |place: &mut [u8]| {
            let count = place.len().min(count);
            for (at, place) in (from..).zip(&mut place[..count]) {
                *place = byte(id, end, at);
            }
            Ok::<_, Infallible>(count)
        };
        if let Ok(Sent::Bytes(count)) = carrier.data(id, most, &mut batch, read) {
            local.sent += count;
        }
        let filled = batch.filled();
        if filled > 0 {
            self.carrier[end].put(record[PREFIX..PREFIX + filled].to_vec());
        }
    }

    /// Writes what is due, in a record with room for `room`.
    fn write(&mut self, end: usize, room: usize) {
        let End { carrier, has_failed, .. } = &mut self.ends[end];
        if *has_failed || !carrier.has_due() || !self.carrier[end].has_room() {
            return;
        }
        let mut record = vec![0; PREFIX + room + SUFFIX];
        let mut batch = Batch::new(&mut record, 0);
        let _is_all = carrier.write_due(&mut batch);
        let filled = batch.filled();
        self.carrier[end].put(record[PREFIX..PREFIX + filled].to_vec());
    }

    /// A record of the carrier comes.
    fn receive(&mut self, end: usize) {
        if self.ends[end].has_failed {
            return;
        }
        let Some(held) = self.carrier[1 - end].held.pop_front() else {
            if self.carrier[1 - end].is_over() {
                self.carrier_failed(end);
            }
            return;
        };
        self.received += 1;
        let mut at = 0;
        loop {
            let event = self.ends[end].carrier.receive(&held, &mut at);
            let event = event.expect("a true end breaks no rule");
            let Some(event) = event else { return };
            self.told(end, event, &held);
        }
    }

    fn told(&mut self, end: usize, event: Event, held: &[u8]) {
        // After DONE of this end, its local socket means nothing any more.
        if let Event::Done(id) | Event::Abort(id, _) | Event::Moved(id) | Event::JoinLost(id) =
            event
            && self.local(end, id).ended.is_some()
        {
            return;
        }
        match event {
            Event::Open(id, extensions) => {
                assert_eq!(extensions, Ok(Extensions::default()));
                let to_send = usize::try_from(id.number()).unwrap() * 9_999 % 150_000;
                let local = Local { to_send, ..Local::default() };
                assert!(self.ends[end].locals.insert(id, local).is_none());
            }
            Event::Opened(id, _) => assert!(self.local(end, id).ended.is_none()),
            Event::Data(id, range) => {
                let came = self.local(end, id).came;
                for (at, told) in (came..).zip(&held[range.clone()]) {
                    assert_eq!(*told, byte(id, 1 - end, at), "another byte came");
                }
                let local = self.local(end, id);
                local.came += range.len();
                local.by_carrier += range.len();
                assert!(local.by_carrier <= 65_536, "more is held than there was credit for");
            }
            Event::End(id) => self.local(end, id).end_came = true,
            Event::Done(id) => {
                self.local(end, id).done_came = true;
                self.say_ends(end, id);
            }
            Event::Abort(id, _) | Event::JoinLost(id) => self.ended(end, id, Ended::Reset),
            Event::Moved(id) => {
                let local = self.local(end, id);
                // A responder has moved before.
                if !local.has_moved {
                    local.moves();
                }
                local.other_moves();
            }
            Event::Credit(_) | Event::GoAway(_) => {}
        }
    }

    /// The carrier has failed: its streams are reset, but those that have left (C15, C18).
    fn carrier_failed(&mut self, end: usize) {
        self.ends[end].has_failed = true;
        for id in self.ends[end].living().collect::<Vec<_>>() {
            let local = self.local(end, id);
            let has_left = if end == 0 { local.has_moved } else { local.other_has_moved };
            if !has_left {
                self.ended(end, id, Ended::Reset);
            }
        }
    }

    /// The local socket takes bytes.
    fn take(&mut self, end: usize, id: StreamId, most: usize) {
        let End { carrier, locals, .. } = &mut self.ends[end];
        let local = locals.get_mut(&id).unwrap();
        let count = (local.came - local.passed).min(most);
        local.passed += count;
        let by_carrier = count.min(local.by_carrier);
        local.by_carrier -= by_carrier;
        carrier.taken(id, u32::try_from(by_carrier).unwrap());
    }

    /// The target accepts.
    fn accept_stream(&mut self, id: StreamId) {
        let End { carrier, locals, has_failed, .. } = &mut self.ends[1];
        let Some(local) = locals.get_mut(&id) else { return };
        if !local.is_open && local.ended.is_none() && !*has_failed {
            local.is_open = true;
            carrier.opened(id);
        }
    }

    /// The initiator makes a session for a stream.
    fn join(&mut self, id: StreamId) {
        let End { carrier, locals, has_failed, .. } = &mut self.ends[0];
        let Some(local) = locals.get_mut(&id) else { return };
        if *has_failed || local.ended.is_some() || !carrier.may_join(id) {
            return;
        }
        carrier.join(id);
        local.session = Some(self.sessions.len());
        self.joining.push_back((self.sessions.len(), id));
        self.sessions.push(Default::default());
    }

    /// The responder takes a session, or refuses it.
    fn accept(&mut self) {
        let Some((session, id)) = self.joining.pop_front() else { return };
        let End { carrier, locals, has_failed, .. } = &mut self.ends[1];
        let [from_initiator, from_responder] = &mut self.sessions[session];
        if from_initiator.is_cut {
            from_responder.is_ended = true;
        } else if !*has_failed && carrier.accept_join(id) {
            let local = locals.get_mut(&id).unwrap();
            local.session = Some(session);
            local.moves();
            from_responder.put(Said::Opened);
        } else {
            from_responder.put(Said::NotAvailable);
            from_responder.is_ended = true;
        }
    }

    /// An end reads in the session of a stream.
    fn read_session(&mut self, end: usize, id: StreamId) {
        let local = self.local(end, id);
        let Some(session) = local.session else { return };
        if local.done_came {
            return;
        }
        if end == 0 && !local.is_accepted {
            return self.read_answer(id, session);
        }
        if !local.other_has_moved {
            // C13. An initiator may find the loss early.
            if end == 0 && self.sessions[session][1].is_over() {
                self.lose_session(id, session);
            }
            return;
        }
        if self.local(end, id).came - self.local(end, id).passed > HELD {
            return;
        }
        let way = &mut self.sessions[session][1 - end];
        let Some(said) = way.held.pop_front() else {
            if way.is_over() {
                self.ended(end, id, Ended::Reset);
            }
            return;
        };
        let local = self.local(end, id);
        match said {
            Said::Data(count) => {
                assert!(!local.end_came && !local.ended_before, "bytes after the end");
                local.came += count;
            }
            Said::End => local.end_came = true,
            Said::Done => {
                local.done_came = true;
                self.say_ends(end, id);
            }
            Said::Abort => self.ended(end, id, Ended::Reset),
            Said::Opened | Said::NotAvailable => panic!("a session is answered once"),
        }
    }

    /// An initiator reads whether its session was refused.
    fn read_answer(&mut self, id: StreamId, session: usize) {
        let way = &mut self.sessions[session][1];
        let said = way.held.pop_front();
        let is_over = way.is_over();
        match said {
            Some(Said::Opened) => self.local(0, id).is_accepted = true,
            Some(Said::NotAvailable) => self.lose_session(id, session),
            None if is_over && self.local(0, id).has_moved => {
                self.ended(0, id, Ended::Reset);
            }
            None if is_over => self.lose_session(id, session),
            None => {}
            Some(said) => panic!("a session is answered first: {said:?}"),
        }
    }

    fn lose_session(&mut self, id: StreamId, session: usize) {
        self.local(0, id).session = None;
        self.sessions[session][0].is_ended = true;
        self.ends[0].carrier.join_lost(id);
    }

    /// An end says END, and DONE, as soon as it may.
    fn say_ends(&mut self, end: usize, id: StreamId) {
        let End { carrier, locals, has_failed, .. } = &mut self.ends[end];
        let local = locals.get_mut(&id).unwrap();
        if local.ended.is_some() || !local.is_open || (*has_failed && !local.has_moved) {
            return;
        }
        let mut session = None;
        if local.has_moved {
            session = Some(&mut self.sessions[local.session.unwrap()][end]);
        }
        if local.has_closed && local.sent == local.to_send && !local.said_end {
            local.said_end = true;
            match &mut session {
                Some(session) => session.put(Said::End),
                None => carrier.end(id),
            }
        }
        // An END on the carrier means nothing for a DONE in the session.
        let is_where_this_end_speaks = local.has_moved == local.other_has_moved;
        let has_passed_all =
            local.end_came && is_where_this_end_speaks && local.passed == local.came;
        if local.said_end && has_passed_all && !local.said_done {
            local.said_done = true;
            match &mut session {
                Some(session) => session.put(Said::Done),
                None => carrier.done(id),
            }
        }
        if local.said_done && local.done_came {
            let (sent, other) = (local.sent, &self.ends[1 - end].locals[&id]);
            assert!(other.end_came && other.passed == sent, "DONE was said too early");
            self.ended(end, id, Ended::Complete);
        }
    }

    /// The local socket fails.
    fn reset(&mut self, end: usize, id: StreamId) {
        let End { carrier, locals, has_failed, .. } = &mut self.ends[end];
        let local = &locals[&id];
        let is_on_carrier = !*has_failed && carrier.abort(id, AbortReason::LocalPeerReset);
        if !is_on_carrier
            && local.has_moved
            && let Some(session) = local.session
        {
            self.sessions[session][end].put(Said::Abort);
        }
        self.ended(end, id, Ended::Reset);
    }

    fn ended(&mut self, end: usize, id: StreamId, how: Ended) {
        let local = self.local(end, id);
        assert_eq!(local.ended.replace(how), None, "a stream ends once");
        if let Some(session) = local.session {
            self.sessions[session][end].is_ended = true;
        }
    }

    /// Nothing fails any more, everybody closes and reads: all must end.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let before = self.progress();
            for end in [0, 1] {
                for id in self.ends[end].living().collect::<Vec<_>>() {
                    self.local(end, id).has_closed = true;
                    self.accept_stream(id);
                    self.send(end, id, usize::MAX, FRAMES_MAX);
                    self.take(end, id, usize::MAX);
                    self.say_ends(end, id);
                    if self.local(end, id).ended.is_none() {
                        self.read_session(end, id);
                    }
                }
                self.write(end, FRAMES_MAX);
                self.receive(end);
            }
            self.accept();
            if self.progress() == before {
                break;
            }
        }
        for End { side, carrier, has_failed, locals } in &self.ends {
            for (id, local) in locals {
                assert!(local.ended.is_some(), "stream {id} hangs at {side:?}: {local:?}");
            }
            assert!(*has_failed || carrier.streams() == 0, "something is left at {side:?}");
            assert!(*has_failed || !carrier.has_due(), "something is unsaid at {side:?}");
        }
    }

    /// What changes as long as anything moves.
    fn progress(&self) -> impl PartialEq + use<> {
        let of_way = |length: usize, is_over: bool| length * 2 + usize::from(is_over);
        let ways = self.carrier.iter().map(|way| of_way(way.held.len(), way.is_over()));
        let sessions = self.sessions.iter().flatten();
        let sessions = sessions.map(|way| of_way(way.held.len(), way.is_over()));
        let of_local = |local: &Local| {
            let bools = [local.said_end, local.said_done, local.end_came, local.done_came];
            let more = [local.is_open, local.has_moved, local.other_has_moved, local.is_accepted];
            (local.sent, local.came, local.passed, bools, more, local.ended.is_some())
        };
        let locals = self.ends.iter().flat_map(|end| end.locals.values()).map(of_local);
        let failed = self.ends.iter().map(|end| (end.has_failed, end.carrier.streams()));
        (
            ways.chain(sessions).collect::<Vec<_>>(),
            locals.collect::<Vec<_>>(),
            failed.collect::<Vec<_>>(),
            (self.joining.len(), self.received),
        )
    }
}
