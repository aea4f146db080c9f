//! Moves bytes both ways at once: out of the local socket into records, and
//! out of records into the local socket. Each direction ends on its own.
//!
//! What was measured, and built on here: several records go in one read and
//! one write of up to 256 KiB, sealed and opened in place; buffers are held
//! only while bytes move; a flow gets a large buffer once it fills small ones.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use socket2::Socket;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::buffer::{Buffer, RECORD_PLAINTEXT, RECORDS, SMALL, Size};
use super::close::Close;
use super::deadline::Deadline;
use super::shutdown::Shutdown;
use super::stream::{CHECK, Readable, Stream};
use crate::protocol::{
    AbortReason, HEADER, OVERHEAD, OpenError, Opener, PADDED_COUNT, PREFIX, Padding, Record,
    SUFFIX, SealError, Sealer,
};

/// How many parts go into one vectored write.
const PARTS: usize = 32;

/// How long what came last may take to be passed on, once a side has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After how many bytes a direction lets the others on its thread go on: its
/// own sockets may be ready for ever.
const TURN: usize = 1024 * 1024;

/// Relays until both directions have ended cleanly, or either has failed.
pub(super) async fn relay(
    local: &Stream,
    tunnel: &Stream,
    (outbound, inbound): (&mut Outbound, &mut Inbound),
    shutdown: &Shutdown,
) -> Result<(), Close> {
    match relay_both(local, tunnel, (&mut *outbound, &mut *inbound), shutdown).await {
        Ok(Ended::Cleanly) => Ok(()),
        Ok(Ended::AfterEnd) => Err(inbound.after_end(tunnel)),
        Err(close) => {
            if matches!(close, Close::Local(_)) {
                let last_words = outbound.send_rest(local, tunnel);
                // Whether all of it arrived or not, the connection has failed.
                let _sent = Deadline::after(LAST_WORDS).bound(last_words).await;
            }
            Err(close)
        }
    }
}

/// How a relay ended that did not fail by itself.
enum Ended {
    /// Both directions came to their end.
    Cleanly,
    /// Something came on the tunnel after END: only a failure can.
    AfterEnd,
}

async fn relay_both(
    local: &Stream,
    tunnel: &Stream,
    (outbound, inbound): (&mut Outbound, &mut Inbound),
    shutdown: &Shutdown,
) -> Result<Ended, Close> {
    let mut sending = pin!(outbound.run(local, tunnel));
    let mut receiving = pin!(inbound.run(tunnel, local));
    let mut failing = pin!(local.failed());
    let mut ending = pin!(shutdown.begun());
    let mut check = pin!(sleep(CHECK));
    let (mut sent, mut received, mut was_ended) = (false, false, false);
    while !(sent && received) {
        select! {
            biased;
            result = &mut receiving, if !received => { result?; received = true; }
            result = &mut sending, if !sent => { result?; sent = true; }
            error = &mut failing => return Err(Close::Local(error)),
            () = tunnel.has_input(), if received => return Ok(Ended::AfterEnd),
            () = &mut ending => return Err(Close::ShuttingDown),
            () = &mut check => {
                local.check().map_err(Close::Local)?;
                tunnel.check().map_err(Close::Tunnel)?;
                // The other end is gone, and a local peer that does not read
                // keeps us from reading that.
                let is_ended = !sent && tunnel.is_ended_by_peer();
                if is_ended && was_ended {
                    return Err(Close::Truncated);
                }
                was_ended = is_ended;
                check.set(sleep(CHECK));
            }
        }
    }
    Ok(Ended::Cleanly)
}

/// Counts the bytes of a direction until others have their turn.
#[derive(Default)]
struct Turn(usize);

impl Turn {
    /// To be called where nothing is half done. A small read costs about as
    /// much as one of 16 KiB.
    async fn moved(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes.max(RECORD_PLAINTEXT));
        if self.0 >= TURN {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// The direction from the local socket into the tunnel.
pub(super) struct Outbound {
    sealer: Sealer,
    slots: Slots,
    size: Size,
    /// Bytes of the stream, before sealing.
    bytes: u64,
    /// Whether a record is only partly written: then nothing can follow it.
    mid_record: bool,
}

impl Outbound {
    pub(super) fn new(sealer: Sealer, padding: Option<Padding>) -> Self {
        Self { sealer, slots: Slots::new(padding), size: Size::Small, bytes: 0, mid_record: false }
    }

    /// How many bytes of the stream went this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The initiator's first write: OPEN, with what the client has already said.
    pub(super) async fn open(&mut self, local: &Stream, tunnel: &Stream) -> Result<(), Close> {
        let mut buffer = Buffer::lend(Size::Small);
        let (open, rest) =
            buffer.bytes_mut().split_at_mut_checked(OVERHEAD).ok_or(SealError::Size)?;
        let payload = rest.get_mut(self.slots.payload()).unwrap_or_default();
        // The end of the stream is left to the relay, which reads it again.
        let count = local.try_read(payload).map_err(Close::Local)?.unwrap_or(0);
        open.copy_from_slice(&self.sealer.open()?);
        let sealed = self.slots.seal(&mut self.sealer, rest, count)?;
        self.bytes = self.bytes.saturating_add(count.try_into().unwrap_or(u64::MAX));
        let wire = buffer.bytes().get(..OVERHEAD.saturating_add(sealed)).unwrap_or_default();
        write(&mut self.mid_record, tunnel, wire).await
    }

    /// The responder's first write: OPENED.
    pub(super) async fn opened(&mut self, tunnel: &Stream) -> Result<(), Close> {
        let opened = self.sealer.opened()?;
        write(&mut self.mid_record, tunnel, &opened).await
    }

    /// Seals whatever `local` gives until it ends, then END.
    async fn run(&mut self, local: &Stream, tunnel: &Stream) -> Result<(), Close> {
        let mut turn = Turn::default();
        loop {
            let ready = local.readable().await.map_err(Close::Local)?;
            let mut buffer = Buffer::lend(self.size);
            let Some(count) = self.slots.read(ready, &mut buffer).map_err(Close::Local)? else {
                continue;
            };
            if count == 0 {
                break;
            }
            self.size = Size::after(count, self.slots.capacity(&buffer));
            let sealed = self.slots.seal(&mut self.sealer, buffer.bytes_mut(), count)?;
            self.bytes = self.bytes.saturating_add(count.try_into().unwrap_or(u64::MAX));
            let wire = buffer.bytes().get(..sealed).unwrap_or_default();
            write(&mut self.mid_record, tunnel, wire).await?;
            drop(buffer);
            turn.moved(count).await;
        }
        let end = self.sealer.end()?;
        write(&mut self.mid_record, tunnel, &end).await
    }

    /// What the local peer said before its connection failed: a server that
    /// refuses says why, and closes without having read all.
    async fn send_rest(&mut self, local: &Stream, tunnel: &Stream) -> Result<(), Close> {
        while !self.mid_record {
            let mut buffer = Buffer::lend(Size::Small);
            let payload = buffer.bytes_mut().get_mut(self.slots.payload()).unwrap_or_default();
            let count = local.try_read(payload).map_err(Close::Local)?.unwrap_or(0);
            if count == 0 {
                break;
            }
            let sealed = self.slots.seal(&mut self.sealer, buffer.bytes_mut(), count)?;
            self.bytes = self.bytes.saturating_add(count.try_into().unwrap_or(u64::MAX));
            let wire = buffer.bytes().get(..sealed).unwrap_or_default();
            write(&mut self.mid_record, tunnel, wire).await?;
        }
        Ok(())
    }

    /// The ABORT that tells the other end why this one gives up; `None` where
    /// it can't be told, since a record is half sent.
    pub(super) fn abort(&mut self, close: &Close) -> Option<[u8; OVERHEAD + 1]> {
        let reason = close.abort_reason().filter(|_| !self.mid_record)?;
        self.sealer.abort(reason).ok()
    }
}

/// Writes whole records; should this be cancelled half-way, `mid_record` stays.
async fn write(mid_record: &mut bool, tunnel: &Stream, wire: &[u8]) -> Result<(), Close> {
    *mid_record = true;
    tunnel.write_all(wire).await.map_err(Close::Tunnel)?;
    *mid_record = false;
    Ok(())
}

/// Where in a buffer the records of one read stand, one behind the other:
/// each full but the last, so that what is sealed is one piece.
#[derive(Clone, Copy, Debug)]
struct Slots {
    padding: Option<Padding>,
    /// Bytes before the payload in each record.
    before: usize,
    /// Bytes of payload in a full record.
    payload: usize,
    /// Bytes of a full record.
    stride: usize,
}

impl Slots {
    fn new(padding: Option<Padding>) -> Self {
        let (before, plaintext) = match padding {
            None => (PREFIX, RECORD_PLAINTEXT),
            // The largest multiple that a record has room for.
            Some(padding) => (
                PREFIX + PADDED_COUNT,
                RECORD_PLAINTEXT.next_multiple_of(padding.get()).saturating_sub(padding.get()),
            ),
        };
        let stride = plaintext.saturating_add(HEADER + SUFFIX);
        let payload = stride.saturating_sub(before.saturating_add(SUFFIX));
        Self { padding, before, payload, stride }
    }

    /// Where the payload of the first slot stands.
    const fn payload(&self) -> Range<usize> {
        self.before..self.before.saturating_add(self.payload)
    }

    /// How much payload one read into this buffer can bring.
    fn capacity(&self, buffer: &Buffer) -> usize {
        self.payload.saturating_mul(if buffer.is_large() { RECORDS } else { 1 })
    }

    /// One read into the payloads of the slots.
    fn read(&self, ready: Readable<'_>, buffer: &mut Buffer) -> io::Result<Option<usize>> {
        let wanted = self.capacity(buffer);
        let is_large = buffer.is_large();
        let mut slots = buffer
            .bytes_mut()
            .chunks_exact_mut(self.stride)
            .map(|slot| slot.get_mut(self.payload()).unwrap_or_default());
        if is_large {
            let mut payloads: [_; RECORDS] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            ready.read_vectored(&mut payloads, wanted)
        } else {
            ready.read(slots.next().unwrap_or_default())
        }
    }

    /// Seals the `count` bytes that were read into the slots, in place; how
    /// many bytes the records have on the wire.
    fn seal(
        &self,
        sealer: &mut Sealer,
        buffer: &mut [u8],
        count: usize,
    ) -> Result<usize, SealError> {
        let mut left = count;
        let mut total = 0_usize;
        for slot in buffer.chunks_mut(self.stride) {
            let payload = left.min(self.payload);
            if payload == 0 {
                break;
            }
            left = left.saturating_sub(payload);
            let bare = payload.saturating_add(self.before).saturating_add(SUFFIX);
            total = total.saturating_add(match self.padding {
                None => {
                    sealer.seal_data(slot.get_mut(..bare).ok_or(SealError::Size)?)?;
                    bare
                }
                Some(padding) => {
                    let plaintext = bare.saturating_sub(HEADER + SUFFIX);
                    let padded =
                        plaintext.next_multiple_of(padding.get()).saturating_add(HEADER + SUFFIX);
                    let record = slot.get_mut(..padded).ok_or(SealError::Size)?;
                    sealer.seal_padded(record, payload)?;
                    padded
                }
            });
        }
        Ok(total)
    }
}

/// The direction from the tunnel to the local socket.
pub(super) struct Inbound {
    opener: Opener,
    size: Size,
    /// Bytes of the stream, after opening.
    bytes: u64,
    /// Held while only part of a record has come; it begins with that part.
    partial: Option<Buffer>,
    /// Where in the buffer the bytes stand that came and are not yet opened.
    unopened: Range<usize>,
}

/// What the records of one read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// The stream goes on.
    More,
    /// END was the last of them.
    End,
    /// ABORT was.
    Abort(AbortReason),
}

impl Inbound {
    pub(super) const fn new(opener: Opener) -> Self {
        Self { opener, size: Size::Small, bytes: 0, partial: None, unopened: 0..0 }
    }

    /// How many bytes of the stream came this way.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens whatever `tunnel` gives into `local`, until END; then ends the
    /// stream towards `local`.
    async fn run(&mut self, tunnel: &Stream, local: &Stream) -> Result<(), Close> {
        let mut turn = Turn::default();
        loop {
            let ready = tunnel.readable().await.map_err(Close::Tunnel)?;
            let mut buffer = self.buffer()?;
            let room = buffer.bytes_mut().get_mut(self.unopened.end..).unwrap_or_default();
            let wanted = room.len();
            let mut moved = 0;
            match ready.read(room).map_err(Close::Tunnel)? {
                Some(0) => return Err(Close::Truncated),
                Some(count) => {
                    moved = count;
                    self.size = Size::after(count, wanted);
                    self.unopened.end = self.unopened.end.saturating_add(count);
                }
                None => {}
            }
            match self.open(&mut buffer)? {
                Opened::More => write_opened(&mut buffer, local).await?,
                Opened::End => {
                    write_opened(&mut buffer, local).await?;
                    return local.shutdown_write().map_err(Close::Local);
                }
                Opened::Abort(reason) => {
                    // What came before it is still good.
                    let last_words = write_opened(&mut buffer, local);
                    let _written = Deadline::after(LAST_WORDS).bound(last_words).await;
                    return Err(Close::Aborted(reason));
                }
            }
            self.keep(buffer);
            turn.moved(moved).await;
        }
    }

    /// The buffer that the next read goes into, behind a partial record.
    fn buffer(&mut self) -> Result<Buffer, Close> {
        let Some(buffer) = self.partial.take() else {
            self.unopened = 0..0;
            return Ok(Buffer::lend(self.size));
        };
        let partial = buffer.bytes().get(self.unopened.clone()).unwrap_or_default();
        let needed = self.opener.record_length(partial)?.unwrap_or(HEADER);
        Ok(if needed > buffer.bytes().len() {
            self.move_into(Buffer::lend_for_large_record(), &buffer)
        } else if self.size == Size::Large && !buffer.is_large() {
            self.move_into(Buffer::lend(Size::Large), &buffer)
        } else {
            buffer
        })
    }

    /// Keeps the part of a record that has come until the rest does, in a
    /// small buffer if it fits.
    fn keep(&mut self, mut buffer: Buffer) {
        if self.unopened.is_empty() {
            return;
        }
        self.partial = Some(if buffer.is_large() && self.unopened.len() < SMALL {
            self.move_into(Buffer::lend(Size::Small), &buffer)
        } else {
            buffer.bytes_mut().copy_within(self.unopened.clone(), 0);
            self.unopened = 0..self.unopened.len();
            buffer
        });
    }

    /// Moves what is not yet opened to the beginning of another buffer.
    fn move_into(&mut self, mut to: Buffer, from: &Buffer) -> Buffer {
        let bytes = from.bytes().get(self.unopened.clone()).unwrap_or_default();
        if let Some(room) = to.bytes_mut().get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.unopened = 0..bytes.len();
        to
    }

    /// Opens all whole records of the buffer in place.
    fn open(&mut self, buffer: &mut Buffer) -> Result<Opened, Close> {
        let mut opened = Opened::More;
        loop {
            let bytes = buffer.bytes_mut().get_mut(self.unopened.clone()).unwrap_or_default();
            let Some(length) = self.opener.record_length(bytes)? else {
                break;
            };
            let Some(record) = bytes.get_mut(..length) else {
                break;
            };
            let start = self.unopened.start;
            match self.opener.open(record)? {
                Record::Opened => {}
                Record::Data(range) => {
                    self.bytes =
                        self.bytes.saturating_add(range.len().try_into().unwrap_or(u64::MAX));
                    let at = |offset: usize| start.saturating_add(offset);
                    buffer.push_unwritten(at(range.start)..at(range.end));
                }
                Record::End => opened = Opened::End,
                Record::Abort(reason) => {
                    opened = Opened::Abort(reason);
                    break;
                }
                // The opener lets neither come here.
                Record::Open | Record::Ready => return Err(OpenError::Violation.into()),
            }
            self.unopened.start = start.saturating_add(length);
        }
        Ok(opened)
    }

    /// What came after END, while this side was still sending: only a failure
    /// can, and an ABORT says which.
    fn after_end(&mut self, tunnel: &Stream) -> Close {
        let mut buffer = Buffer::lend(Size::Small);
        match tunnel.try_read(buffer.bytes_mut()) {
            Err(error) => Close::Tunnel(error),
            Ok(count) => {
                self.unopened = 0..count.unwrap_or(0);
                match self.open(&mut buffer) {
                    Ok(Opened::Abort(reason)) => Close::Aborted(reason),
                    Ok(Opened::More | Opened::End) => Close::Truncated,
                    Err(close) => close,
                }
            }
        }
    }
}

/// Writes what was opened, as it stands in the buffer.
async fn write_opened(buffer: &mut Buffer, local: &Stream) -> Result<(), Close> {
    loop {
        // Of one write: were it more, a complete one would pass for a short one,
        // and the wait for a socket that has room would have no end.
        let wanted = buffer.unwritten(PARTS);
        if wanted == 0 {
            return Ok(());
        }
        let write = |socket: &Socket| write_parts(buffer, socket);
        let count = local.write_with(wanted, write).await.map_err(Close::Local)?;
        buffer.written(count);
    }
}

fn write_parts(buffer: &Buffer, mut socket: &Socket) -> io::Result<usize> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let count = buffer.unwritten_slices(&mut parts);
    socket.write_vectored(parts.get(..count).unwrap_or_default())
}
