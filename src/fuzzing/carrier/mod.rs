//! Both ends of a carrier, its streams, and the sessions that they move to: any interleaving,
//! with cuts and resets at any point.
//!
//! Whatever happens, neither end breaks a rule. What is passed on is what was sent, in order
//! and once. An end that takes a stream for complete is right: the other end has passed all of
//! it on. What waits is bounded, also while an end can write nothing, or a local socket takes
//! nothing. Once nothing fails any more, all streams end, and nothing is left of them.

mod end;
mod ending;
mod frames;
mod sessions;
mod settling;
mod way;

use std::collections::VecDeque;

use self::end::{End, Local};
use self::way::{Said, Way};
use super::input::Input;
use crate::protocol::carrier::{NoStream, Side, StreamId};
use crate::protocol::{AbortReason, Extensions, FRAMES_MAX};

/// How many streams there are at most.
const STREAMS: usize = 100;

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
        on_their_way: usize::from(input.byte() % 64 + 1),
    };
    while !input.is_over() {
        world.step(&mut input);
        world.check_queues();
    }
    world.settle();
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
    /// How many records are on their way at most, in each direction.
    on_their_way: usize,
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
        match input.byte() % 36 {
            0 | 1 => self.open(input),
            2..=6 => self.write(end, input.any_length(64) + 19),
            7..=12 => self.receive(end),
            13 | 14 => self.accept(),
            15 => self.ends[end].is_stuck = input.byte() < self.failing,
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
            16..=21 => {
                let most = input.any_length(FRAMES_MAX) + 1;
                self.send(end, id, most, input.any_length(FRAMES_MAX));
            }
            22..=24 => self.take(end, id, input.any_length(100_000)),
            25 => self.local(end, id).takes_nothing = input.choice(),
            26 | 27 => self.accept_stream(id),
            28 | 29 => self.join(id),
            30..=32 => self.read_session(end, id),
            33 => self.local(end, id).has_closed = true,
            34 => self.say_ends(end, id),
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
                let to_send = input.any_length(150_000);
                let local = Local { to_send, is_open: true, ..Local::default() };
                self.ends[0].locals.insert(id, local);
            }
            Err(NoStream::Full | NoStream::Over) => {}
        }
    }

    /// What waits to be written is bounded by the streams that are allowed (D1).
    fn check_queues(&self) {
        for End { side, carrier, .. } in &self.ends {
            let (queued, most) = carrier.queued();
            assert!(queued <= most, "{queued} wait at {side:?}, {most} may");
        }
    }
}
