//! A local peer that is gone while its connection is not over. What it has sent
//! still arrives, with the end of its stream; then its connection ends. On TCP the
//! kernel finds out whether a peer is there. On a unix socket it tells at once that
//! a peer is gone, and the minute that TCP takes is left to the server: one that is
//! only slow still does what it was asked for.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::error::RelayError;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::net::stream::GONE;

/// What is known of the local peer's end.
#[derive(Default)]
pub(crate) struct LocalPeer {
    /// Its connection failed after it had ended its stream.
    has_failed: bool,
    /// In how many checks in a row it was gone and nothing had moved.
    checks: u32,
    progress: (u64, usize),
}

impl LocalPeer {
    /// Ready once its connection has `failed`; with a broken pipe where the end of
    /// its stream had come before, so that what it has sent is still good.
    pub(crate) fn poll_failed(
        &mut self,
        cx: &mut Context<'_>,
        failed: Pin<&mut impl Future<Output = io::Error>>,
    ) -> Poll<io::Error> {
        if !self.has_failed {
            let error = ready!(failed.poll(cx));
            if !is_broken_pipe(&error) {
                return Poll::Ready(error);
            }
            self.has_failed = true;
        }
        Poll::Ready(io::ErrorKind::BrokenPipe.into())
    }

    /// An error once it has been gone for long and nothing moves. To be called in every
    /// check, with how far the stream from it has come, and with its socket unless the
    /// stream to it has ended: then a unix peer only looks as if it were gone.
    pub(crate) fn check(
        &mut self,
        local: Option<&LocalStream>,
        progress: (u64, usize),
    ) -> Result<(), RelayError> {
        let has_moved = mem::replace(&mut self.progress, progress) != progress;
        let is_gone = self.has_failed || local.is_some_and(|local| local.is_closed_by_peer());
        self.checks = if is_gone && !has_moved { self.checks.saturating_add(1) } else { 0 };
        if self.checks >= GONE {
            return Err(RelayError::Local(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }
}

pub(crate) fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
