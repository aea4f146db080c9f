//! An accepted connection.

use socket2::Socket;
use tokio::time::Instant;

use crate::daemon::net::peer::Peer;

/// A connection that was just accepted, of which nothing has been read.
pub(crate) struct Accepted {
    /// The number of the connection in the log, from 1.
    pub(crate) id: u64,
    pub(crate) at: Instant,
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
}
