//! The way out: one of the target's addresses is connected to.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
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

/// How connections to it are made.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Their local address.
    bind: Option<SocketAddr>,
    keepalive: Keepalive,
}

/// The target, with what is known of its name.
pub(crate) struct Target {
    to: To,
    options: Options,
    limit: Duration,
    /// Descriptors for connects beside the first one of their connection.
    spare: Semaphore,
}

enum To {
    Inet(SocketAddr),
    Unix(PathBuf),
    Name(ResolvedName),
}

impl Target {
    /// With so many descriptors for connects beside the first one of each
    /// connection, to a name that has several addresses.
    ///
    /// # Errors
    /// When there can be no thread to look its name up.
    pub(crate) fn new(config: &TunnelConfig, spare: usize) -> io::Result<Self> {
        Ok(Self {
            to: match &config.target {
                Address::Inet(address) => To::Inet(*address),
                Address::Unix(path) => To::Unix(path.clone()),
                Address::Host(host, port) => To::Name(ResolvedName::new(host, *port)?),
            },
            options: Options { bind: config.bind, keepalive: config.keepalive },
            limit: config.timeout.get(),
            spare: Semaphore::new(spare),
        })
    }

    /// Connects to it in time, by whichever of its addresses answers. The look-up
    /// of its name counts. Of a name, `tried` is the address that the result is of.
    pub(crate) async fn connect(
        &self,
        tried: &mut Option<SocketAddr>,
    ) -> Result<Stream, ConnectError> {
        let deadline = Deadline::after(self.limit);
        let connected = match &self.to {
            To::Inet(address) => deadline.bound(connect_to((*address).into(), self.options)).await,
            To::Unix(path) => {
                let address = SockAddr::unix(path).map_err(ConnectError::Unreachable)?;
                deadline.bound(connect_to(address, self.options)).await
            }
            To::Name(name) => {
                let unresolved = |why| ConnectError::Unresolved(name.host().to_owned(), why);
                let addresses = deadline
                    .bound(name.addresses())
                    .await
                    .unwrap_or_else(|| Err(format!("no answer in {:?}", self.limit)))
                    .map_err(unresolved)?;
                deadline.bound(connect_to_any(addresses, self.options, &self.spare, tried)).await
            }
        };
        let connected = connected.unwrap_or(Err(ConnectError::TimedOut(self.limit)));
        if let (To::Name(name), Err(_)) = (&self.to, &connected) {
            name.doubt();
        }
        connected
    }

    /// Looks its name up as often as it should be, if it has one; for ever.
    pub(crate) async fn keep_resolved(&self, refresh: Refresh) -> Infallible {
        match &self.to {
            To::Name(name) => name.keep_resolved(refresh).await,
            To::Inet(_) | To::Unix(_) => pending().await,
        }
    }

    /// Tells when its name resolves to another address than before.
    pub(crate) fn moves(&self) -> Moves {
        match &self.to {
            To::Name(name) => name.moves(),
            To::Inet(_) | To::Unix(_) => Moves::never(),
        }
    }
}

/// Tries the addresses in order: the next as soon as one fails, or does not
/// answer for a moment. The first to connect is taken.
///
/// A connection may have one descriptor for this. To try a second address beside
/// the first takes a spare one; where there is none, it waits until the first has
/// failed, or one is given back.
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
                    // The others are closed before this one is the connection's own.
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
                    // That of the result, should the time be over.
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

/// What the first of them comes to that ends.
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
    Ok(Stream::connect(socket, &address, options.keepalive).await?)
}

/// Gives a socket its local address.
fn bind(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    if local.port() == 0 {
        // The port is chosen when the target is known: one port then serves a
        // connection to each target. Else all targets of this host share the ports.
        let _fewer_ports = setsockopt(socket, IpBindAddressNoPort, &true);
    }
    socket.bind(&local.into())
}
