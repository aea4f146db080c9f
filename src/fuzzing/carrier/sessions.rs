//! Moving: the sessions of streams.

use super::World;
use super::end::{End, Ended};
use super::way::Said;
use crate::protocol::carrier::StreamId;

/// How many bytes of a session an end holds.
const HELD: usize = 40_000;

impl World {
    /// The initiator makes a session for a stream.
    pub(super) fn join(&mut self, id: StreamId) {
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
    pub(super) fn accept(&mut self) {
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
    pub(super) fn read_session(&mut self, end: usize, id: StreamId) {
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
            Said::Data(range) => {
                assert!(!local.end_came && !local.ended_before, "bytes after the end");
                assert_eq!(range.start, local.came, "other bytes came");
                local.came = range.end;
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
}
