//! The send half of a session: kinds and bodies in, records out.

use thiserror::Error;

use super::aead::CipherKey;
use super::carrier::CarrierSecret;
use super::extensions::Extensions;
use super::opener::Join;
use super::record::{
    AbortReason, CARRIED_HEAD, FRAMES_MAX, HEADER, JOIN_BODY, Kind, OVERHEAD, PADDED_COUNT, PREFIX,
    RECORD_MAX, SUFFIX,
};
use super::transport::{Exhausted, Transport};

/// Seals the records of one direction, in place, in order.
pub struct Sealer {
    transport: Transport,
}

/// Why a record was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The slice is too short or too long for a record of that kind.
    #[error("a record cannot have that size")]
    Size,
    /// 2^64-1 records were sealed.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl Sealer {
    pub(super) const fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// Seals DATA: `record` is 3 bytes of room, the data (at least 1 byte), and 16 bytes of
    /// room. Afterwards `record` is one record, ready for the wire.
    ///
    /// # Errors
    /// When the size is out of bounds or the nonces are used up.
    pub fn seal_data(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        if record.len() <= OVERHEAD {
            return Err(SealError::Size);
        }
        self.seal(Kind::Data, record)
    }

    /// Seals PADDED: `record` is 5 bytes of room, `count` bytes of data, any bytes up to the
    /// padded length (which become zeros), and 16 bytes of room.
    ///
    /// # Errors
    /// When the size is out of bounds or the nonces are used up.
    pub fn seal_padded(&mut self, record: &mut [u8], count: usize) -> Result<(), SealError> {
        let count_bytes = u16::try_from(count).map_err(|_| SealError::Size)?.to_be_bytes();
        let body_end = record.len().checked_sub(SUFFIX).ok_or(SealError::Size)?;
        let body = record.get_mut(PREFIX..body_end).ok_or(SealError::Size)?;
        let (head, rest) = body.split_first_chunk_mut::<PADDED_COUNT>().ok_or(SealError::Size)?;
        *head = count_bytes;
        rest.get_mut(count..).ok_or(SealError::Size)?.fill(0);
        self.seal(Kind::Padded, record)
    }

    /// Seals an empty PADDED, which proves the key live and leaves OPEN for later.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_ready(&mut self) -> Result<[u8; OVERHEAD + PADDED_COUNT], SealError> {
        let mut record = [0; OVERHEAD + PADDED_COUNT];
        self.seal_padded(&mut record, 0)?;
        Ok(record)
    }

    /// Seals OPEN.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_open(&mut self, extensions: Extensions) -> Result<Vec<u8>, SealError> {
        self.with_extensions(Kind::Open, extensions)
    }

    /// Seals OPENED.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_opened(&mut self) -> Result<Vec<u8>, SealError> {
        self.with_extensions(Kind::Opened, Extensions::default())
    }

    /// Seals CARRY: this session is to be a carrier.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_carry(&mut self) -> Result<Vec<u8>, SealError> {
        self.with_extensions(Kind::Carry, Extensions::default())
    }

    /// Seals CARRIED: so many streams may live at once, 1 or more.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_carried(
        &mut self,
        streams: u32,
        secret: &CarrierSecret,
    ) -> Result<[u8; OVERHEAD + CARRIED_HEAD], SealError> {
        let mut record = [0; OVERHEAD + CARRIED_HEAD];
        self.body(Kind::Carried, &mut record, &[&streams.to_be_bytes(), secret.bytes()])?;
        Ok(record)
    }

    /// Seals FRAMES: `record` is 3 bytes of room, the frames, and 16 bytes of room. Without
    /// frames it is a sign of life (C17).
    ///
    /// # Errors
    /// When the size is out of bounds or the nonces are used up.
    pub fn seal_frames(&mut self, record: &mut [u8]) -> Result<(), SealError> {
        if record.len() > OVERHEAD + FRAMES_MAX {
            return Err(SealError::Size);
        }
        self.seal(Kind::Frames, record)
    }

    /// Seals JOIN: this session is to take over a stream.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_join(&mut self, join: &Join) -> Result<[u8; OVERHEAD + JOIN_BODY], SealError> {
        let mut record = [0; OVERHEAD + JOIN_BODY];
        let stream = join.stream.number().to_be_bytes();
        self.body(Kind::Join, &mut record, &[&join.carrier.0, &stream, &join.proof.0])?;
        Ok(record)
    }

    /// Seals END.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_end(&mut self) -> Result<[u8; OVERHEAD], SealError> {
        self.empty(Kind::End)
    }

    /// Seals DONE.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_done(&mut self) -> Result<[u8; OVERHEAD], SealError> {
        self.empty(Kind::Done)
    }

    /// Seals ABORT.
    ///
    /// # Errors
    /// When the nonces are used up.
    pub fn seal_abort(&mut self, reason: AbortReason) -> Result<[u8; OVERHEAD + 1], SealError> {
        let mut record = [0; OVERHEAD + 1];
        if let Some(body) = record.get_mut(PREFIX) {
            *body = reason.byte();
        }
        self.seal(Kind::Abort, &mut record)?;
        Ok(record)
    }

    fn empty(&mut self, kind: Kind) -> Result<[u8; OVERHEAD], SealError> {
        let mut record = [0; OVERHEAD];
        self.seal(kind, &mut record)?;
        Ok(record)
    }

    fn with_extensions(
        &mut self,
        kind: Kind,
        extensions: Extensions,
    ) -> Result<Vec<u8>, SealError> {
        let mut record = vec![0; PREFIX];
        record.extend(extensions.encode());
        record.extend([0; SUFFIX]);
        self.seal(kind, &mut record)?;
        Ok(record)
    }

    /// Seals a record whose body is these parts, one behind the other.
    fn body(&mut self, kind: Kind, record: &mut [u8], parts: &[&[u8]]) -> Result<(), SealError> {
        let mut rest = record.get_mut(PREFIX..).ok_or(SealError::Size)?;
        for part in parts {
            let place = rest.split_off_mut(..part.len()).ok_or(SealError::Size)?;
            place.copy_from_slice(part);
        }
        self.seal(kind, record)
    }

    /// Seals a record: `record` is 3 bytes of room, the body, and 16 bytes of room.
    fn seal(&mut self, kind: Kind, record: &mut [u8]) -> Result<(), SealError> {
        if record.len() > RECORD_MAX {
            return Err(SealError::Size);
        }
        let (header, message) = record.split_first_chunk_mut::<HEADER>().ok_or(SealError::Size)?;
        *header = u16::try_from(message.len()).map_err(|_| SealError::Size)?.to_be_bytes();
        let (plaintext, tag) = message.split_last_chunk_mut::<SUFFIX>().ok_or(SealError::Size)?;
        *plaintext.first_mut().ok_or(SealError::Size)? = kind.byte();
        let (cipher, n): (&CipherKey, u64) = self.transport.next()?;
        *tag = cipher.seal(n, &[], plaintext);
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail that way"
)]
impl Sealer {
    /// Any plaintext as a record, for tests of what must be refused.
    pub(crate) fn seal_raw(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut record = [&[0; HEADER], plaintext, &[0; SUFFIX]].concat();
        let length = u16::try_from(record.len() - HEADER).unwrap();
        record[..HEADER].copy_from_slice(&length.to_be_bytes());
        let (cipher, n) = self.transport.next().unwrap();
        let (message, tag) = record.split_last_chunk_mut::<SUFFIX>().unwrap();
        *tag = cipher.seal(n, &[], &mut message[HEADER..]);
        record
    }
}
