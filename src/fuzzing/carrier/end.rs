//! An end of the carrier, and the local sockets of its streams.

use std::collections::BTreeMap;

use crate::fuzzing::input::Input;
use crate::protocol::carrier::{Carrier, Side, StreamId};

/// How a stream ended at one end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ended {
    Complete,
    Reset,
}

/// A stream's local socket, and what its end has said and was told.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a flag for each thing that can have happened")]
pub(super) struct Local {
    pub(super) to_send: usize,
    pub(super) sent: usize,
    pub(super) has_closed: bool,
    /// It takes no bytes for now.
    pub(super) takes_nothing: bool,
    /// Bytes that came, and those of them that the local socket took.
    pub(super) came: usize,
    pub(super) passed: usize,
    /// Of what came and was not taken: those that came over the carrier.
    pub(super) by_carrier: usize,
    pub(super) is_open: bool,
    pub(super) said_end: bool,
    pub(super) said_done: bool,
    pub(super) end_came: bool,
    pub(super) done_came: bool,
    /// This end speaks in the session; the other end does. What was said of the ends before
    /// is then said again (C11).
    pub(super) has_moved: bool,
    pub(super) other_has_moved: bool,
    /// The other direction had ended on the carrier.
    pub(super) ended_before: bool,
    pub(super) session: Option<usize>,
    pub(super) is_accepted: bool,
    pub(super) ended: Option<Ended>,
}

impl Local {
    /// This end says in the session what it has still to say, its ends in any case.
    pub(super) const fn moves(&mut self) {
        self.has_moved = true;
        self.said_end = false;
        self.said_done = false;
    }

    /// So does the other end.
    pub(super) const fn other_moves(&mut self) {
        self.other_has_moved = true;
        self.ended_before = self.end_came;
        self.end_came = false;
        self.done_came = false;
    }
}

/// One end of the carrier.
pub(super) struct End {
    pub(super) side: Side,
    pub(super) carrier: Carrier,
    pub(super) has_failed: bool,
    /// It can write nothing to the carrier for now.
    pub(super) is_stuck: bool,
    pub(super) locals: BTreeMap<StreamId, Local>,
}

impl End {
    pub(super) fn new(side: Side, allowed: u32) -> Self {
        let carrier = Carrier::new(side, allowed);
        Self { side, carrier, has_failed: false, is_stuck: false, locals: BTreeMap::new() }
    }

    /// A stream that has not ended.
    pub(super) fn some(&self, input: &mut Input<'_>) -> Option<StreamId> {
        let living: Vec<_> = self.living().collect();
        let number = input.below(living.len().max(1));
        living.get(number).copied()
    }

    pub(super) fn living(&self) -> impl Iterator<Item = StreamId> {
        self.locals.iter().filter(|(_, local)| local.ended.is_none()).map(|(id, _)| *id)
    }
}
