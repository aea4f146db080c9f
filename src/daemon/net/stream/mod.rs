//! One socket, TCP or unix, driven by readiness.
//!
//! After a short write the readiness is cleared, so that no system call is spent
//! on being told to wait; so it is after most short reads, see [`read`].

mod read;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use nix::libc::{self, EAGAIN, ECONNREFUSED, EINPROGRESS};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::loops::{Ends, Outgoing, leads_to_us};
use crate::config::Keepalive;

pub(crate) use self::read::Readable;

/// What a connected socket is watched for.
const EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// How long to wait before trying a unix socket again whose backlog is full;
/// unlike TCP, the kernel gives no event for that.
const UNIX_BACKLOG_FULL: Duration = Duration::from_millis(5);

/// An idle peer is asked whether it is there after 30 s, then every 10 s; after
/// three questions without an answer it is not.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);
/// The same for a peer that owes us acknowledgements.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// How often it is looked at whether it does.
pub(crate) const CHECK: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(15) };
/// For how many checks, a minute, a peer on a unix socket may be gone: one on TCP
/// is found out after about as long.
pub(crate) const GONE: u32 = 4;

/// A connected socket. TCP ones have Nagle's algorithm off, and are reset when
/// they are dropped before their end was written.
pub(crate) struct Stream {
    /// Noted where the connection was made to this host, and forgotten before
    /// the socket is closed.
    outgoing: Option<Outgoing>,
    fd: AsyncFd<Socket>,
    is_unix: bool,
    keepalive: Keepalive,
    /// Whether the kernel ends it for what is not acknowledged.
    is_bounded: AtomicBool,
}

/// What suits the way of bytes that stay on this host: nothing is lost there,
/// and bbr, which some systems have by default, spends a tenth of our CPU and of
/// the throughput on pacing. Every kernel has it and lets every user have it.
const LOCAL_CONGESTION_CONTROL: &[u8] = b"reno";

impl Stream {
    /// Takes an accepted, non-blocking socket; to be called on the runtime that
    /// is going to drive it.
    pub(crate) fn accepted(socket: Socket, keepalive: Keepalive) -> io::Result<Self> {
        if is_of_this_host(&socket) {
            suit_this_host(&socket);
        }
        Self::new(socket, keepalive, None)
    }

    fn new(socket: Socket, keepalive: Keepalive, outgoing: Option<Outgoing>) -> io::Result<Self> {
        // What is sent as urgent stays in its place in the stream: a server may
        // need it, and on the tunnel a byte would be missing.
        socket.set_out_of_band_inline(true)?;
        let is_unix = socket.domain()? == Domain::UNIX;
        let keepalive = if is_unix {
            Keepalive::Off
        } else {
            socket.set_tcp_nodelay(true)?;
            socket.set_linger(Some(Duration::ZERO))?;
            keepalive
        };
        if keepalive == Keepalive::On {
            socket.set_tcp_keepalive(&KEEPALIVE)?;
        }
        let fd = register(socket, EVENTS)?;
        Ok(Self { outgoing, fd, is_unix, keepalive, is_bounded: AtomicBool::new(false) })
    }

    /// Connects a non-blocking socket; how long that may take is the caller's to
    /// say.
    pub(crate) async fn connect(
        socket: Socket,
        address: &SockAddr,
        keepalive: Keepalive,
    ) -> io::Result<Self> {
        loop {
            match socket.connect(address) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(EINPROGRESS) => break,
                Err(error) if error.raw_os_error() == Some(EAGAIN) => {
                    tokio::time::sleep(UNIX_BACKLOG_FULL).await;
                }
                Err(error) => return Err(error),
            }
        }
        let ends = Ends::of(&socket, address)?;
        // Where nobody listens on a port that the system may give to outgoing
        // connections, one can be given the very port that it connects to: TCP then
        // connects it to itself, and the server that is down cannot start again.
        if ends.is_some_and(Ends::are_one) {
            // Else the port stays in use for another minute (TIME_WAIT).
            socket.set_linger(Some(Duration::ZERO))?;
            return Err(io::Error::from_raw_os_error(ECONNREFUSED));
        }
        // At once, since its other end may be accepted here already.
        let outgoing = ends.and_then(Outgoing::note);
        let stream = Self::new(socket, keepalive, outgoing)?;
        stream.fd.writable().await?.retain_ready();
        match stream.fd.get_ref().take_error()? {
            None => {
                if stream.outgoing.is_some() {
                    suit_this_host(stream.fd.get_ref());
                }
                Ok(stream)
            }
            Some(error) => Err(error),
        }
    }

    /// Whether this process has connected to itself.
    pub(crate) fn is_loop(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::has_come_back)
            || self.is_unix && leads_to_us(self.fd.get_ref()).unwrap_or_default()
    }

    /// Waits until there may be something to read. Like all that is polled here
    /// it has one place for who waits: one task may wait to read, one to write.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        let is_unix = self.is_unix;
        self.fd.poll_read_ready(cx).map_ok(|guard| Readable { guard, is_unix })
    }

    /// The same, to be awaited.
    pub(crate) async fn readable(&self) -> io::Result<Readable<'_>> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads what is there now; `None` when there is nothing yet.
    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut socket = self.fd.get_ref();
        match socket.read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until `into` is full. Returns how many bytes came before the end
    /// of the stream; `progress` always says how many came so far.
    pub(crate) async fn read_full(
        &self,
        into: &mut [u8],
        progress: &mut usize,
    ) -> io::Result<usize> {
        while *progress < into.len() {
            match self.readable().await?.read(&mut into[*progress..])? {
                None => {}
                Some(0) => break,
                Some(count) => *progress += count,
            }
        }
        Ok(*progress)
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let part = [IoSlice::new(bytes)];
            let count = poll_fn(|cx| self.poll_write(cx, &part)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Waits until there may be room to write.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_write_ready(cx).map_ok(|_guard| ())
    }

    /// One write, as soon as there is room; how many bytes of all the parts it
    /// wrote, never 0.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = parts.iter().map(|part| part.len()).sum();
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| write(fd.get_ref(), parts)) {
                Ok(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(Ok(count)) => {
                    if count < wanted {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// To be called every [`CHECK`]: bounds how long data may be on its way
    /// without an acknowledgement.
    ///
    /// Not once and for all, since Linux counts `TCP_USER_TIMEOUT` also against
    /// a peer that is there and just does not read. That one has acknowledged
    /// what was sent, and answers when it is asked for room.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.keepalive == Keepalive::Off {
            return Ok(());
        }
        let [_, _, _, probes, .., u1, u2, u3, u4] = getsockopt(self.fd.get_ref(), TcpInfo)?;
        let is_owing = [u1, u2, u3, u4] != [0; 4] || probes > 1;
        if self.is_bounded.swap(is_owing, Ordering::Relaxed) != is_owing {
            self.fd.get_ref().set_tcp_user_timeout(is_owing.then_some(UNACKNOWLEDGED))?;
        }
        Ok(())
    }

    /// Whether the peer has ended its stream, read or not.
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        self.knows(Interest::READABLE, Ready::is_read_closed)
    }

    /// Whether the peer of a unix socket has closed it. So it seems, too, when each
    /// side has ended its own stream.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        self.is_unix && self.knows(Interest::WRITABLE, Ready::is_write_closed)
    }

    fn knows(&self, interest: Interest, what: fn(Ready) -> bool) -> bool {
        // Not by the place of who waits to read or write, which stays in it.
        let mut ready = pin!(self.fd.ready(interest));
        let mut cx = Context::from_waker(Waker::noop());
        match ready.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(guard)) => what(guard.ready()),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Waits until the peer of a unix socket has been gone for a minute.
    pub(crate) async fn abandoned(&self) -> io::Error {
        let mut checks = 0_u32;
        while checks < GONE {
            tokio::time::sleep(CHECK).await;
            checks = if self.is_closed_by_peer() { checks.saturating_add(1) } else { 0 };
        }
        io::ErrorKind::BrokenPipe.into()
    }

    /// Waits until something can be read, be it the end of the stream or an
    /// error, and leaves it there.
    pub(crate) fn poll_has_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) {
            if guard.try_io(|fd| peek(fd.get_ref())).is_ok() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether something can be read, whatever the runtime knows of it.
    pub(crate) fn has_input_now(&self) -> bool {
        !peek(self.fd.get_ref()).is_err_and(|error| would_block(&error))
    }

    /// Has the runtime that this is called on drive it from now on.
    pub(crate) fn moved_here(self) -> io::Result<Self> {
        let fd = register(self.fd.into_inner(), EVENTS)?;
        Ok(Self { fd, ..self })
    }

    /// Waits until the connection has failed, as by a reset.
    pub(crate) async fn failed(&self) -> io::Error {
        match self.fd.ready(Interest::ERROR).await {
            Err(error) => error,
            Ok(_guard) => match self.fd.get_ref().take_error() {
                Ok(Some(error)) | Err(error) => error,
                // Somebody else was told the error first.
                Ok(None) => io::ErrorKind::ConnectionReset.into(),
            },
        }
    }

    /// Ends the stream towards the peer; what it sends can still be read. What
    /// was written arrives from here on, however this side is closed.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.close_cleanly();
        match self.fd.get_ref().shutdown(Shutdown::Write) {
            // The peer is gone already: the next read or write says how.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Closes as after a clean end: what was written still arrives. A stream
    /// whose end was not written is reset when it is just dropped, so that
    /// whatever befalls this process, no peer takes a stream that was cut for
    /// a complete one. A unix socket knows no reset: its peer sees the end of
    /// the stream.
    pub(crate) fn close(self) {
        self.close_cleanly();
    }

    fn close_cleanly(&self) {
        // Where it can't be set, the peer is gone already.
        let _gone = self.fd.get_ref().set_linger(None);
    }
}

/// A message of several parts costs the kernel more than a plain one.
fn write(mut socket: &Socket, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match parts {
        [only] => socket.write(only),
        parts => socket.write_vectored(parts),
    }
}

/// Whether an accepted connection is one within this host.
fn is_of_this_host(socket: &Socket) -> bool {
    let ip = |address: io::Result<SockAddr>| address.ok()?.as_socket().map(|inet| inet.ip());
    let peer = ip(socket.peer_addr());
    peer.is_some_and(|peer| peer.is_loopback() || Some(peer) == ip(socket.local_addr()))
}

/// Chooses the congestion control of a connection within this host.
fn suit_this_host(socket: &Socket) {
    // It is only slower without.
    let _refused = socket.set_tcp_congestion(LOCAL_CONGESTION_CONTROL);
}

sockopt_impl!(
    /// `TCP_INFO`: what the kernel knows of a connection. Only the beginning of
    /// `struct tcp_info`, up to `tcpi_unacked`: the whole of it is longer with each
    /// kernel, and an older one has less to give than is asked for.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u8; 28]
);

/// Has the runtime that this is called on watch a socket.
#[expect(unsafe_code, reason = "tokio has no safe way to watch a socket it has not made")]
pub(crate) fn register(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor: it stays open, and the same, for
    // as long as the `Socket` lives, and nothing here moves it out before the
    // registration ends.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

fn peek(socket: &Socket) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
