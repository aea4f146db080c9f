//! Carriers: many streams over one session (rules C1 to C20 of `man/spiped-protocol.7`).
//!
//! ```text
//! local ─▶ stream ─▶ outgoing ─▶ flusher ─▶ tunnel
//! local ◀─ stream ◀─ entry    ◀─ reader  ◀─ tunnel
//! ```
//!
//! A carrier and its streams live on one thread. Each stream is a task. Bytes go from its
//! local socket straight into the record of this turn, and from a record that came straight
//! into the local socket. What the socket does not take waits in the stream's entry. The
//! flusher is a task of its own: the first stream of a turn wakes it, so it runs behind all
//! that are ready, and one record and one write have all that they have said.
//!
//! The link is what these tasks share: the state of [`crate::protocol::carrier`] behind a lock
//! that nobody waits for. The owner reads, looks for signs of life, and closes.

mod bulk;
pub(crate) mod end;
mod entry;
mod flusher;
pub(crate) mod link;
pub(crate) mod moves;
mod moving;
mod outgoing;
pub(crate) mod owner;
mod reader;
pub(crate) mod relay;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod waiting;
