//! Who has connected to a unix socket: user, groups and process, as they were when they
//! connected (`SO_PEERCRED` and `SO_PEERGROUPS` in `unix(7)`).

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{SO_PEERGROUPS, SOL_SOCKET, getsockopt as get, socklen_t};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::Socket;

/// The process that has connected.
pub(crate) struct UnixClient {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its number; `None` where it is of another pid namespace.
    pub(crate) pid: Option<u32>,
}

impl UnixClient {
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn of(accepted: &Socket) -> io::Result<Self> {
        let client = getsockopt(accepted, PeerCredentials)?;
        let pid = u32::try_from(client.pid()).ok().filter(|pid| *pid != 0);
        Ok(Self { uid: client.uid(), gid: client.gid(), pid })
    }
}

/// The supplementary groups of the process that has connected.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn supplementary_groups(accepted: &Socket) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidData);
        let room = groups.len().saturating_mul(size_of::<u32>());
        let mut length = socklen_t::try_from(room).map_err(too_long)?;
        #[expect(unsafe_code, reason = "no crate has this option")]
        // SAFETY: the kernel writes at most `length` bytes, which `groups` has, and sets
        // `length`; numbers may have any value.
        let result = unsafe {
            get(
                accepted.as_raw_fd(),
                SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).map_err(too_long)? / size_of::<u32>();
        let error = (result != 0).then(Errno::last);
        match error {
            None => {
                groups.truncate(count);
                return Ok(groups);
            }
            // The length says how much room it takes.
            Some(Errno::ERANGE) if count > groups.len() => {
                groups.resize(count, 0);
            }
            Some(error) => return Err(error.into()),
        }
    }
}
