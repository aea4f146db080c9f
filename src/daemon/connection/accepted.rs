//! The beginning of a connection.

use socket2::Socket;
use tokio::time::Instant;

use crate::daemon::net::peer::Peer;

/// A connection that was just accepted, of which nothing has been read.
pub(crate) struct Accepted {
    /// Counts up from 1; the same in all log lines of a connection.
    pub(crate) id: u64,
    pub(crate) at: Instant,
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
}
