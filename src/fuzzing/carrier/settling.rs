//! The end of a run.

use super::World;
use super::end::{End, Local};
use crate::protocol::FRAMES_MAX;
use crate::protocol::carrier::FIRST_CREDIT;

/// After how many rounds all must have ended.
const ROUNDS: usize = 20_000;

impl World {
    /// Nothing fails any more, and everybody closes. First, each writes as much as the credit
    /// lets it; once everybody reads, all must end.
    pub(super) fn settle(&mut self) {
        for end in &mut self.ends {
            end.is_stuck = false;
        }
        self.go_on();
        self.check_credit();
        for local in self.ends.iter_mut().flat_map(|end| end.locals.values_mut()) {
            local.takes_nothing = false;
        }
        self.go_on();
        self.check_ended();
    }

    /// Everything happens that can, until nothing moves any more.
    fn go_on(&mut self) {
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
                self.check_queues();
            }
            self.accept();
            if self.progress() == before {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Who waits for credit waits for a local socket that takes nothing, with more than half of
    /// the first credit before it: no credit is lost (C8).
    fn check_credit(&self) {
        for (end, other) in [(0, 1), (1, 0)] {
            let End { side, carrier, locals, has_failed, .. } = &self.ends[end];
            for (id, local) in locals {
                let waits = local.sent < local.to_send && !local.has_moved;
                if *has_failed || local.ended.is_some() || !waits {
                    continue;
                }
                assert_eq!(carrier.sendable(*id), 0, "stream {id} is not sent at {side:?}");
                let reader = &self.ends[other].locals[id];
                assert!(reader.takes_nothing, "stream {id} waits at {side:?}");
                let half = usize::try_from(FIRST_CREDIT / 2).unwrap();
                assert!(reader.by_carrier > half, "stream {id} lost credit at {side:?}");
            }
        }
    }

    fn check_ended(&self) {
        for End { side, carrier, has_failed, locals, .. } in &self.ends {
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
