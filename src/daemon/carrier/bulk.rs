//! Whether a stream moves bulk, which is better apart: then neither its windows nor its head of
//! the line are the carrier's trouble.
//!
//! Requests and answers take turns. A stream is bulk once its long turns come to
//! [`MOVE_AFTER`]: a short turn between two long ones is an acknowledgement, and a short one
//! behind a short one is a request with its answer, after which the count begins anew. So small
//! requests stay, however many there are.

/// How many bytes long turns come to before a stream is moved.
pub(super) const MOVE_AFTER: usize = 256 * 1024;
/// A turn of fewer bytes is short.
const LONG_TURN: usize = 16 * 1024;

/// What has moved of a stream, as far as it tells whether it is bulk.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Which way the present turn goes.
    way: Option<Way>,
    /// Bytes of the present turn.
    turn: usize,
    /// Whether the turn before it was short.
    was_short: bool,
    /// Bytes of the long turns before it.
    turns: usize,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Bulk {
    /// Notes bytes that went one way. Returns whether the stream is bulk.
    pub(super) fn moved(&mut self, way: Way, bytes: usize) -> bool {
        if self.way.replace(way) != Some(way) {
            let is_short = self.turn < LONG_TURN;
            self.turns = match (self.was_short, is_short) {
                (true, true) => 0,
                (false, true) => self.turns,
                (_, false) => self.turns.saturating_add(self.turn),
            };
            self.was_short = is_short;
            self.turn = 0;
        }
        self.turn = self.turn.saturating_add(bytes);
        self.is_bulk()
    }

    pub(super) const fn is_bulk(&self) -> bool {
        self.turns.saturating_add(self.turn) >= MOVE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bulk(turns: &[(Way, usize)], times: usize) -> bool {
        let mut bulk = Bulk::default();
        for _ in 0..times {
            for (way, bytes) in turns {
                bulk.moved(*way, *bytes);
            }
        }
        bulk.is_bulk()
    }

    #[test]
    fn small_requests_and_answers_are_never_bulk() {
        for answer in [5, 4096, LONG_TURN - 1] {
            assert!(!is_bulk(&[(Way::Out, 40), (Way::In, answer)], 100_000));
            assert!(!is_bulk(&[(Way::Out, answer), (Way::In, 5)], 100_000));
        }
    }

    #[test]
    fn one_long_turn_is_bulk_in_whatever_pieces_it_goes() {
        for way in [Way::Out, Way::In] {
            assert!(is_bulk(&[(way, 1)], MOVE_AFTER));
            assert!(!is_bulk(&[(way, 1)], MOVE_AFTER - 1));
            assert!(is_bulk(&[(Way::Out, 10), (Way::In, 10), (way, MOVE_AFTER)], 1));
        }
    }

    #[test]
    fn acknowledgements_do_not_hide_bulk() {
        assert!(is_bulk(&[(Way::In, 32 * 1024), (Way::Out, 13)], 8));
        assert!(is_bulk(&[(Way::Out, 32 * 1024), (Way::In, 13)], 9));
    }

    #[test]
    fn a_large_answer_now_and_then_is_not_bulk() {
        let mut bulk = Bulk::default();
        for _ in 0..100 {
            bulk.moved(Way::Out, 40);
            bulk.moved(Way::In, 100 * 1024);
            for _ in 0..3 {
                bulk.moved(Way::Out, 40);
                bulk.moved(Way::In, 40);
            }
            assert!(!bulk.is_bulk());
        }
    }
}
