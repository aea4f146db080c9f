//! Listening sockets that systemd keeps from one process of a unit to the next, with
//! `--handover` (`sd_pid_notify_with_fds(3)`, `FileDescriptorStoreMax=`). Clients that
//! connect while there is no process wait in the backlog of these sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::unistd::pipe;
use socket2::Socket;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::unit::notify::tell_with;

/// The name of the sockets in systemd's store.
pub(crate) const STORED: &str = "listener";

/// How long systemd may take to close the sockets.
const CLOSING: Duration = Duration::from_secs(1);

/// The sockets that the previous process has left with systemd.
pub(crate) struct Stored(pub(super) Vec<Socket>);

impl Stored {
    /// Closes all of them, also in systemd's store.
    pub(crate) fn give_up(self) {
        if !self.0.is_empty() {
            remove();
        }
    }

    /// The sockets that listen on one of these addresses; to be called as often as needed.
    /// Where others are stored, the store is emptied: a socket in it could be in the way of
    /// a bind.
    pub(crate) async fn for_addresses(&mut self, wanted: &[SocketAddr]) -> io::Result<Vec<Socket>> {
        let count = self.0.len();
        self.0.retain(|socket| {
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            address.is_some_and(|address| wanted.contains(&address))
        });
        if self.0.len() < count {
            remove();
            wait_for_systemd().await?;
        }
        self.0.iter().map(Socket::try_clone).collect()
    }
}

/// Has systemd keep listening sockets. A socket that it has already is not stored twice.
pub(crate) fn store(sockets: Vec<OwnedFd>) {
    // FDPOLL=0: systemd need not watch these sockets for their end.
    tell_with(format!("FDSTORE=1\nFDNAME={STORED}\nFDPOLL=0\n"), sockets);
}

/// Has systemd close the stored sockets, if there are any.
pub(crate) fn remove() {
    tell_with(format!("FDSTOREREMOVE=1\nFDNAME={STORED}\n"), vec![]);
}

/// Waits until systemd has acted upon all messages so far.
async fn wait_for_systemd() -> io::Result<()> {
    let (closed, barrier) = pipe()?;
    tell_with("BARRIER=1\n".to_owned(), vec![barrier]);
    let closed = Receiver::from_owned_fd(closed)?;
    // If systemd does not answer, the bind reports a socket that is in the way.
    let _too_late = timeout(CLOSING, closed.readable()).await;
    Ok(())
}
