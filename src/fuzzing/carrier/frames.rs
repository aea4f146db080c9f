//! What goes over the carrier.

use std::convert::Infallible;

use super::end::{End, Ended, Local};
use super::way::Said;
use super::{World, byte};
use crate::protocol::carrier::{Batch, Event, FIRST_CREDIT, Sent, StreamId};
use crate::protocol::{Extensions, PREFIX, SUFFIX};

impl World {
    /// Sends up to `most` bytes of a stream, in a record with room for `room`.
    pub(super) fn send(&mut self, end: usize, id: StreamId, most: usize, room: usize) {
        let on_their_way = self.on_their_way;
        let End { carrier, has_failed, is_stuck, locals, .. } = &mut self.ends[end];
        let local = locals.get_mut(&id).unwrap();
        let count = (local.to_send - local.sent).min(most);
        if count == 0 || !local.is_open {
            return;
        }
        if local.has_moved {
            let session = &mut self.sessions[local.session.unwrap()][end];
            if session.held.len() < on_their_way {
                session.put(Said::Data(local.sent..local.sent + count));
                local.sent += count;
            }
            return;
        }
        if *has_failed || *is_stuck || self.carrier[end].held.len() == on_their_way {
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
    pub(super) fn write(&mut self, end: usize, room: usize) {
        let End { carrier, has_failed, is_stuck, .. } = &mut self.ends[end];
        let has_room = self.carrier[end].held.len() < self.on_their_way;
        if *has_failed || *is_stuck || !carrier.has_due() || !has_room {
            return;
        }
        let mut record = vec![0; PREFIX + room + SUFFIX];
        let mut batch = Batch::new(&mut record, 0);
        let _is_all = carrier.write_due(&mut batch);
        let filled = batch.filled();
        self.carrier[end].put(record[PREFIX..PREFIX + filled].to_vec());
    }

    /// A record of the carrier comes.
    pub(super) fn receive(&mut self, end: usize) {
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
                let to_send =
                    [100, 9_999, 70_000, 150_000][usize::try_from(id.number()).unwrap() % 4];
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
                assert!(
                    local.by_carrier <= usize::try_from(FIRST_CREDIT).unwrap(),
                    "more is held than there was credit for"
                );
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

    /// The local socket takes bytes.
    pub(super) fn take(&mut self, end: usize, id: StreamId, most: usize) {
        let End { carrier, locals, .. } = &mut self.ends[end];
        let local = locals.get_mut(&id).unwrap();
        if local.takes_nothing || !local.is_open {
            return;
        }
        let count = (local.came - local.passed).min(most);
        local.passed += count;
        let by_carrier = count.min(local.by_carrier);
        local.by_carrier -= by_carrier;
        carrier.taken(id, u32::try_from(by_carrier).unwrap());
    }

    /// The target accepts.
    pub(super) fn accept_stream(&mut self, id: StreamId) {
        let End { carrier, locals, has_failed, .. } = &mut self.ends[1];
        let Some(local) = locals.get_mut(&id) else { return };
        if !local.is_open && local.ended.is_none() && !*has_failed {
            local.is_open = true;
            carrier.opened(id);
        }
    }
}
