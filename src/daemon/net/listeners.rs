//! The sockets of this network namespace that listen, and the processes that have them.

use std::collections::BTreeSet;
use std::io;

use procfs::net::{TcpState, UnixState, tcp, tcp6, unix};
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{ProcError, ProcResult};

use crate::config::Address;

/// The kernel's number for a stream.
const STREAM: u16 = 1;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Never a name.
    pub(crate) address: Address,
    pub(crate) inode: u64,
}

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Of the socket.
    pub(crate) inode: u64,
    pub(crate) pid: i32,
    /// The name of the process.
    pub(crate) name: String,
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
    let listener = |address, inode| Listener { address: Address::Inet(address), inode };
    Ok(all.map(|it| listener(it.local_address, it.inode)).collect())
}

/// All unix sockets that have a path and listen, as far as they can be told from others: none
/// of them is connected.
///
/// # Errors
/// When the kernel does not show them.
pub(crate) fn unix_listeners() -> io::Result<Vec<Listener>> {
    let all = io(unix())?.into_iter();
    let all = all.filter(|it| it.socket_type == STREAM && it.state == UnixState::UNCONNECTED);
    let listener = |inode, path| Listener { address: Address::Unix(path), inode };
    let all = all.filter_map(|it| Some(listener(it.inode, it.path?)));
    // A name that begins with @ is no path.
    let has_path = |it: &Listener| matches!(&it.address, Address::Unix(path) if path.is_absolute());
    Ok(all.filter(has_path).collect())
}

/// The processes that have these sockets, as far as this user sees that.
pub(crate) fn holders(inodes: &[u64]) -> Vec<Holder> {
    let wanted: BTreeSet<_> = inodes.iter().copied().collect();
    let of = |process: Process| {
        // A process that has ended meanwhile has no descriptors.
        let open = process.fd().into_iter().flatten().flatten();
        let inode = |target| if let FDTarget::Socket(inode) = target { Some(inode) } else { None };
        let open = open.filter_map(|it| inode(it.target)).filter(|it| wanted.contains(it));
        let open: BTreeSet<_> = open.collect();
        let name = if open.is_empty() { None } else { process.stat().ok() };
        let name = name.map(|stat| stat.comm);
        let holder = move |inode| Some(Holder { inode, pid: process.pid, name: name.clone()? });
        open.into_iter().filter_map(holder).collect::<Vec<_>>()
    };
    all_processes().into_iter().flatten().flatten().flat_map(of).collect()
}

fn io<T>(result: ProcResult<T>) -> io::Result<T> {
    result.map_err(io::Error::other)
}
