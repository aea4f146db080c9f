//! Where a receiver's target is, and what of it other hosts can reach.

use std::net::SocketAddr;
use std::time::Duration;

use super::facts::{Lack, Place};
use super::sockets::{Sockets, rights};
use crate::config::Address;
use crate::daemon::names;
use crate::daemon::net::loops::is_of_this_host;
use crate::report::is_of_system;

/// Where a target is; a name has so much time to be looked up. At the addresses `sources`, pipes
/// of this host listen.
///
/// # Errors
/// When the system lacks what a look-up needs.
pub(super) fn place_of(
    address: &str,
    sockets: Option<&Sockets>,
    sources: &[SocketAddr],
    limit: Duration,
) -> Result<Place, Lack> {
    let unknown = |error: String| Ok(Place::Unknown { error });
    let addresses = match address.parse() {
        Ok(Address::Unix(path)) => return Ok(Place::UnixSocket(rights(&path))),
        Ok(Address::Inet(address)) => vec![address],
        Ok(Address::Host(name, port)) => match names::addresses(&name, port, limit) {
            Ok(all) => all,
            Err(error) if is_of_system(&error) => return Err(Lack::of(&error)),
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
        return Ok(Place::OtherHost);
    }
    let Some(first) = addresses.first() else {
        return unknown("the name has no address".to_owned());
    };
    // Without the sockets, the report says that they are not seen.
    Ok(sockets.map_or(Place::NotLooked, |sockets| Place::ThisHost {
        listeners: sockets.on_port(first.port(), sources),
        is_served: addresses.iter().any(|address| sockets.serve(*address)),
    }))
}
