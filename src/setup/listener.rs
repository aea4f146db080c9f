//! Finds the process or unit that listens where a pipe should listen, which only root can.

use std::net::SocketAddr;

use procfs::process::Process;

use super::systemd::ask;
use super::unit::pipe_of;
use crate::config::Address;
use crate::daemon::net::listeners::{self, Holder, Listener, listeners};

/// The hint for an address that is in use: what uses it, and how to end that.
pub(super) fn hint(source: &Address) -> Option<String> {
    let Address::Inet(source) = source else { return None };
    let holders = holders(*source);
    // systemd, as process 1, also holds the socket of a socket unit.
    let process = holders.iter().find(|process| process.pid != 1);
    let unit = match process {
        Some(process) => unit_of(process.pid),
        None => socket_at(*source),
    };
    if let Some(unit) = unit {
        let instead = match pipe_of(&unit) {
            Some(name) => format!("'spiped setup remove {name}' first"),
            None => format!("'systemctl disable --now {unit}' first"),
        };
        return Some(format!("{unit} listens there: choose another port, or {instead}"));
    }
    let process = process?;
    let Holder { pid, name, .. } = process;
    Some(format!("process {pid}, {name}, listens there: choose another port, or end it first"))
}

/// The processes that have a listening socket at an address.
fn holders(wanted: SocketAddr) -> Vec<Holder> {
    let is_in_conflict =
        |it: &Listener| it.address.inet().is_some_and(|at| are_in_conflict(at, wanted));
    let all = listeners().into_iter().flatten();
    let at = all.filter(is_in_conflict).map(|it| it.inode);
    listeners::holders(&at.collect::<Vec<_>>())
}

fn are_in_conflict(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, of_other) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && (ip == of_other || ip.is_unspecified() || of_other.is_unspecified())
}

/// The unit of a process. Not a user's own unit, which may have any name.
fn unit_of(pid: i32) -> Option<String> {
    let groups = Process::new(pid).ok()?.cgroups().ok()?;
    let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
    groups.into_iter().find_map(|it| {
        let mut parts = it.pathname.split('/');
        if parts.clone().any(|part| part.starts_with("user@")) {
            return None;
        }
        parts.rfind(is_unit).map(str::to_owned)
    })
}

fn socket_at(wanted: SocketAddr) -> Option<String> {
    let sockets = ask("systemctl", &["list-sockets", "--plain", "--no-legend", "--full"]);
    sockets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        are_in_conflict(address, wanted).then(|| words.next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_conflict_when_one_takes_the_others_connections() {
        let of =
            |one: &str, other: &str| are_in_conflict(one.parse().unwrap(), other.parse().unwrap());
        assert!(of("10.0.0.1:1", "10.0.0.1:1") && of("[::ffff:10.0.0.1]:1", "10.0.0.1:1"));
        assert!(of("0.0.0.0:1", "10.0.0.1:1") && of("10.0.0.1:1", "[::]:1"));
        assert!(!of("10.0.0.1:1", "10.0.0.2:1") && !of("0.0.0.0:1", "10.0.0.1:2"));
    }
}
