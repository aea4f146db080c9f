//! The sockets of this host: who may open one, who has one, and who can reach it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::Process;

use super::facts::{Listener, Rights};
use crate::daemon::net::listeners::{self, holders, listeners};

/// systemd, which also has the sockets of socket units.
const SYSTEMD: i32 = 1;

/// All TCP sockets of this network namespace that listen.
pub(super) struct Sockets(Vec<Socket>);

struct Socket {
    address: SocketAddr,
    /// Pid and name of the processes that have it.
    holders: Vec<(i32, String)>,
}

impl Sockets {
    /// # Errors
    /// When the kernel does not show them.
    pub(super) fn see() -> io::Result<Self> {
        let all = listeners()?;
        let inodes: Vec<_> = all.iter().map(|it| it.inode).collect();
        let with = holders(&inodes);
        let name = |it: &Process| it.stat().ok().map(|stat| (it.pid, stat.comm));
        let socket = |listeners::Listener { address, inode }| {
            let its = with.iter().filter(|(of, _)| *of == inode);
            Socket { address, holders: its.filter_map(|(_, it)| name(it)).collect() }
        };
        Ok(Self(all.into_iter().map(socket).collect()))
    }

    /// Those on this port, without those at these addresses.
    pub(super) fn on_port(&self, port: u16, without: &[SocketAddr]) -> Vec<Listener> {
        let its = self.0.iter().filter(|it| it.address.port() == port);
        let its = its.filter(|it| !without.contains(&it.address));
        let listener = |socket: &Socket| {
            let holders = &socket.holders;
            let other = holders.iter().find(|(pid, _)| *pid != SYSTEMD);
            let (pid, program) = other.or(holders.first()).cloned().unzip();
            let is_exposed = is_exposed(socket.address);
            Listener { address: socket.address.to_string(), is_exposed, pid, program }
        };
        its.map(listener).collect()
    }

    /// The addresses of a process, without these.
    pub(super) fn of_process(&self, pid: u32, without: &[SocketAddr]) -> Vec<String> {
        let has = |it: &&Socket| it.holders.iter().any(|(of, _)| u32::try_from(*of) == Ok(pid));
        let its = self.0.iter().filter(has).filter(|it| !without.contains(&it.address));
        its.map(|it| it.address.to_string()).collect()
    }

    /// The processes of a spiped that listen, each with its addresses: those that share no
    /// socket with one of `known`. The process that keeps a socket for the one that serves
    /// shares it.
    pub(super) fn other_spipeds(&self, known: &[u32]) -> Vec<(i32, Vec<String>)> {
        let is_known = |pid: &i32| u32::try_from(*pid).is_ok_and(|pid| known.contains(&pid));
        let others = self.0.iter().filter(|it| !it.holders.iter().any(|(pid, _)| is_known(pid)));
        let others: Vec<_> = others.collect();
        let spiped = |(pid, name): &(i32, String)| (name == "spiped").then_some(*pid);
        // Of the processes that share a socket, the first stands for all.
        let first = |it: &&Socket| it.holders.iter().filter_map(spiped).min();
        let pids: BTreeSet<_> = others.iter().filter_map(first).collect();
        let addresses = |pid| {
            let its = others.iter().filter(|it| first(it) == Some(pid));
            (pid, its.map(|it| it.address.to_string()).collect())
        };
        pids.into_iter().map(addresses).collect()
    }

    /// Whether the process of each is seen.
    pub(super) fn are_all_held(&self) -> bool {
        self.0.iter().all(|it| !it.holders.is_empty())
    }
}

/// Whether other hosts may reach an address, as far as it is a matter of the address.
pub(super) fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Who may open the unix socket at a path.
pub(super) fn rights(path: &Path) -> Rights {
    match path.metadata() {
        Ok(it) => Rights {
            mode: Some(format!("{:04o}", it.mode() & 0o7777)),
            owner: Some(it.uid()),
            group: Some(it.gid()),
        },
        Err(_) => Rights { mode: None, owner: None, group: None },
    }
}

/// The unit that a spiped runs in, as its environment says, without `.service`.
pub(super) fn unit_of(pid: i32) -> Option<String> {
    let environment = Process::new(pid).ok()?.environ().ok()?;
    let unit = environment.get(OsStr::new("SPIPED_UNIT"))?.to_str()?;
    Some(unit.trim_end_matches(".service").to_owned())
}
