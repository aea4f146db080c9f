//! The reader: records from the tunnel, frames to their streams. It always reads (D1): what a
//! local socket does not take waits in the stream's entry, bounded by its credit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use super::end::CarrierEnd;
use super::link::Link;
use super::stream::CarriedStream;
use crate::daemon::relay::buffer::{Buffer, Size};
use crate::protocol::carrier::{Event, NotUnderstood};
use crate::protocol::{AbortReason, Extensions, OpenError, Opener, Record};

/// Reads a carrier's records.
pub(super) struct Reader {
    opener: Opener,
    /// Held while it has the beginning of a record.
    held: Option<Buffer>,
}

impl Reader {
    pub(super) const fn new(opener: Opener) -> Self {
        Self { opener, held: None }
    }

    /// Reads once, and hands on all that came. Ready when the carrier has ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Arc<Link>,
        on_open: &mut impl FnMut(CarriedStream, Result<Extensions, NotUnderstood>),
    ) -> Poll<CarrierEnd> {
        match self.poll_read(cx, link, on_open) {
            Poll::Ready(Err(end)) => Poll::Ready(end),
            Poll::Ready(Ok(())) => {
                if link.tunnel.poll_readable(cx).is_ready() {
                    // More has come. Others of this thread go first.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        link: &Arc<Link>,
        on_open: &mut impl FnMut(CarriedStream, Result<Extensions, NotUnderstood>),
    ) -> Poll<Result<(), CarrierEnd>> {
        let readable = ready!(link.tunnel.poll_readable(cx))?;
        let mut buffer = self.held.take().unwrap_or_else(|| Buffer::lend(Size::Record));
        match buffer.fill(|room| readable.read(room))? {
            Some(0) => {
                let lives = link.lock().carrier.streams() > 0 || buffer.filled() > 0;
                let end = if lives { CarrierEnd::Truncated } else { CarrierEnd::Closed };
                return Poll::Ready(Err(end));
            }
            Some(_) => {}
            None if buffer.filled() > 0 => {
                self.held = Some(buffer);
                return Poll::Ready(Ok(()));
            }
            None => return Poll::Ready(Ok(())),
        }
        let opened = self.open_records(&mut buffer, link, on_open)?;
        if opened < buffer.filled() {
            buffer.keep(opened..buffer.filled());
            self.held = Some(buffer);
        }
        Poll::Ready(Ok(()))
    }

    /// Opens all whole records, in place. Returns how many bytes they had.
    fn open_records(
        &mut self,
        buffer: &mut Buffer,
        link: &Arc<Link>,
        on_open: &mut impl FnMut(CarriedStream, Result<Extensions, NotUnderstood>),
    ) -> Result<usize, CarrierEnd> {
        let mut start = 0;
        loop {
            let bytes = buffer.part_mut(start..buffer.filled());
            let Some(length) = self.opener.record_length(bytes)? else { return Ok(start) };
            let Some(record) = bytes.get_mut(..length) else { return Ok(start) };
            match self.opener.open(record)? {
                Record::Frames(range) => {
                    link.silent_checks.store(0, Ordering::Relaxed);
                    take_frames(&record[range], link, on_open)?;
                }
                Record::Abort(reason) => return Err(CarrierEnd::Aborted(reason)),
                // The opener refuses them on a carrier.
                Record::Ready
                | Record::Open(_)
                | Record::Opened(_)
                | Record::Carry(_)
                | Record::Carried(..)
                | Record::Join(_)
                | Record::Data(_)
                | Record::End
                | Record::Done => return Err(OpenError::Violation.into()),
            }
            start += length;
        }
    }
}

fn take_frames(
    held: &[u8],
    link: &Arc<Link>,
    on_open: &mut impl FnMut(CarriedStream, Result<Extensions, NotUnderstood>),
) -> Result<(), CarrierEnd> {
    // Dropped behind the lock: a stream that is dropped takes it.
    let mut opened = Vec::new();
    let mut state = link.lock();
    let mut at = 0;
    while let Some(event) = state.carrier.receive(held, &mut at)? {
        match event {
            Event::Open(id, _) if !state.may_open() => {
                state.abort(id, AbortReason::ConnectionLimit);
            }
            Event::Open(id, extensions) => {
                opened.push((CarriedStream::opened_by_peer(link, &mut state, id), extensions));
            }
            Event::GoAway(_) => link.retire_in(&mut state),
            event @ (Event::Opened(..)
            | Event::Data(..)
            | Event::End(_)
            | Event::Done(_)
            | Event::Abort(..)
            | Event::Credit(_)
            | Event::Moved(_)
            | Event::JoinLost(_)) => state.take(event, held),
        }
    }
    link.count_streams(&state);
    if state.carrier.streams() == 0 {
        state.wake_owner();
    }
    if state.carrier.has_due() {
        state.wake_flusher();
    }
    drop(state);
    for (stream, extensions) in opened {
        on_open(stream, extensions);
    }
    Ok(())
}
