//! A stream: one socket, TCP or unix, driven by readiness.
//!
//! After a short write the readiness is cleared, which saves a system call that would
//! only say to wait. The same holds for most short reads, see [`read`].

mod options;
mod read;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use nix::libc::{EAGAIN, ECONNREFUSED, EINPROGRESS};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use self::options::{
    KEEPALIVE, UNACKNOWLEDGED, is_owing, set_local_congestion_control, stays_on_this_host,
    unacknowledged,
};
use super::loops::{Endpoints, Outgoing, peer_is_this_process};
use super::peer::Peer;
use crate::config::Keepalive;

pub(crate) use self::read::Readable;

/// The events that a connected socket is watched for.
const EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// The retry interval of a connect to a unix socket whose backlog is full; unlike for TCP,
/// the kernel gives no event.
const UNIX_BACKLOG_FULL: Duration = Duration::from_millis(5);

/// The interval of checks for unacknowledged data and for peers that are gone.
pub(crate) const CHECK: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(15) };
/// For how many checks, a minute in all, a peer on a unix socket may be gone. A TCP peer
/// that is gone is found out after about as long.
pub(crate) const GONE: u32 = 4;

/// How long data of a carrier may stay unacknowledged.
const CARRIER_UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How many bytes of a carrier the kernel takes before it can send them.
const CARRIER_UNSENT: u32 = 64 * 1024;

/// A connected socket. A TCP socket has Nagle's algorithm off, and is reset when it is
/// dropped before its end was written.
pub(crate) struct Stream {
    /// For a connection to this host. Dropped before the socket is closed.
    outgoing: Option<Outgoing>,
    fd: AsyncFd<Socket>,
    is_unix: bool,
    keepalive: Keepalive,
    /// Whether the kernel ends the connection when data stays unacknowledged.
    is_bounded: AtomicBool,
}

impl Stream {
    /// Takes an accepted, non-blocking socket; to be called on the runtime that drives it.
    pub(crate) fn accepted(socket: Socket, keepalive: Keepalive) -> io::Result<Self> {
        if stays_on_this_host(&socket) {
            set_local_congestion_control(&socket);
        }
        Self::new(socket, keepalive, None)
    }

    fn new(socket: Socket, keepalive: Keepalive, outgoing: Option<Outgoing>) -> io::Result<Self> {
        // Urgent data stays in its place in the stream: a server may need it, and on the
        // tunnel a byte would be missing.
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

    /// Connects a non-blocking socket. The time limit is up to the caller.
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
        let ends = Endpoints::of(&socket, address)?;
        // Where the server is down, the system may give an outgoing connection the very
        // port that it connects to. TCP then connects the socket to itself, and the server
        // could not start again.
        if ends.is_some_and(Endpoints::are_equal) {
            // Otherwise the port stays in use for another minute (TIME_WAIT).
            socket.set_linger(Some(Duration::ZERO))?;
            return Err(io::Error::from_raw_os_error(ECONNREFUSED));
        }
        // At once, since this process may have accepted the connection already.
        let outgoing = ends.and_then(Outgoing::note);
        let stream = Self::new(socket, keepalive, outgoing)?;
        stream.fd.writable().await?.retain_ready();
        match stream.fd.get_ref().take_error()? {
            None => {
                if stream.outgoing.is_some() {
                    set_local_congestion_control(stream.fd.get_ref());
                }
                Ok(stream)
            }
            Some(error) => Err(error),
        }
    }

    /// A stream whose peer has ended it and gone: there is nothing to read, and nobody to
    /// write to.
    pub(crate) fn ended() -> io::Result<Self> {
        let (socket, _gone) = Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        Self::new(socket, Keepalive::Off, None)
    }

    /// Another descriptor of its socket.
    #[cfg(test)]
    pub(crate) fn duplicate(&self) -> Socket {
        self.fd.get_ref().try_clone().unwrap()
    }

    /// The address of this end, if that is TCP.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.fd.get_ref().local_addr().ok()?.as_socket()
    }

    /// The other end.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        self.fd.get_ref().peer_addr().map(|address| Peer::of(&address))
    }

    /// Whether this process has connected to itself.
    pub(crate) fn is_loop(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::has_come_back)
            || self.is_unix && peer_is_this_process(self.fd.get_ref()).unwrap_or_default()
    }

    /// Waits until there may be something to read. At most one task may wait to read, and
    /// one to write.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        let is_unix = self.is_unix;
        self.fd.poll_read_ready(cx).map_ok(|guard| Readable { guard, is_unix })
    }

    /// As [`Stream::poll_readable`], to be awaited.
    pub(crate) async fn readable(&self) -> io::Result<Readable<'_>> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads what has come; `None` when there is nothing yet.
    pub(crate) fn try_read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut socket = self.fd.get_ref();
        match socket.read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until `into` is full or the stream ends. Returns how many bytes came;
    /// `progress` has that number also when this is dropped.
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

    /// Writes all bytes.
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

    /// Writes once, as soon as there is room. Returns how many bytes of all parts were
    /// written, never 0.
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

    /// Writes what fits now, without waiting. Returns how many bytes that were.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match write(self.fd.get_ref(), &[IoSlice::new(bytes)]) {
            Err(error) if would_block(&error) => Ok(0),
            written => written,
        }
    }

    /// Sets the options of a connection that is always read, and in which little should stand
    /// before what comes next: unacknowledged data fails it soon.
    pub(crate) fn carry(&self) {
        if self.is_unix {
            return;
        }
        let socket = self.fd.get_ref();
        // Without these, a dead connection is found out a little later, by its silence.
        let _later = socket.set_tcp_user_timeout(Some(CARRIER_UNACKNOWLEDGED));
        let _more_unsent = socket.set_tcp_notsent_lowat(CARRIER_UNSENT);
    }

    /// Bounds how long data may stay unacknowledged. To be called every [`CHECK`].
    ///
    /// `TCP_USER_TIMEOUT` cannot stay set, since Linux also counts it against a peer that
    /// is there and does not read. Such a peer has acknowledged what was sent, and answers
    /// window probes.
    pub(crate) fn bound_unacknowledged(&self) -> io::Result<()> {
        if self.keepalive == Keepalive::Off {
            return Ok(());
        }
        let is_owing = is_owing(self.fd.get_ref())?;
        if self.is_bounded.swap(is_owing, Ordering::Relaxed) != is_owing {
            self.fd.get_ref().set_tcp_user_timeout(is_owing.then_some(UNACKNOWLEDGED))?;
        }
        Ok(())
    }

    /// Whether the peer has ended its stream, even if that end was not read yet.
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        self.knows(Interest::READABLE, Ready::is_read_closed)
    }

    /// Waits until the peer has ended its stream. Reads nothing.
    pub(crate) async fn ended_by_peer(&self) {
        while let Ok(mut guard) = self.fd.ready(Interest::READABLE).await {
            if guard.ready().is_read_closed() {
                break;
            }
            guard.clear_ready();
        }
    }

    /// Whether the connection has failed, even if no read or write has told it yet.
    pub(crate) fn has_failed(&self) -> bool {
        self.knows(Interest::ERROR, Ready::is_error)
    }

    /// How many of the written bytes the peer's system has not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> io::Result<usize> {
        unacknowledged(self.fd.get_ref())
    }

    /// Whether the peer of a unix socket has closed it. Also true when both sides have
    /// ended their streams.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        self.is_unix && self.knows(Interest::WRITABLE, Ready::is_write_closed)
    }

    fn knows(&self, interest: Interest, what: fn(Ready) -> bool) -> bool {
        // Polled with a future of its own, so that tasks that wait to read or write stay.
        let mut readiness = pin!(self.fd.ready(interest));
        let mut cx = Context::from_waker(Waker::noop());
        match readiness.as_mut().poll(&mut cx) {
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

    /// Waits until something can be read, which may be the end of the stream or an error.
    /// Reads nothing.
    pub(crate) fn poll_has_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) {
            if guard.try_io(|fd| peek(fd.get_ref())).is_ok() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether something can be read. Asks the kernel, not the runtime.
    pub(crate) fn has_input_now(&self) -> bool {
        !peek(self.fd.get_ref()).is_err_and(|error| would_block(&error))
    }

    /// Moves the stream to the runtime that this is called on.
    pub(crate) fn moved_here(self) -> io::Result<Self> {
        let fd = register(self.fd.into_inner(), EVENTS)?;
        Ok(Self { fd, ..self })
    }

    /// The error of the connection, if it has failed. Asks the kernel, which tells each
    /// error once.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.fd.get_ref().take_error().unwrap_or_else(Some)
    }

    /// Waits until the connection has failed, as by a reset.
    pub(crate) async fn failed(&self) -> io::Error {
        match self.fd.ready(Interest::ERROR).await {
            Err(error) => error,
            // Another call may have been told the error first.
            Ok(_guard) => self.take_error().unwrap_or(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Ends the stream to the peer, which can still send. From here on, what was written
    /// arrives, however the socket is closed.
    ///
    /// # Errors
    /// When the connection has failed, even if a read would not tell that any more.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.close_cleanly();
        let ended = self.fd.get_ref().shutdown(Shutdown::Write);
        // The kernel knows the reason better: a reset, or a peer that does not answer.
        ended.map_err(|error| self.take_error().unwrap_or(error))
    }

    /// Closes after a clean end: what was written still arrives. A stream that is dropped
    /// before its end was written is reset, so that no peer takes a cut stream for complete,
    /// whatever happens to this process. A unix socket knows no reset: its peer sees the end
    /// of the stream.
    pub(crate) fn close(self) {
        self.close_cleanly();
    }

    fn close_cleanly(&self) {
        // Where the option cannot be set, the peer is gone already.
        let _gone = self.fd.get_ref().set_linger(None);
    }
}

/// Writes once. A write of several parts costs the kernel more than a plain one.
fn write(mut socket: &Socket, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match parts {
        [only] => socket.write(only),
        parts => socket.write_vectored(parts),
    }
}

/// Registers a socket with the runtime that this is called on.
#[expect(unsafe_code, reason = "tokio has no safe way to watch a socket it has not made")]
pub(crate) fn register(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, which stays open and the same for as long as
    // the `Socket` lives. The `Socket` is not moved out before the registration ends.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

fn peek(socket: &Socket) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
