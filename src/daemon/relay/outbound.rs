//! The direction from the local socket into the tunnel: bytes into records.

use crate::daemon::buffer::{Buffer, Size};
use crate::daemon::close::Close;
use crate::daemon::stream::Stream;
use crate::protocol::{OVERHEAD, Padding, SealError, Sealer};

use super::Turn;
use super::awake::Awake;
use super::slots::Slots;

/// The direction from the local socket into the tunnel.
pub(in crate::daemon) struct Outbound {
    sealer: Sealer,
    slots: Slots,
    size: Size,
    /// Bytes of the stream, before sealing.
    bytes: u64,
    /// Whether a record is only partly written: then nothing can follow it.
    mid_record: bool,
}

impl Outbound {
    pub(in crate::daemon) fn new(sealer: Sealer, padding: Option<Padding>) -> Self {
        Self { sealer, slots: Slots::new(padding), size: Size::Small, bytes: 0, mid_record: false }
    }

    /// How many bytes of the stream went this way.
    pub(in crate::daemon) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The initiator's first write: OPEN, with what the client has already said.
    pub(in crate::daemon) async fn open(
        &mut self,
        local: &Stream,
        tunnel: &Stream,
    ) -> Result<(), Close> {
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
    pub(in crate::daemon) async fn opened(&mut self, tunnel: &Stream) -> Result<(), Close> {
        let opened = self.sealer.opened()?;
        write(&mut self.mid_record, tunnel, &opened).await
    }

    /// Seals whatever `local` gives until it ends, then END.
    pub(super) async fn run(
        &mut self,
        local: &Stream,
        tunnel: &Stream,
        awake: &Awake,
    ) -> Result<(), Close> {
        let mut turn = Turn::new(awake);
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
    pub(super) async fn send_rest(&mut self, local: &Stream, tunnel: &Stream) -> Result<(), Close> {
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
    pub(in crate::daemon) fn abort(&mut self, close: &Close) -> Option<[u8; OVERHEAD + 1]> {
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
