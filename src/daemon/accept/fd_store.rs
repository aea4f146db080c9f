//! Listening sockets that systemd keeps from one process of a unit to the next, with
//! `--handover` (`sd_pid_notify_with_fds(3)`, `FileDescriptorStoreMax=`). Who connects
//! while there is no process waits in their backlog.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::unistd::pipe;
use socket2::Socket;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::unit::notify::tell_with;

/// Their name with systemd.
pub(crate) const STORED: &str = "listener";

/// How long systemd may take to let go of them.
const LETTING_GO: Duration = Duration::from_secs(1);

/// What the process before has left with systemd.
pub(crate) struct Stored(pub(super) Vec<Socket>);

impl Stored {
    /// None of them is listened on any more.
    pub(crate) fn give_up(self) {
        if !self.0.is_empty() {
            remove();
        }
    }

    /// Those that listen on one of these addresses, as often as it is asked. If there
    /// are others, systemd keeps none any more: one could be in the way of what is to be
    /// bound.
    pub(crate) async fn for_addresses(&mut self, wanted: &[SocketAddr]) -> io::Result<Vec<Socket>> {
        let count = self.0.len();
        self.0.retain(|socket| {
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            address.is_some_and(|address| wanted.contains(&address))
        });
        if self.0.len() < count {
            remove();
            until_it_is_done().await?;
        }
        self.0.iter().map(Socket::try_clone).collect()
    }
}

/// Has systemd keep what is listened on. It has each of them once, however often it
/// is told.
pub(crate) fn store(sockets: Vec<OwnedFd>) {
    // It is not to look whether they have ended: they do not.
    tell_with(format!("FDSTORE=1\nFDNAME={STORED}\nFDPOLL=0\n"), sockets);
}

/// Has systemd close what it keeps, if it keeps something.
pub(crate) fn remove() {
    tell_with(format!("FDSTOREREMOVE=1\nFDNAME={STORED}\n"), vec![]);
}

/// Waits until systemd has done all that it was told.
async fn until_it_is_done() -> io::Result<()> {
    let (closed, barrier) = pipe()?;
    tell_with("BARRIER=1\n".to_owned(), vec![barrier]);
    let closed = Receiver::from_owned_fd(closed)?;
    // One that says nothing is not waited for: what is in the way is told by the bind.
    let _too_late = timeout(LETTING_GO, closed.readable()).await;
    Ok(())
}
