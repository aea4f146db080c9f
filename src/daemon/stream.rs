//! One socket, TCP or unix, driven by readiness.
//!
//! After a short read or write the readiness is cleared, so that no system
//! call is spent on being told to wait.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use nix::libc::{self, EAGAIN, EINPROGRESS};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::config::Keepalive;

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
pub(super) const CHECK: Duration = Duration::from_secs(15);

/// A connected socket. TCP ones have Nagle's algorithm off, and are reset when
/// they are dropped before their end was written.
pub(super) struct Stream {
    fd: AsyncFd<Socket>,
    keepalive: Keepalive,
    /// Whether the kernel ends it for what is not acknowledged.
    is_bounded: AtomicBool,
}

/// What suits the way of bytes that stay on this host: nothing is lost there,
/// and bbr, which some systems have by default, spends a tenth of our CPU and of
/// the throughput on pacing. Every kernel has it and lets every user have it.
const LOCAL_CONGESTION_CONTROL: &[u8] = b"reno";

/// How sockets are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// The local address of a connection that is made.
    pub(super) bind: Option<SocketAddr>,
    pub(super) keepalive: Keepalive,
}

/// Who is at the other end, for the log.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Inet(SocketAddr),
    Unix,
}

/// There may be something to read.
pub(super) struct Readable<'a>(AsyncFdReadyGuard<'a, Socket>);

impl Stream {
    /// Takes an accepted, non-blocking socket; to be called on the runtime that
    /// is going to drive it.
    pub(super) fn accepted(socket: Socket, keepalive: Keepalive) -> io::Result<Self> {
        suit_the_path(&socket);
        Self::new(socket, keepalive)
    }

    fn new(socket: Socket, keepalive: Keepalive) -> io::Result<Self> {
        let keepalive = if socket.domain()? == Domain::UNIX {
            Keepalive::Off
        } else {
            socket.set_tcp_nodelay(true)?;
            socket.set_linger(Some(Duration::ZERO))?;
            keepalive
        };
        if keepalive == Keepalive::On {
            socket.set_tcp_keepalive(&KEEPALIVE)?;
        }
        let fd = register(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { fd, keepalive, is_bounded: AtomicBool::new(false) })
    }

    /// Connects; how long that may take is the caller's to say.
    pub(super) async fn connect(address: &SockAddr, options: Options) -> io::Result<Self> {
        let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
        if let Some(local) = options.bind.filter(|_| !address.is_unix()) {
            socket.bind(&local.into())?;
        }
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
        let stream = Self::new(socket, options.keepalive)?;
        stream.fd.writable().await?.retain_ready();
        match stream.fd.get_ref().take_error()? {
            None => {
                suit_the_path(stream.fd.get_ref());
                Ok(stream)
            }
            Some(error) => Err(error),
        }
    }

    /// Waits until there may be something to read. Like all that is polled here
    /// it has one place for who waits: one task may wait to read, one to write.
    pub(super) fn poll_readable(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Readable<'_>>> {
        self.fd.poll_read_ready(context).map_ok(Readable)
    }

    /// The same, to be awaited.
    pub(super) async fn readable(&self) -> io::Result<Readable<'_>> {
        poll_fn(|context| self.poll_readable(context)).await
    }

    /// Reads what is there now; `None` when there is nothing yet.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut socket = self.fd.get_ref();
        match socket.read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until `into` is full. Returns how many bytes came before the end
    /// of the stream; `progress` always says how many came so far.
    pub(super) async fn read_full(
        &self,
        into: &mut [u8],
        progress: &mut usize,
    ) -> io::Result<usize> {
        while let Some(room) = into.get_mut(*progress..).filter(|room| !room.is_empty()) {
            match self.readable().await?.read(room)? {
                None => {}
                Some(0) => break,
                Some(count) => *progress = progress.saturating_add(count),
            }
        }
        Ok(*progress)
    }

    /// Writes all of it.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let part = [IoSlice::new(bytes)];
            let count = poll_fn(|context| self.poll_write(context, &part)).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits until there may be room to write.
    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_write_ready(context).map_ok(|_guard| ())
    }

    /// One write, as soon as there is room; how many bytes of all the parts it
    /// wrote, never 0.
    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = parts.iter().map(|part| part.len()).sum();
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
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
    pub(super) fn check(&self) -> io::Result<()> {
        if self.keepalive == Keepalive::Off {
            return Ok(());
        }
        let info = getsockopt(self.fd.get_ref(), TcpInfo)?;
        let is_owing = info.tcpi_unacked > 0 || info.tcpi_probes > 1;
        if self.is_bounded.swap(is_owing, Ordering::Relaxed) != is_owing {
            self.fd.get_ref().set_tcp_user_timeout(is_owing.then_some(UNACKNOWLEDGED))?;
        }
        Ok(())
    }

    /// Whether the peer has ended its stream, read or not.
    pub(super) fn is_ended_by_peer(&self) -> bool {
        // Not by the place of who waits to read, which stays in it.
        let mut ready = pin!(self.fd.readable());
        let mut context = Context::from_waker(Waker::noop());
        match ready.as_mut().poll(&mut context) {
            Poll::Ready(Ok(guard)) => guard.ready().is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Waits until something can be read, be it the end of the stream or an
    /// error, and leaves it there.
    pub(super) fn poll_has_input(&self, context: &mut Context<'_>) -> Poll<()> {
        while let Ok(mut guard) = ready!(self.fd.poll_read_ready(context)) {
            if guard.try_io(|fd| peek(fd.get_ref())).is_ok() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether something can be read, whatever the runtime knows of it.
    pub(super) fn has_input_now(&self) -> bool {
        !peek(self.fd.get_ref()).is_err_and(|error| would_block(&error))
    }

    /// Has the runtime that this is called on drive it from now on.
    pub(super) fn moved_here(self) -> io::Result<Self> {
        let fd = register(self.fd.into_inner(), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { fd, ..self })
    }

    /// Waits until the connection has failed, as by a reset.
    pub(super) async fn failed(&self) -> io::Error {
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
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
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
    pub(super) fn close(self) {
        self.close_cleanly();
    }

    fn close_cleanly(&self) {
        // Where it can't be set, the peer is gone already.
        let _gone = self.fd.get_ref().set_linger(None);
    }
}

impl Readable<'_> {
    /// One read; `None` when there was nothing after all.
    pub(super) fn read(self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_with(into.len(), |mut socket| socket.read(into))
    }

    /// One read into several places, `wanted` bytes in all.
    pub(super) fn read_vectored(
        self,
        into: &mut [IoSliceMut<'_>],
        wanted: usize,
    ) -> io::Result<Option<usize>> {
        self.read_with(wanted, |mut socket| socket.read_vectored(into))
    }

    fn read_with(
        mut self,
        wanted: usize,
        read: impl FnOnce(&Socket) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        match self.0.try_io(|fd| read(fd.get_ref())) {
            Ok(Ok(count)) => {
                // All there was has been read. The end of the stream stays
                // readable: it is not cleared by this.
                if count < wanted {
                    self.0.clear_ready();
                }
                Ok(Some(count))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_would_block) => Ok(None),
        }
    }
}

/// A message of several parts costs the kernel more than a plain one.
fn write(mut socket: &Socket, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match parts {
        [only] => socket.write(only),
        parts => socket.write_vectored(parts),
    }
}

/// Chooses the congestion control of a connection within this host.
fn suit_the_path(socket: &Socket) {
    let ip = |address: io::Result<SockAddr>| address.ok()?.as_socket().map(|inet| inet.ip());
    let peer = ip(socket.peer_addr());
    if peer.is_some_and(|peer| peer.is_loopback() || Some(peer) == ip(socket.local_addr())) {
        // It is only slower without.
        let _refused = socket.set_tcp_congestion(LOCAL_CONGESTION_CONTROL);
    }
}

sockopt_impl!(
    /// `TCP_INFO`: what the kernel knows of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// Has the runtime that this is called on watch a socket.
#[expect(unsafe_code, reason = "tokio has no safe way to watch a socket it has not made")]
pub(super) fn register(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
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

impl Peer {
    /// The peer an accepted connection comes from.
    pub(super) fn of(address: &SockAddr) -> Self {
        address.as_socket().map_or(Self::Unix, Self::Inet)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix-socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { bind: None, keepalive: Keepalive::On };

    /// A listening socket, and a stream connected to it with its other end.
    async fn pair() -> (Stream, Stream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SockAddr::from(listener.local_addr().unwrap());
        let connected = Stream::connect(&address, OPTIONS).await.unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        accepted.set_nonblocking(true).unwrap();
        (connected, Stream::accepted(accepted, Keepalive::On).unwrap())
    }

    #[tokio::test]
    async fn nagle_is_off_on_accepted_and_on_connected_sockets() {
        let (connected, accepted) = pair().await;
        assert!(connected.fd.get_ref().tcp_nodelay().unwrap());
        assert!(accepted.fd.get_ref().tcp_nodelay().unwrap());
    }

    #[tokio::test]
    async fn what_stays_on_this_host_is_not_paced() {
        let (connected, accepted) = pair().await;
        for stream in [connected, accepted] {
            assert!(stream.fd.get_ref().tcp_congestion().unwrap().starts_with(b"reno\0"));
        }
    }

    #[tokio::test]
    async fn a_reset_is_noticed_without_reading() {
        let (connected, accepted) = pair().await;
        drop(connected);
        assert_eq!(accepted.failed().await.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_panic_is_no_clean_end_for_the_peer() {
        let (connected, accepted) = pair().await;
        let task = tokio::spawn(async move {
            let _held = connected;
            tokio::task::yield_now().await;
            panic!("a bug in one connection");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(accepted.failed().await.kind(), io::ErrorKind::ConnectionReset);
    }

    /// What came before the end of the stream is read, then the end itself,
    /// though the readiness was cleared in between.
    #[tokio::test]
    async fn the_end_is_read_after_a_short_read() {
        let (connected, accepted) = pair().await;
        connected.write_all(b"last").await.unwrap();
        connected.shutdown_write().unwrap();
        let mut bytes = [0; 100];
        assert_eq!(accepted.readable().await.unwrap().read(&mut bytes).unwrap(), Some(4));
        assert_eq!(accepted.readable().await.unwrap().read(&mut bytes).unwrap(), Some(0));
    }

    #[tokio::test]
    async fn input_is_awaited_and_left_there() {
        let (connected, accepted) = pair().await;
        connected.write_all(b"x").await.unwrap();
        poll_fn(|context| accepted.poll_has_input(context)).await;
        assert_eq!(accepted.try_read(&mut [0; 9]).unwrap(), Some(1));
        assert_eq!(accepted.try_read(&mut [0; 9]).unwrap(), None);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SockAddr::from(listener.local_addr().unwrap());
        drop(listener);
        let error = Stream::connect(&address, OPTIONS).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
