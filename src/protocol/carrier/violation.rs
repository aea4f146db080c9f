//! What the rules of a carrier do not allow. It ends the carrier at once, without an answer.

use thiserror::Error;

/// How the other end broke a rule (C7 and those that are named).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A byte behind PAD is not zero.
    #[error("a frame's padding is not zero")]
    Padding,
    /// No frame has this type.
    #[error("a frame of unknown type")]
    Type,
    /// A frame is over its record's end, or its type cannot have this length.
    #[error("a frame has an impossible length")]
    Length,
    /// Stream 0 elsewhere than in GOAWAY, or GOAWAY elsewhere than in stream 0.
    #[error("a frame of no stream")]
    Number,
    /// Extensions that cannot be read (X1).
    #[error("a frame with extensions that cannot be read")]
    Extensions,
    /// This end does not get frames of this type.
    #[error("a frame that only the other end sends")]
    WrongEnd,
    /// OPEN whose number is not higher than all before (C3).
    #[error("a stream was opened twice, or out of order")]
    Order,
    /// OPEN while as many streams live as are allowed (C3).
    #[error("more streams than are allowed")]
    TooMany,
    /// A frame of a stream that was never opened (C6).
    #[error("a frame of a stream that was never opened")]
    NeverOpened,
    /// The first frame of a responder's stream is neither OPENED nor ABORT (C4).
    #[error("a stream that was not answered yet")]
    NotOpened,
    /// OPENED, END, DONE, MOVED or GOAWAY twice, or a frame after one that is the last.
    #[error("a frame after the end of its direction")]
    AfterEnd,
    /// DONE that cannot be true: an END that it confirms was not sent.
    #[error("an end was confirmed that was not sent")]
    Unfounded,
    /// DATA beyond the credit (C7, C8).
    #[error("more data than there is credit for")]
    BeyondCredit,
    /// CREDIT of nothing.
    #[error("credit of no bytes")]
    NoCredit,
    /// CREDIT beyond 2^31-1 unspent bytes (C7).
    #[error("more credit than there may be")]
    TooMuchCredit,
    /// MOVED that nobody asked for (C14).
    #[error("a stream moved that was not asked to")]
    NotAsked,
    /// The carrier has failed before.
    #[error("the carrier has failed before")]
    Failed,
}
