//! The sockets of this host: who may open one, who has one, and who can reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::facts::{Listener, Rights};
use crate::config::Address;
use crate::daemon::net::listeners::{self, Holder, holders, listeners, unix_listeners};

/// systemd, which also has the sockets of socket units.
const SYSTEMD: i32 = 1;

/// All sockets of this network namespace that listen, of TCP and with a path.
pub(super) struct Sockets(Vec<Socket>);

struct Socket {
    address: Address,
    holders: Vec<Holder>,
}

impl Socket {
    fn inet(&self) -> Option<SocketAddr> {
        self.address.inet()
    }

    fn is_of(&self, pid: u32) -> bool {
        self.holders.iter().any(|it| u32::try_from(it.pid) == Ok(pid))
    }
}

impl Sockets {
    /// # Errors
    /// When the kernel does not show them.
    pub(super) fn see() -> io::Result<Self> {
        let all = [listeners()?, unix_listeners()?].concat();
        let inodes: Vec<_> = all.iter().map(|it| it.inode).collect();
        let mut with = BTreeMap::<_, Vec<_>>::new();
        for holder in holders(&inodes) {
            with.entry(holder.inode).or_default().push(holder);
        }
        let mut socket = |listeners::Listener { address, inode }| Socket {
            address,
            holders: with.remove(&inode).unwrap_or_default(),
        };
        Ok(Self(all.into_iter().map(&mut socket).collect()))
    }

    /// Those of TCP on this port, without those at these addresses.
    pub(super) fn on_port(&self, port: u16, without: &[SocketAddr]) -> Vec<Listener> {
        let with_address = |it| Some((Socket::inet(it)?, it));
        let its = self.0.iter().filter_map(with_address);
        let its = its.filter(|(at, _)| at.port() == port && !without.contains(at));
        let listener = |(address, socket): (SocketAddr, &Socket)| {
            let holders = &socket.holders;
            let other = holders.iter().find(|it| it.pid != SYSTEMD).or(holders.first());
            let (pid, program) = other.map(|it| (it.pid, it.name.clone())).unzip();
            let is_exposed = is_exposed(address);
            Listener { address: address.to_string(), is_exposed, pid, program }
        };
        its.map(listener).collect()
    }

    /// Whether a connection of this host to an address finds a socket that listens. Of a socket
    /// at the wildcard of IPv6, it is not known whether it takes IPv4, too.
    pub(super) fn serve(&self, target: SocketAddr) -> bool {
        let to = match target.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        self.0.iter().filter_map(Socket::inet).filter(|it| it.port() == target.port()).any(|it| {
            let at = it.ip().to_canonical();
            at == to || at.is_unspecified() && (at.is_ipv6() || to.is_ipv4())
        })
    }

    /// Whether a process has a socket that listens at an address.
    pub(super) fn has(&self, pid: u32, address: &Address) -> bool {
        self.0.iter().any(|it| it.address == *address && it.is_of(pid))
    }

    /// The addresses of TCP of a process, without these.
    pub(super) fn of_process(&self, pid: u32, without: &[SocketAddr]) -> Vec<String> {
        let its = self.0.iter().filter(|it| it.is_of(pid)).filter_map(Socket::inet);
        its.filter(|it| !without.contains(it)).map(|it| it.to_string()).collect()
    }

    /// The processes of a spiped that listen, each with its addresses: those that share no
    /// socket with one of `known`. The process that keeps a socket for the one that serves
    /// shares it.
    pub(super) fn other_spipeds(&self, known: &[u32]) -> Vec<(i32, Vec<String>)> {
        let is_known = |it: &&Socket| known.iter().any(|pid| it.is_of(*pid));
        let others: Vec<_> = self.0.iter().filter(|it| !is_known(it)).collect();
        let own = program("self");
        let pids: BTreeMap<_, _> =
            others.iter().flat_map(|it| &it.holders).map(pid_and_name).collect();
        // Under another name, it is one that runs this file.
        let is_spiped = |(pid, name): &(i32, &str)| {
            *name == "spiped" || own.is_some() && program(&pid.to_string()) == own
        };
        let spipeds: BTreeSet<_> = pids.into_iter().filter(is_spiped).map(|(pid, _)| pid).collect();
        // Of the processes that share a socket, the first stands for all.
        let first = |it: &&Socket| {
            let its = it.holders.iter().map(|it| it.pid);
            its.filter(|pid| spipeds.contains(pid)).min()
        };
        let firsts: BTreeSet<_> = others.iter().filter_map(first).collect();
        let addresses = |pid| {
            let its = others.iter().filter(|it| first(it) == Some(pid));
            (pid, its.map(|it| told(&it.address)).collect())
        };
        firsts.into_iter().map(addresses).collect()
    }

    /// Whether the process of each is seen.
    pub(super) fn are_all_held(&self) -> bool {
        self.0.iter().filter(|it| it.inet().is_some()).all(|it| !it.holders.is_empty())
    }
}

fn pid_and_name(holder: &Holder) -> (i32, &str) {
    (holder.pid, &holder.name)
}

/// As `ss` shows it, like all addresses of what is no pipe.
fn told(address: &Address) -> String {
    address.inet().map_or_else(|| address.to_string(), |address| address.to_string())
}

/// The file that a process runs, as device and inode.
fn program(pid: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
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
