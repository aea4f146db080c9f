//! What a carrier tells its owner.

use std::ops::Range;

use super::frame::{NotUnderstood, StreamId};
use crate::protocol::extensions::Extensions;
use crate::protocol::record::AbortReason;

/// What a frame tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// At the responder: a new stream. Without extensions that can be understood, it is to be
    /// aborted for [`AbortReason::NotUnderstood`].
    Open(StreamId, Result<Extensions, NotUnderstood>),
    /// At the initiator: the target accepted. Extensions as above.
    Opened(StreamId, Result<Extensions, NotUnderstood>),
    /// The next bytes of a stream: where they stand in what the record held.
    Data(StreamId, Range<usize>),
    /// The end of the stream in this direction.
    End(StreamId),
    /// The other end has passed on all that it was sent.
    Done(StreamId),
    /// The stream is over.
    Abort(StreamId, AbortReason),
    /// More DATA may be sent.
    Credit(StreamId),
    /// What the other end still says of the stream, it says in its session. An initiator has
    /// now moved as well.
    Moved(StreamId),
    /// The session of the stream had failed before MOVED came (C14): the stream is over, and
    /// the other end is told.
    JoinLost(StreamId),
    /// At the initiator: no more streams can be opened.
    GoAway(AbortReason),
}

/// Why an initiator cannot open a stream on this carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStream {
    /// As many live as are allowed.
    Full,
    /// GOAWAY has come, all numbers are used, or the carrier has failed.
    Over,
}

/// How much DATA was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes; 0 where `read` had none.
    Bytes(usize),
    /// None: the record has no room for a frame.
    NoRoom,
    /// None: the stream has no credit, or may send nothing.
    NoCredit,
}
