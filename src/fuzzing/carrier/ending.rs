//! How streams end.

use super::World;
use super::end::{End, Ended};
use super::way::Said;
use crate::protocol::AbortReason;
use crate::protocol::carrier::StreamId;

impl World {
    /// The carrier has failed: its streams are reset, but those that have left (C15, C18).
    pub(super) fn carrier_failed(&mut self, end: usize) {
        self.ends[end].has_failed = true;
        for id in self.ends[end].living().collect::<Vec<_>>() {
            let local = self.local(end, id);
            let has_left = if end == 0 { local.has_moved } else { local.other_has_moved };
            if !has_left {
                self.ended(end, id, Ended::Reset);
            }
        }
    }

    /// An end says END, and DONE, as soon as it may.
    pub(super) fn say_ends(&mut self, end: usize, id: StreamId) {
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
    pub(super) fn reset(&mut self, end: usize, id: StreamId) {
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

    pub(super) fn ended(&mut self, end: usize, id: StreamId, how: Ended) {
        let local = self.local(end, id);
        assert_eq!(local.ended.replace(how), None, "a stream ends once");
        if let Some(session) = local.session {
            self.sessions[session][end].is_ended = true;
        }
    }
}
