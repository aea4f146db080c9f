//! Where a receiver's target is, and what of it other hosts can reach.

use std::net::{SocketAddr, ToSocketAddrs};

use super::facts::Place;
use super::sockets::{Sockets, rights};
use crate::config::Address;
use crate::daemon::net::loops::is_of_this_host;

/// Where a target is. At the addresses `sources`, pipes of this host listen.
pub(super) fn place_of(
    address: &str,
    sockets: Result<&Sockets, &str>,
    sources: &[SocketAddr],
) -> Place {
    let unknown = |error: String| Place::Unknown { error };
    let addresses = match address.parse() {
        Ok(Address::Unix(path)) => return Place::UnixSocket(rights(&path)),
        Ok(Address::Inet(address)) => vec![address],
        Ok(Address::Host(name, port)) => match (&*name, port).to_socket_addrs() {
            Ok(all) => all.collect(),
            Err(error) => return unknown(format!("the name {name} does not resolve: {error}")),
        },
        Err(error) => return unknown(error.to_string()),
    };
    let is_here = |ip: SocketAddr| {
        let ip = ip.ip().to_canonical();
        ip.is_unspecified() || is_of_this_host(ip)
    };
    // A name may lead to several hosts.
    if !addresses.iter().all(|address| is_here(*address)) {
        return Place::OtherHost;
    }
    let Some(first) = addresses.first() else {
        return unknown("the name has no address".to_owned());
    };
    match sockets {
        Ok(sockets) => Place::ThisHost { listeners: sockets.on_port(first.port(), sources) },
        Err(error) => unknown(format!("the sockets of this host cannot be seen: {error}")),
    }
}
