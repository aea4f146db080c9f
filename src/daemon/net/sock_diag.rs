//! Which user has made a TCP connection on this host: `sock_diag(7)` asks the kernel for
//! the client's socket. The kernel answers while it takes the question, so nothing is
//! waited for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::constants::{TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LISTEN};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use nix::errno::Errno;
use nix::libc::ENOENT;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use nix::sys::stat::fstat;
use socket2::Socket;

/// A socket's addresses as any socket shows them: no cookie.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A connection to the part of the kernel that knows the sockets of this network.
pub(crate) struct SockDiag {
    kernel: OwnedFd,
    questions: AtomicU32,
}

impl SockDiag {
    /// # Errors
    /// When a sandbox or the kernel has no such sockets.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let kernel = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Once connected, no process can answer in place of the kernel.
        connect(kernel.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { kernel, questions: AtomicU32::new(0) })
    }

    /// Proves that a listening socket is seen, and so the clients that connect to it. A
    /// socket that was handed over may be of another network, which is not.
    pub(crate) fn prove(&self, listener: &Socket, at: SocketAddr) -> io::Result<()> {
        let found = self.find(at, SocketAddr::new(at.ip(), 0))?;
        let inode = fstat(listener)?.st_ino;
        if found.state != TCP_LISTEN || u64::from(found.inode) != inode {
            return Err(io::Error::other("the socket that listens is of another network"));
        }
        Ok(())
    }

    /// The uid of the user whose socket is the other end of a connection, which was
    /// accepted from this address. It is the user that has made the socket.
    ///
    /// # Errors
    /// When no open socket of this host is the other end.
    pub(crate) fn user_of_client(&self, accepted: &Socket, from: SocketAddr) -> io::Result<u32> {
        let gone = || io::Error::other("it has closed its socket already");
        let to = accepted.local_addr()?.as_socket().ok_or_else(gone)?;
        let found = self.find(from, to).map_err(|error| match error.raw_os_error() {
            Some(ENOENT) => io::Error::other("no socket of this host is its end"),
            _ => error,
        })?;
        // A socket that its process has closed lives on for a while, and shows user 0.
        // A socket that is still connecting is of a later connection.
        let is_open = [TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2].contains(&found.state);
        if found.inode == 0 || !is_open {
            return Err(gone());
        }
        // While the accepted socket lives, no other socket can be its other end.
        accepted.peer_addr().map_err(|_| gone())?;
        Ok(found.uid)
    }

    /// The TCP socket with these addresses; where there is none, a socket that listens at
    /// `local`.
    fn find(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<InetResponseHeader> {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        send(self.kernel.as_raw_fd(), &question(number, local, remote), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            let length = match recv(self.kernel.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => {
                    return Err(io::Error::other("the kernel does not answer"));
                }
                length => length?,
            };
            let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
            let answer = answer.get(..length).unwrap_or_default();
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer).map_err(wrong)?;
            // An answer may be left from a question that failed.
            if answer.header.sequence_number != number {
                continue;
            }
            #[expect(clippy::wildcard_enum_match_arm, reason = "any other answer is wrong")]
            return match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    Ok(found.header)
                }
                NetlinkPayload::Error(error) => Err(error.to_io()),
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}

fn question(number: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    // IPv4 inside IPv6 is found as IPv4, whatever the family of its socket.
    let (source, destination) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let request = InetRequest {
        family: if source.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: source,
            destination_address: destination,
            interface_id: 0,
            cookie: NO_COOKIE,
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
