//! Reading a stream. After a short read nothing is left, so the readiness is cleared, which
//! saves a system call that would only say to wait. There are two exceptions:
//!
//! - A read ends before a byte that was sent as urgent (`MSG_OOB`). While the
//!   kernel reports such a byte, the socket is read until nothing is left.
//! - On a unix socket a read ends with a message that had descriptors. The read itself
//!   tells that.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recvmsg};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A stream that may have something to read.
pub(crate) struct Readable<'a> {
    pub(crate) guard: AsyncFdReadyGuard<'a, Socket>,
    pub(crate) is_unix: bool,
}

impl Readable<'_> {
    /// Reads once; `None` when there was nothing after all.
    pub(crate) fn read(self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_vectored(&mut [IoSliceMut::new(into)])
    }

    /// Reads once, into several buffers.
    pub(crate) fn read_vectored(
        mut self,
        into: &mut [IoSliceMut<'_>],
    ) -> io::Result<Option<usize>> {
        let wanted = into.iter().map(|part| part.len()).sum();
        let is_unix = self.is_unix;
        let read = |fd: &AsyncFd<Socket>| {
            let socket = fd.get_ref();
            if is_unix { read_unix(socket, into) } else { Ok((read(socket, into)?, false)) }
        };
        match self.guard.try_io(read) {
            Ok(Ok((count, is_message))) => {
                // Nothing is left. Clearing does not touch the end of the stream, which
                // stays readable.
                if count < wanted && !is_message && !self.has_urgent() {
                    self.guard.clear_ready();
                }
                Ok(Some(count))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_would_block) => {
                self.clear_urgent();
                Ok(None)
            }
        }
    }

    /// Whether the runtime knows of an urgent byte. Makes no system call.
    fn has_urgent(&self) -> bool {
        self.guard.get_ref().try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    /// Has the runtime forget about urgent bytes until the kernel reports one.
    fn clear_urgent(&self) {
        let none = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _cleared = self.guard.get_ref().try_io(Interest::PRIORITY, |_| none());
    }
}

/// Reads once. A read into several parts costs the kernel more than a plain one.
fn read(mut socket: &Socket, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match into {
        [only] => socket.read(only),
        parts => socket.read_vectored(parts),
    }
}

/// Reads once, and tells whether descriptors came along, which the kernel closes.
fn read_unix(socket: &Socket, into: &mut [IoSliceMut<'_>]) -> io::Result<(usize, bool)> {
    let message = recvmsg::<()>(socket.as_raw_fd(), into, None, MsgFlags::empty())?;
    Ok((message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC)))
}
