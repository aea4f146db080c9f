//! Options of TCP sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{SockAddr, Socket, TcpKeepalive};

/// The probes of an idle peer: after 30 s, then every 10 s. After three probes without an
/// answer, the peer is gone.
pub(super) const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);
/// How long data may stay unacknowledged before the peer is gone.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// The congestion control of connections within this host, where nothing is lost: bbr,
/// the default of some systems, spends a tenth of the CPU and of the throughput on pacing.
/// Every kernel has reno, for every user.
const LOCAL_CONGESTION_CONTROL: &[u8] = b"reno";

/// Whether a peer owes acknowledgements, or answers to probes.
pub(super) fn is_owing(socket: &Socket) -> io::Result<bool> {
    let [_, _, _, probes, .., u1, u2, u3, u4] = getsockopt(socket, TcpInfo)?;
    Ok([u1, u2, u3, u4] != [0; 4] || probes > 1)
}

/// How many of the written bytes the peer's system has not acknowledged; on a unix socket,
/// about how many the peer has not read.
#[expect(unsafe_code, reason = "there is no safe function for this request")]
pub(super) fn unacknowledged(socket: &Socket) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and TIOCOUTQ writes one int, which `bytes` is.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Whether an accepted connection stays within this host.
pub(super) fn stays_on_this_host(socket: &Socket) -> bool {
    let ip = |address: io::Result<SockAddr>| address.ok()?.as_socket().map(|inet| inet.ip());
    let peer = ip(socket.peer_addr());
    peer.is_some_and(|peer| peer.is_loopback() || Some(peer) == ip(socket.local_addr()))
}

/// Sets the congestion control of a connection within this host.
pub(super) fn set_local_congestion_control(socket: &Socket) {
    // Without it, the connection is only slower.
    let _refused = socket.set_tcp_congestion(LOCAL_CONGESTION_CONTROL);
}

sockopt_impl!(
    /// `TCP_INFO`: what the kernel knows of a connection. Only the beginning of
    /// `struct tcp_info`, up to `tcpi_unacked`: the rest differs between kernels.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u8; 28]
);
