//! What an owner does with its end, and must be told then.

use super::model::{Join, Stream};
use super::peer::some_stream;
use super::rules::Said;
use super::{End, id};
use crate::fuzzing::input::Input;
use crate::protocol::carrier::{Batch, FIRST_CREDIT, NoStream, Sent, Side};
use crate::protocol::{AbortReason, Extensions, FRAMES_MAX, PREFIX, SUFFIX};

impl End {
    /// The owner does something.
    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte() % 32;
        // Also one that is over, or was never opened: JOIN can name any.
        let number = match input.byte() {
            0..=9 => u32::from(input.byte()) + 1,
            _ => some_stream(&self.model, input),
        };
        match (what, self.model.side) {
            (0..=8, _) if input.byte() >= self.stuck => self.write(number, input),
            (9..=10, _) if input.byte() >= self.patience => self.abort(number),
            (0..=10, _) => {}
            (11..=13, Side::Initiator) => self.open(),
            (11..=16, Side::Responder) => self.answer(number),
            (14..=16, Side::Initiator) => self.join(number, input),
            (17..=18, Side::Responder) => self.accept_join(number),
            (17..=18, Side::Initiator) => self.join_lost(number),
            (19, Side::Responder) => {
                self.carrier.go_away(AbortReason::ShuttingDown);
                self.model.says_go_away = true;
            }
            (19..=26, _) => {
                // Also as much as CREDIT is said for.
                let half = usize::try_from(FIRST_CREDIT / 2).unwrap();
                let most = if input.choice() { half } else { input.any_length(70_000) };
                self.take(number, most);
            }
            (27..=29, _) => self.end(number),
            _ => self.done(number),
        }
    }

    fn open(&mut self) {
        let model = &mut self.model;
        let opened = self.carrier.open(Extensions::default());
        if model.has_go_away || self.has_failed {
            assert_eq!(opened, Err(NoStream::Over));
        } else if model.streams.len() == model.allowed {
            assert_eq!(opened, Err(NoStream::Full));
        } else {
            model.highest += 1;
            assert_eq!(opened, Ok(id(model.highest)));
            let said = Said { open: true, ..Said::default() };
            model.streams.insert(model.highest, Stream::new(said, Said::default()));
        }
    }

    fn answer(&mut self, number: u32) {
        if let Some(stream) = self.model.streams.get_mut(&number)
            && !stream.said.open
            && !stream.said.abort
        {
            stream.said.open = true;
            self.carrier.opened(id(number));
        }
    }

    fn end(&mut self, number: u32) {
        if let Some(stream) = self.model.streams.get_mut(&number)
            && stream.is_here()
            && !stream.said.end
        {
            stream.said.end = true;
            self.carrier.end(id(number));
        }
    }

    fn done(&mut self, number: u32) {
        if let Some(stream) = self.model.streams.get_mut(&number)
            && stream.is_here()
            && stream.said.end
            && stream.came.end
            && !stream.said.done
        {
            stream.said.done = true;
            self.carrier.done(id(number));
        }
    }

    fn abort(&mut self, number: u32) {
        let is_said = self.carrier.abort(id(number), AbortReason::LocalPeerReset);
        let mut expected = false;
        if let Some(stream) = self.model.streams.get_mut(&number)
            && !stream.said.abort
        {
            let is_unknown = self.model.side == Side::Initiator && !stream.wrote.open;
            if is_unknown || stream.wrote.moved {
                self.model.streams.remove(&number);
            } else if !stream.wrote.done {
                stream.abort();
                expected = true;
            }
        }
        assert_eq!(is_said, expected);
    }

    /// The local socket takes bytes; it is there once the stream is open.
    fn take(&mut self, number: u32, most: usize) {
        if let Some(stream) = self.model.streams.get_mut(&number)
            && stream.said.open
        {
            let bytes = (stream.came.bytes - stream.taken).min(u64::try_from(most).unwrap());
            stream.taken += bytes;
            self.carrier.taken(id(number), u32::try_from(bytes).unwrap());
        }
    }

    fn join(&mut self, number: u32, input: &mut Input<'_>) {
        let may_join = self.model.streams.get(&number).is_some_and(Stream::may_join);
        assert_eq!(self.carrier.may_join(id(number)), may_join);
        if may_join && input.choice() {
            self.model.streams.get_mut(&number).unwrap().join = Join::Begun;
            self.carrier.join(id(number));
        }
    }

    fn join_lost(&mut self, number: u32) {
        if let Some(stream) = self.model.streams.get_mut(&number)
            && stream.join == Join::Begun
            && !stream.came.moved
        {
            stream.join = Join::Lost;
            self.carrier.join_lost(id(number));
        }
    }

    fn accept_join(&mut self, number: u32) {
        let accepts = self.carrier.accept_join(id(number));
        let stream = self.model.streams.get_mut(&number);
        let stream = stream.filter(|stream| stream.may_accept_join());
        assert_eq!(accepts, stream.is_some(), "{stream:?}");
        if let Some(stream) = stream {
            stream.said.moved = true;
        }
    }

    /// Writes a record: bytes of a stream, what is due, or both. 0 is no stream.
    pub(super) fn write(&mut self, number: u32, input: &mut Input<'_>) {
        let what = input.byte();
        let room = if what < 100 { 19 + input.any_length(200) } else { FRAMES_MAX };
        let mut record = vec![0xee; PREFIX + room + SUFFIX];
        let mut batch = Batch::new(&mut record, 0);
        if number != 0 && what % 2 == 1 {
            self.data(number, &mut batch, input);
        }
        if what % 4 != 1 {
            let is_all = self.carrier.write_due(&mut batch);
            assert_eq!(is_all, !self.carrier.has_due());
        }
        let filled = batch.filled();
        assert!(filled <= room, "a record is over its end");
        assert_eq!(batch.record_length(), PREFIX + filled + SUFFIX);
        assert_eq!(record[..PREFIX], [0xee; PREFIX]);
        assert_eq!(record[PREFIX + room..], [0xee; SUFFIX]);
        self.model.wrote(&record[PREFIX..PREFIX + filled]);
    }

    fn data(&mut self, number: u32, batch: &mut Batch<'_>, input: &mut Input<'_>) {
        let sendable = u64::from(self.carrier.sendable(id(number)));
        let has = input.any_length(FRAMES_MAX);
        let most = input.any_length(FRAMES_MAX);
        let before = batch.filled();
        let read = |place: &mut [u8]| {
            let count = has.min(place.len());
            place[..count].fill(number.to_be_bytes()[3]);
            if has == 1 { Err("broken") } else { Ok(count) }
        };
        match self.carrier.data(id(number), most, batch, read) {
            Ok(Sent::Bytes(count)) => {
                assert!(count <= most.min(has) && u64::try_from(count).unwrap() <= sendable);
            }
            Ok(Sent::NoCredit) => assert!(sendable == 0 && batch.filled() == before),
            Ok(Sent::NoRoom) | Err("broken") => assert_ne!(sendable, 0),
            Err(_) => unreachable!(),
        }
    }
}
