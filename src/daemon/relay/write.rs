//! Writes the unwritten parts of a buffer.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::budget::Budget;
use super::buffer::Buffer;
use crate::daemon::net::stream::Stream;

/// The most parts of one write.
const PARTS: usize = 32;

/// Writes the unwritten parts of a buffer, as far as the budget goes.
pub(super) fn poll_write(
    cx: &mut Context<'_>,
    buffer: &mut Buffer,
    to: &Stream,
    budget: &mut Budget,
) -> Poll<io::Result<()>> {
    while buffer.has_unwritten() {
        ready!(to.poll_writable(cx))?;
        ready!(budget.poll(cx, buffer.size()));
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = buffer.unwritten_slices(&mut parts);
        let written = ready!(to.poll_write(cx, &parts[..count]))?;
        buffer.written(written);
    }
    Poll::Ready(Ok(()))
}
