//! Listeners: the source is bound, connections are accepted.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::libc::{
    EADDRNOTAVAIL, EAFNOSUPPORT, EBADF, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK,
    EOPNOTSUPP, SOCK_CLOEXEC, SOCK_NONBLOCK,
};
use nix::sys::stat::{Mode, fchmod};
use socket2::{SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::warn;

use super::unix_file::{Rights, UnixFile, is_stale};
use crate::config::Address;
use crate::daemon::net::loops::leads_back;
use crate::daemon::net::peer::{Peer, bound_name};
use crate::daemon::net::stream::register;
use crate::logging::limit::LogLimit;

/// How many connections wait in the kernel until they are accepted; the kernel cuts this
/// down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long to wait when the system lacks resources for a connection, or forbids to
/// accept one.
const PAUSE: Duration = Duration::from_millis(50);

/// How many connections in a row may be gone before they are accepted. Beyond that
/// number, something else than the connections is at fault.
const GONE_IN_A_ROW: u32 = 100;

/// How many connections are accepted before other tasks run.
const BATCH: usize = 64;

/// A bound, listening socket.
pub(crate) struct Listener {
    fd: AsyncFd<Socket>,
    address: SockAddr,
    /// Removed when the listener is dropped.
    _unix_file: Option<UnixFile>,
}

/// Listeners of inherited sockets; the files of unix sockets stay.
pub(crate) fn serve_inherited(sockets: Vec<Socket>) -> io::Result<Vec<Listener>> {
    sockets.into_iter().map(|socket| Listener::new(socket, None)).collect()
}

/// Binds all addresses of a source on which no socket of `stored` listens. Skips addresses
/// that this host does not have, unless it has none of them.
pub(crate) fn bind_all(addresses: &[SocketAddr], stored: Vec<Socket>) -> io::Result<Vec<Listener>> {
    let mut listeners = serve_inherited(stored)?;
    let mut missing = io::ErrorKind::NotFound.into();
    let listening: Vec<_> =
        listeners.iter().filter_map(|listener| listener.address.as_socket()).collect();
    for address in addresses.iter().filter(|address| !listening.contains(address)) {
        match bind_inet(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_not_here(&error) => missing = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

/// No interface has the address, or the kernel knows nothing of its family.
fn is_not_here(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

fn bind_inet(address: SocketAddr) -> io::Result<Listener> {
    Bound::inet(address)?.listener()
}

/// A socket that listens, and is not registered with an event loop yet.
pub(crate) struct Bound {
    socket: Socket,
    unix_file: Option<UnixFile>,
}

impl Bound {
    /// Binds an address or a path; the file of a unix socket has the mode that the umask
    /// leaves of all.
    pub(crate) fn to(address: &Address) -> io::Result<Self> {
        match address {
            Address::Inet(address) => Self::inet(*address),
            Address::Unix(path) => {
                let (socket, file) = bind_file(path, Mode::from_bits_truncate(0o777))?;
                Self::listening(socket, Some(file))
            }
            Address::Host(..) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn inet(address: SocketAddr) -> io::Result<Self> {
        let address = SockAddr::from(address);
        let socket = new_socket(&address)?;
        // A restart must not wait for connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address)?;
        Self::listening(socket, None)
    }

    fn listening(socket: Socket, unix_file: Option<UnixFile>) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        Ok(Self { socket, unix_file })
    }

    /// A socket of systemd, which listens already.
    pub(super) fn inherited(socket: Socket) -> Self {
        Self { socket, unix_file: None }
    }

    /// Registers it with the event loop of this thread.
    pub(crate) fn listener(self) -> io::Result<Listener> {
        Listener::new(self.socket, self.unix_file)
    }
}

/// Listens at a path, and replaces a stale socket there. The file has this mode, less the
/// umask.
pub(crate) fn bind_unix(path: &Path, mode: Mode) -> io::Result<Listener> {
    let (socket, file) = bind_file(path, mode)?;
    Listener::listen(socket, Some(file))
}

/// As [`bind_unix`], for a source. Nobody can connect before the rights are set, since the
/// socket listens only then.
pub(super) fn bind_unix_source(path: &Path, rights: Rights) -> io::Result<Listener> {
    let mode = if rights.mode.is_some() { Mode::empty() } else { Mode::from_bits_truncate(0o777) };
    let (socket, file) = bind_file(path, mode)?;
    file.set(rights)?;
    Listener::listen(socket, Some(file))
}

fn bind_file(path: &Path, mode: Mode) -> io::Result<(Socket, UnixFile)> {
    let address = SockAddr::unix(path)?;
    let socket = new_socket(&address)?;
    // Before the bind: on Linux, the file is created with the mode of its socket.
    fchmod(&socket, mode)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &address)? => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    let file = UnixFile::at(path)?;
    Ok((socket, file))
}

fn new_socket(address: &SockAddr) -> io::Result<Socket> {
    Socket::new(address.domain(), Type::STREAM.nonblocking(), None)
}

impl Listener {
    fn listen(socket: Socket, unix_file: Option<UnixFile>) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        Self::new(socket, unix_file)
    }

    fn new(socket: Socket, unix_file: Option<UnixFile>) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let fd = register(socket, Interest::READABLE)?;
        Ok(Self { fd, address, _unix_file: unix_file })
    }

    /// The address it listens on, with the port that the system chose for port 0.
    pub(crate) fn name(&self) -> String {
        bound_name(&self.address)
    }

    /// The address and port, unless it is a unix socket.
    pub(super) fn inet(&self) -> Option<SocketAddr> {
        self.address.as_socket()
    }

    pub(super) fn socket(&self) -> &Socket {
        self.fd.get_ref()
    }

    /// Another descriptor of the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.fd.get_ref().try_clone()?.into())
    }

    /// Whether its address is beyond loopback, so that other hosts may reach it.
    pub(crate) fn is_reachable_by_others(&self) -> bool {
        self.address.as_socket().is_some_and(|at| !at.ip().to_canonical().is_loopback())
    }

    /// Whether a connection to `target` would be accepted here.
    pub(crate) fn is_at(&self, target: &Address) -> bool {
        leads_back(target, self.fd.get_ref(), &self.address)
    }

    /// Accepts connections for ever, and hands each to `take`, which must not take long:
    /// the next connection is accepted when it has returned.
    ///
    /// # Errors
    /// When the listening socket itself is broken.
    pub(crate) async fn accept(&self, take: impl AsyncFn(Socket, Peer)) -> io::Result<()> {
        let limit = LogLimit::new(1);
        let mut is_said = false;
        let mut gone_in_a_row = 0;
        loop {
            let mut guard = self.fd.readable().await?;
            for _ in 0..BATCH {
                let Ok(accepted) =
                    guard.try_io(|fd| fd.get_ref().accept4(SOCK_NONBLOCK | SOCK_CLOEXEC))
                else {
                    gone_in_a_row = 0;
                    break;
                };
                let error = match accepted {
                    Ok((socket, peer)) => {
                        (is_said, gone_in_a_row) = (false, 0);
                        take(socket, Peer::of(&peer)).await;
                        continue;
                    }
                    Err(error) => error,
                };
                let hint = match cause(&error) {
                    Cause::Listener => return Err(error),
                    Cause::Connection if gone_in_a_row < GONE_IN_A_ROW => {
                        gone_in_a_row = gone_in_a_row.saturating_add(1);
                        continue;
                    }
                    Cause::Connection => "does a sandbox or this host's firewall forbid it?",
                    Cause::Resources => {
                        "raise the limit of file descriptors (LimitNOFILE=, ulimit -n)"
                    }
                };
                if !is_said && let Some(suppressed) = limit.allow() {
                    warn!(hint, suppressed, "cannot accept a connection: {error}");
                    is_said = true;
                }
                sleep(PAUSE).await;
                break;
            }
            // Lets other tasks run, also while connections keep coming.
            tokio::task::yield_now().await;
        }
    }
}

/// The cause of an error of accept(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The connection is gone. Where many in a row are gone, the cause is unknown.
    Connection,
    /// The system lacks resources for another connection.
    Resources,
    /// The listening socket is broken.
    Listener,
}

fn cause(error: &io::Error) -> Cause {
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM) => Cause::Resources,
        Some(EBADF | EINVAL | ENOTSOCK | EOPNOTSUPP) => Cause::Listener,
        // accept(2): Linux passes on errors of the new connection.
        _ => Cause::Connection,
    }
}

/// Accepts on all listeners at once; ends only when one of them is broken.
pub(crate) async fn accept_on_all(
    listeners: &[Listener],
    take: &impl AsyncFn(Socket, Peer),
) -> io::Result<()> {
    let mut accepting: Vec<_> =
        listeners.iter().map(|listener| Box::pin(listener.accept(take))).collect();
    std::future::poll_fn(|cx| {
        accepting
            .iter_mut()
            .map(|accept| accept.as_mut().poll(cx))
            .find(std::task::Poll::is_ready)
            .unwrap_or(std::task::Poll::Pending)
    })
    .await
}
