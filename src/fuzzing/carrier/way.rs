//! What is on its way: records of the carrier, and of sessions.

use std::collections::VecDeque;
use std::ops::Range;

use crate::fuzzing::input::Input;

/// One direction of a TCP connection.
pub(super) struct Way<T> {
    pub(super) held: VecDeque<T>,
    pub(super) is_cut: bool,
    pub(super) is_ended: bool,
}

impl<T> Default for Way<T> {
    fn default() -> Self {
        Self { held: VecDeque::new(), is_cut: false, is_ended: false }
    }
}

impl<T> Way<T> {
    pub(super) fn put(&mut self, what: T) {
        if !self.is_cut && !self.is_ended {
            self.held.push_back(what);
        }
    }

    /// Cuts it: some of what is on its way still arrives.
    pub(super) fn cut(&mut self, input: &mut Input<'_>) {
        if !self.is_cut {
            self.held.truncate(input.below(self.held.len() + 1));
            self.is_cut = true;
        }
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.held.is_empty() && (self.is_cut || self.is_ended)
    }
}

/// A session's record.
#[derive(Debug)]
pub(super) enum Said {
    Opened,
    NotAvailable,
    /// The bytes of the stream from one place to another.
    Data(Range<usize>),
    End,
    Done,
    Abort,
}
