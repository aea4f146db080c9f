//! ABORT: the end of a tunnel whose connection failed at this end.

use std::io;
use std::time::Duration;

use tokio::task::yield_now;

use super::buffer::{Buffer, Size};
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::TunnelStream;
use crate::protocol::OVERHEAD;

/// How long to wait until the other end has read the ABORT.
const LINGER: Duration = Duration::from_secs(2);

/// Sends ABORT, if there is one, and closes the tunnel so that the ABORT arrives: if the
/// socket were closed with unread input, the kernel would send a reset, which may overtake
/// the ABORT.
pub(crate) async fn abort(tunnel: TunnelStream, record: Option<[u8; OVERHEAD + 1]>) {
    let Some(record) = record else { return };
    let told = async {
        tunnel.write_all(&record).await?;
        tunnel.shutdown_write()?;
        read_to_end(&tunnel).await
    };
    // Whether the ABORT arrived or not, the connection is over.
    let _told = Deadline::after(LINGER).bound(told).await;
}

/// Reads what still comes, up to the end, and drops it.
pub(crate) async fn read_to_end(tunnel: &TunnelStream) -> io::Result<()> {
    loop {
        let readable = tunnel.readable().await?;
        if Buffer::lend(Size::Small).fill(|room| readable.read(room))? == Some(0) {
            return Ok(());
        }
        yield_now().await;
    }
}
