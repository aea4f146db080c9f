//! The receive half of a session: records in, kinds and bodies out.
//!
//! The opener fails closed: after one record that is wrong in any way its key is gone, and
//! nothing is decrypted again.

use std::ops::Range;

use thiserror::Error;

use super::carrier::join::JoinProof;
use super::carrier::{CarrierSecret, StreamId};
use super::extensions::{Extensions, ExtensionsError};
use super::ids::ConnectionId;
use super::record::{
    AbortReason, CARRIED_MAX, FIRST_RECORD_MAX, FRAMES_MAX, HEADER, JOIN_BODY, Kind, OVERHEAD,
    PADDED_COUNT, PREFIX, RECORD_MAX, SUFFIX,
};
use super::transport::{Exhausted, Transport};

/// Opens the records of one direction, in place, in order.
pub struct Opener {
    /// `None` once a record was wrong.
    transport: Option<Transport>,
    phase: Phase,
}

/// A record that was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// An empty PADDED, which proves the key live; OPEN comes later.
    Ready,
    /// Connect to the target.
    Open(Extensions),
    /// The target accepted.
    Opened(Extensions),
    /// This session is to be a carrier.
    Carry(Extensions),
    /// This session is a carrier, on which so many streams may live at once, 1 or more.
    Carried(u32, CarrierSecret),
    /// What a record of a carrier holds: where its frames stand in the record.
    Frames(Range<usize>),
    /// This session is to take over a stream.
    Join(Join),
    /// The next bytes of the stream: where they stand in the record.
    Data(Range<usize>),
    /// The end of the stream in this direction.
    End,
    /// The last record of this direction: the other end has passed on all it was sent.
    Done,
    /// The other end refused or failed.
    Abort(AbortReason),
}

/// JOIN: which stream a session is to take over (rule C10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The connection id of the carrier.
    pub carrier: ConnectionId,
    /// The stream.
    pub stream: StreamId,
    /// [`CarrierSecret::proof`].
    pub proof: JoinProof,
}

impl Join {
    /// Reads the body of JOIN: `connection id(8) ‖ stream(4) ‖ proof(16)`; `None` where the
    /// stream is 0.
    pub(crate) fn parse(body: &[u8; JOIN_BODY]) -> Option<Self> {
        let (id, rest) = body.split_first_chunk()?;
        let (stream, proof) = rest.split_first_chunk()?;
        let stream = StreamId::new(u32::from_be_bytes(*stream))?;
        let proof = JoinProof(*proof.first_chunk()?);
        Some(Self { carrier: ConnectionId(*id), stream, proof })
    }
}

/// Why a record was not opened. None of it is told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The record is altered, cut, replayed, reordered, reflected, or of another key.
    #[error("a record failed authentication")]
    AuthenticationFailed,
    /// The record's length is below the smallest or above the largest allowed now.
    #[error("a record has an impossible length")]
    Length,
    /// The record is authentic, but the protocol does not allow it here.
    #[error("a record that the protocol does not allow here")]
    Violation,
    /// The record is authentic, and of a later version: the first one is of an unknown kind
    /// (rule R2), or an extension must be understood (X2). ABORT says so to the peer.
    #[error("a record of a later version, which this one does not understand")]
    NotUnderstood,
    /// 2^64-1 records came this way.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A record before this one was wrong.
    #[error("an earlier record was wrong")]
    Failed,
}

impl From<ExtensionsError> for OpenError {
    fn from(error: ExtensionsError) -> Self {
        match error {
            ExtensionsError::Violation => Self::Violation,
            ExtensionsError::NotUnderstood => Self::NotUnderstood,
        }
    }
}

/// The phase of a direction: which records may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// At the responder: OPEN, or first one empty PADDED.
    BeforeOpen,
    /// At the responder, after the empty PADDED: OPEN.
    ReadyForOpen,
    /// At the initiator: OPENED.
    BeforeOpened,
    /// At the initiator, after its CARRY: CARRIED.
    BeforeCarried,
    /// On a carrier: FRAMES.
    Carrying,
    /// DATA, PADDED, END.
    Streaming,
    /// After END: DONE, or ABORT.
    Ended,
    /// After DONE or ABORT: nothing.
    Over,
}

impl Opener {
    /// The opener of a responder: OPEN comes first.
    pub(super) const fn of_responder(transport: Transport) -> Self {
        Self { transport: Some(transport), phase: Phase::BeforeOpen }
    }

    /// The opener of an initiator: OPENED comes first.
    pub(super) const fn of_initiator(transport: Transport) -> Self {
        Self { transport: Some(transport), phase: Phase::BeforeOpened }
    }

    /// This initiator has sent CARRY: CARRIED comes first.
    pub const fn await_carried(&mut self) {
        if let Phase::BeforeOpened = self.phase {
            self.phase = Phase::BeforeCarried;
        }
    }

    /// The length on the wire of the record that begins with `bytes`, its header included;
    /// `None` while there are fewer than two bytes.
    ///
    /// # Errors
    /// When no record may have that length now; the opener has then failed for ever.
    pub fn record_length(&mut self, bytes: &[u8]) -> Result<Option<usize>, OpenError> {
        if self.transport.is_none() {
            return Err(OpenError::Failed);
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let max = match self.phase {
            Phase::BeforeOpen | Phase::ReadyForOpen | Phase::BeforeOpened => FIRST_RECORD_MAX,
            Phase::BeforeCarried => CARRIED_MAX,
            Phase::Carrying => OVERHEAD + FRAMES_MAX,
            Phase::Streaming => RECORD_MAX,
            // ABORT is the longest that may come.
            Phase::Ended | Phase::Over => OVERHEAD + 1,
        };
        let length = usize::from(u16::from_be_bytes(*header)).saturating_add(HEADER);
        if (OVERHEAD..=max).contains(&length) {
            Ok(Some(length))
        } else {
            self.transport = None;
            Err(OpenError::Length)
        }
    }

    /// Opens one record in place; `record` is that record and nothing else.
    ///
    /// # Errors
    /// When the record is wrong in any way; the opener has then failed for ever.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Record, OpenError> {
        let opened = self.try_open(record);
        // After an ABORT nothing more may come.
        if matches!(opened, Err(_) | Ok(Record::Abort(_))) {
            self.transport = None;
        }
        opened
    }

    fn try_open(&mut self, record: &mut [u8]) -> Result<Record, OpenError> {
        if self.record_length(record)? != Some(record.len()) {
            return Err(OpenError::Length);
        }
        let transport = self.transport.as_mut().ok_or(OpenError::Failed)?;
        let (_header, message) = record.split_at_mut_checked(HEADER).ok_or(OpenError::Length)?;
        let (plaintext, tag) = message.split_last_chunk_mut::<SUFFIX>().ok_or(OpenError::Length)?;
        let (cipher, n) = transport.next()?;
        cipher.open(n, &[], plaintext, tag).map_err(|_| OpenError::AuthenticationFailed)?;

        let (kind, body) = plaintext.split_first().ok_or(OpenError::Length)?;
        let record = match Kind::from_byte(*kind) {
            // Extensions of records that may not come here are not looked at.
            Some(kind) if !self.phase.may_have_extensions_of(kind) => {
                return Err(OpenError::Violation);
            }
            Some(kind) => read(kind, body)?,
            None if self.phase.is_before_open() => return Err(OpenError::NotUnderstood),
            None => return Err(OpenError::Violation),
        };
        self.phase = self.phase.after(&record).ok_or(OpenError::Violation)?;
        Ok(record)
    }
}

#[cfg(test)]
impl Opener {
    /// Goes on as if OPENED had come.
    pub(super) const fn skip_opened(&mut self) {
        self.phase = Phase::Streaming;
    }
}

/// Reads a record of this kind, in whichever phase.
fn read(kind: Kind, body: &[u8]) -> Result<Record, OpenError> {
    match (kind, body) {
        (Kind::Open, body) => Ok(Record::Open(Extensions::parse(body)?)),
        (Kind::Opened, body) => Ok(Record::Opened(Extensions::parse(body)?)),
        (Kind::Carry, body) => Ok(Record::Carry(Extensions::parse(body)?)),
        (Kind::Carried, body) => read_carried(body),
        (Kind::Frames, body) => Ok(Record::Frames(PREFIX..PREFIX.saturating_add(body.len()))),
        (Kind::Join, body) => {
            let join = body.try_into().ok().and_then(Join::parse);
            join.map(Record::Join).ok_or(OpenError::Violation)
        }
        (Kind::End, []) => Ok(Record::End),
        (Kind::Done, []) => Ok(Record::Done),
        (Kind::Abort, [reason]) => Ok(Record::Abort(AbortReason::from_byte(*reason))),
        (Kind::Data, [_, ..]) => Ok(Record::Data(PREFIX..PREFIX.saturating_add(body.len()))),
        (Kind::Padded, body) => read_padded(body),
        _ => Err(OpenError::Violation),
    }
}

/// Reads the body of CARRIED: `streams(4) ‖ secret(32) ‖ extensions`.
fn read_carried(body: &[u8]) -> Result<Record, OpenError> {
    let (streams, rest) = body.split_first_chunk().ok_or(OpenError::Violation)?;
    let (secret, extensions) = rest.split_first_chunk().ok_or(OpenError::Violation)?;
    Extensions::parse(extensions)?;
    match u32::from_be_bytes(*streams) {
        0 => Err(OpenError::Violation),
        streams => Ok(Record::Carried(streams, CarrierSecret::new(secret))),
    }
}

/// Reads the body of PADDED: `n(2) ‖ n bytes ‖ zeros`.
fn read_padded(body: &[u8]) -> Result<Record, OpenError> {
    const START: usize = PREFIX + PADDED_COUNT;
    let (count, rest) = body.split_first_chunk::<PADDED_COUNT>().ok_or(OpenError::Violation)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let zeros = rest.get(count..).ok_or(OpenError::Violation)?;
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(OpenError::Violation);
    }
    match (count, zeros) {
        (0, []) => Ok(Record::Ready),
        // Zeros alone are nothing that a later OPEN needs.
        (0, _) => Err(OpenError::Violation),
        _ => Ok(Record::Data(START..START.saturating_add(count))),
    }
}

impl Phase {
    /// Whether a record of this kind may come, as far as kinds with extensions go.
    const fn may_have_extensions_of(self, kind: Kind) -> bool {
        match kind {
            Kind::Open | Kind::Carry => self.is_before_open(),
            Kind::Opened => matches!(self, Self::BeforeOpened),
            Kind::Carried => matches!(self, Self::BeforeCarried),
            Kind::Data
            | Kind::End
            | Kind::Abort
            | Kind::Padded
            | Kind::Frames
            | Kind::Join
            | Kind::Done => true,
        }
    }

    /// Whether this is a responder that has had no OPEN.
    const fn is_before_open(self) -> bool {
        matches!(self, Self::BeforeOpen | Self::ReadyForOpen)
    }

    /// The phase after this record; `None` when the record is not allowed in this phase.
    const fn after(self, record: &Record) -> Option<Self> {
        match (self, record) {
            (Self::BeforeOpen, Record::Ready) => Some(Self::ReadyForOpen),
            (Self::BeforeOpen | Self::ReadyForOpen, Record::Carry(_))
            | (Self::BeforeCarried, Record::Carried(..))
            | (Self::Carrying, Record::Frames(_)) => Some(Self::Carrying),
            (Self::BeforeOpen | Self::ReadyForOpen, Record::Open(_) | Record::Join(_))
            | (Self::BeforeOpened, Record::Opened(_))
            | (Self::Streaming, Record::Data(_)) => Some(Self::Streaming),
            (Self::Streaming, Record::End) => Some(Self::Ended),
            (Self::Over, _) => None,
            (Self::Ended, Record::Done) | (_, Record::Abort(_)) => Some(Self::Over),
            _ => None,
        }
    }
}
