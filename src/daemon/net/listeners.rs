//! The TCP sockets of this network namespace that listen, and the processes that have them.

use std::io;
use std::net::SocketAddr;

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{ProcError, ProcResult};

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) inode: u64,
}

/// All TCP sockets that listen.
///
/// # Errors
/// When the kernel does not show them.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    // Without IPv6, there is no such file.
    let six = match tcp6() {
        Err(ProcError::NotFound(_)) => vec![],
        all => io(all)?,
    };
    let all = io(tcp())?.into_iter().chain(six);
    let all = all.filter(|it| it.state == TcpState::Listen);
    Ok(all.map(|it| Listener { address: it.local_address, inode: it.inode }).collect())
}

/// The processes that have these sockets, as far as this user sees that: each with the inode
/// of a socket.
pub(crate) fn holders(inodes: &[u64]) -> Vec<(u64, Process)> {
    let mut found = Vec::new();
    for process in all_processes().into_iter().flatten().flatten() {
        // A process that has ended meanwhile has no descriptors.
        let open = process.fd().into_iter().flatten().flatten();
        let open: Vec<_> = open.map(|it| it.target).collect();
        for inode in inodes.iter().filter(|inode| open.contains(&FDTarget::Socket(**inode))) {
            if let Ok(process) = Process::new(process.pid) {
                found.push((*inode, process));
            }
        }
    }
    found
}

fn io<T>(result: ProcResult<T>) -> io::Result<T> {
    result.map_err(io::Error::other)
}
