//! A local peer that is gone before its connection is over. What the peer has sent still
//! arrives, with the end of its stream; then its connection ends. On TCP, keepalive probes
//! find out within about a minute that a peer is gone. On a unix socket the kernel tells it
//! at once, but the connection goes on for a minute as well, so that a slow server still
//! does what it was asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::error::RelayError;
use super::stall::Stall;
use super::traffic::Progress;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::net::stream::GONE;

/// Whether the local peer is gone.
#[derive(Default)]
pub(crate) struct LocalPeer {
    /// Whether its connection failed after the end of its stream.
    has_failed: bool,
    stall: Stall,
}

impl LocalPeer {
    /// Ready once its connection has `failed`. The error is a broken pipe where the end of
    /// its stream had come before, so that what it has sent is complete.
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

    /// Whether its connection has failed after the end of its stream.
    pub(crate) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Fails once the peer has been gone for long and nothing moves. To be called in every
    /// check, with the progress of the stream from the peer. `local` is `None` once the
    /// stream to the peer has ended: a unix peer then only looks as if it were gone.
    pub(crate) fn check(
        &mut self,
        local: Option<&LocalStream>,
        progress: Progress,
    ) -> Result<(), RelayError> {
        let is_gone = self.has_failed || local.is_some_and(|local| local.is_closed_by_peer());
        if is_gone && self.stall.checks(progress) >= GONE {
            return Err(RelayError::Local(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }
}

pub(crate) fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
