//! The two sides of a connection, each with a type of its own, so that a swap of the two
//! does not compile.

use std::io;
use std::ops::Deref;

use super::stream::Stream;

/// The local side, which carries plaintext: a client's connection, or the one to the
/// server.
pub(crate) struct LocalStream(pub(crate) Stream);

/// The tunnel's side, which carries the handshake and the records.
pub(crate) struct TunnelStream(pub(crate) Stream);

impl Deref for LocalStream {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}

impl Deref for TunnelStream {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}

impl TunnelStream {
    /// Moves the stream to the runtime that this is called on.
    pub(crate) fn moved_here(self) -> io::Result<Self> {
        self.0.moved_here().map(Self)
    }

    /// Closes as after a clean end; see [`Stream::close`].
    pub(crate) fn close(self) {
        self.0.close();
    }
}
