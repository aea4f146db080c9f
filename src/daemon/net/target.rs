//! The target: connects to the first of its addresses that answers, or only asks whether one
//! does.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{SockAddr, Socket, Type};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::connect_error::ConnectError;
use super::deadline::Deadline;
use super::resolver::{Moves, ResolvedName};
use super::stream::Stream;
use crate::config::{Address, Keepalive, Refresh, TunnelConfig};

/// How long one address may keep the next one waiting (RFC 8305, section 5).
const SPACING: Duration = Duration::from_millis(250);

/// Options of connections to the target.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// The local address.
    bind: Option<SocketAddr>,
    keepalive: Keepalive,
    purpose: Purpose,
}

/// What a connection to the target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be used.
    Use,
    /// To learn whether the target answers.
    Ask,
}

/// The target.
pub(crate) struct Target {
    to: Destination,
    options: Options,
    limit: Duration,
    /// Descriptors for further connects, beside the first one of their connection.
    spare: Semaphore,
}

enum Destination {
    Inet(SocketAddr),
    Unix(PathBuf),
    Host(ResolvedName),
}

impl Target {
    /// The target of `config`, with `spare` descriptors for further connects to a name with
    /// several addresses.
    ///
    /// # Errors
    /// When the thread for look-ups cannot be started.
    pub(crate) fn new(config: &TunnelConfig, spare: usize) -> io::Result<Self> {
        Ok(Self {
            to: match &config.target {
                Address::Inet(address) => Destination::Inet(*address),
                Address::Unix(path) => Destination::Unix(path.clone()),
                Address::Host(host, port) => Destination::Host(ResolvedName::new(host, *port)?),
            },
            options: Options {
                bind: config.bind,
                keepalive: config.keepalive,
                purpose: Purpose::Use,
            },
            limit: config.timeout.get(),
            spare: Semaphore::new(spare),
        })
    }

    /// Connects to the target within the timeout, which includes the look-up of its name.
    /// For a name, `tried` becomes the address that the result is of. The connection comes
    /// from `from`, or from the address that the options say.
    pub(crate) async fn connect(
        &self,
        from: Option<Ipv4Addr>,
        tried: &mut Option<SocketAddr>,
    ) -> Result<Stream, ConnectError> {
        self.reach(from, Purpose::Use, tried).await
    }

    /// As [`Self::connect`], to learn only whether the target answers. A server does not see
    /// it: over TCP, the target's system has answered, and gets a reset in the place of the
    /// acknowledgement with which it would hand the connection to the server. (On a unix
    /// socket, the server sees a connection that ends at once.)
    pub(crate) async fn ask(
        &self,
        from: Option<Ipv4Addr>,
        tried: &mut Option<SocketAddr>,
    ) -> Result<(), ConnectError> {
        // A stream that is dropped before its end was written is reset.
        self.reach(from, Purpose::Ask, tried).await.map(drop)
    }

    async fn reach(
        &self,
        from: Option<Ipv4Addr>,
        purpose: Purpose,
        tried: &mut Option<SocketAddr>,
    ) -> Result<Stream, ConnectError> {
        let deadline = Deadline::after(self.limit);
        let bind = from.map(|ip| SocketAddr::from((ip, 0))).or(self.options.bind);
        let options = Options { bind, purpose, ..self.options };
        let connected = match &self.to {
            Destination::Inet(address) => {
                deadline.bound(connect_to((*address).into(), options)).await
            }
            Destination::Unix(path) => {
                let address = SockAddr::unix(path).map_err(ConnectError::Unreachable)?;
                deadline.bound(connect_to(address, options)).await
            }
            Destination::Host(name) => {
                let unresolved = |why| ConnectError::Unresolved(name.host().to_owned(), why);
                let addresses = deadline
                    .bound(name.addresses())
                    .await
                    .unwrap_or_else(|| Err(format!("no answer in {:?}", self.limit)))
                    .map_err(unresolved)?;
                deadline.bound(connect_to_any(addresses, options, &self.spare, tried)).await
            }
        };
        let connected = connected.unwrap_or(Err(ConnectError::TimedOut(self.limit)));
        if let (Destination::Host(name), Err(_)) = (&self.to, &connected) {
            name.doubt();
        }
        connected
    }

    /// Looks the target's name up as often as `refresh` says, if it has one; for ever.
    pub(crate) async fn keep_resolved(&self, refresh: Refresh) -> Infallible {
        match &self.to {
            Destination::Host(name) => name.keep_resolved(refresh).await,
            Destination::Inet(_) | Destination::Unix(_) => pending().await,
        }
    }

    /// Tells when the target's name resolves to other addresses than before.
    pub(crate) fn moves(&self) -> Moves {
        match &self.to {
            Destination::Host(name) => name.moves(),
            Destination::Inet(_) | Destination::Unix(_) => Moves::never(),
        }
    }
}

/// Tries the addresses in order: the next one as soon as one fails, or has not answered
/// for [`SPACING`]. The first that connects is taken.
///
/// A connection has one descriptor for this. Each further connect beside the first takes a
/// spare one. Without a spare one, the next address waits until the first connect has
/// failed, or a spare descriptor is given back.
async fn connect_to_any(
    addresses: Vec<SocketAddr>,
    options: Options,
    spare: &Semaphore,
    tried: &mut Option<SocketAddr>,
) -> Result<Stream, ConnectError> {
    let own = Semaphore::new(1);
    let mut attempts = Vec::new();
    let mut rest = addresses.into_iter().peekable();
    let mut spacing = Duration::ZERO;
    let mut failed = ConnectError::Unreachable(io::ErrorKind::NotFound.into());
    loop {
        let descriptor = async {
            sleep(spacing).await;
            select! {
                biased;
                own = own.acquire() => own,
                spare = spare.acquire() => spare,
            }
        };
        select! {
            (address, connected, descriptor) = first_to_end(&mut attempts), if !attempts.is_empty() => match connected {
                Ok(stream) => {
                    *tried = Some(address);
                    // The other sockets are closed before the descriptor counts as free.
                    drop(attempts);
                    drop(descriptor);
                    return Ok(stream);
                }
                Err(error) => {
                    drop(descriptor);
                    *tried = Some(address);
                    failed = error;
                    spacing = Duration::ZERO;
                }
            },
            Ok(descriptor) = descriptor, if rest.peek().is_some() => {
                if let Some(address) = rest.next() {
                    // The address of the result, if the timeout is over now.
                    *tried = Some(address);
                    attempts.push(Box::pin(async move {
                        (address, connect_to(address.into(), options).await, descriptor)
                    }));
                }
                spacing = SPACING;
            }
            else => return Err(failed),
        }
    }
}

/// The output of the first attempt that ends.
async fn first_to_end<F: Future + Unpin>(attempts: &mut Vec<F>) -> F::Output {
    poll_fn(|cx| {
        let ended = attempts.iter_mut().enumerate().find_map(|(index, attempt)| {
            match Pin::new(attempt).poll(cx) {
                Poll::Ready(output) => Some((index, output)),
                Poll::Pending => None,
            }
        });
        let Some((index, output)) = ended else { return Poll::Pending };
        drop(attempts.remove(index));
        Poll::Ready(output)
    })
    .await
}

async fn connect_to(address: SockAddr, options: Options) -> Result<Stream, ConnectError> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
    if let Some(local) = options.bind.filter(|_| !address.is_unix()) {
        bind(&socket, local).map_err(|error| ConnectError::Bind(local.ip(), error))?;
    }
    if options.purpose == Purpose::Ask && !address.is_unix() {
        // Linux then waits up to 200 ms with the acknowledgement, as haproxy's checks have it.
        socket.set_tcp_quickack(false)?;
    }
    Ok(Stream::connect(socket, &address, options.keepalive).await?)
}

/// Gives a socket its local address.
fn bind(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    if local.port() == 0 {
        // The kernel chooses the port when the target is known, so that one port serves a
        // connection to each target. Otherwise all targets would share the ports.
        let _fewer_ports = setsockopt(socket, IpBindAddressNoPort, &true);
    }
    socket.bind(&local.into())
}
