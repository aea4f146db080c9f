//! The proof that a pipe works: a connection as a sender makes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::error::SetupError;
use super::plan::{file, read, value};
use crate::config::setup::End;
use crate::config::{self, Address, Keepalive, Role, TunnelConfig};
use crate::daemon::proof::prove;
use crate::keys::file::{self as keys, Owners};

/// Proves an end: a sender by a connection to its receiver, a receiver by one to its own
/// source.
///
/// # Errors
/// What does not work.
pub(super) fn works(end: &End) -> Result<(), SetupError> {
    let key = keys::read(&file(&end.name, "key"), Owners::Own)?.key;
    // The daemon runs, so it has accepted the configuration.
    let conf = read(&file(&end.name, "conf"))?;
    let (target, bind) = match end.role {
        Role::Decrypt => (of_this_host(&end.source), None),
        Role::Encrypt => (end.target.clone(), value(&conf, "SPIPED_BIND")),
    };
    let tunnel = TunnelConfig {
        bind: bind.and_then(|text| config::bind(&text).ok()),
        keepalive: Keepalive::Off,
        cipher: chosen(&conf, "SPIPED_CIPHER"),
        kex: chosen(&conf, "SPIPED_KEX"),
        // The path of the key is not used here.
        ..TunnelConfig::to(target)
    };
    prove(&tunnel, &key).map_err(|fault| SetupError::Unproved { name: end.name.clone(), fault })
}

/// What a configuration chooses by this variable, or the default.
fn chosen<T: FromStr + Default>(conf: &str, variable: &str) -> T {
    value(conf, variable).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The address by which this host itself reaches a source.
fn of_this_host(source: &Address) -> Address {
    match source {
        Address::Inet(any) if any.ip().is_unspecified() => {
            let loopback = match any.ip() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
            };
            Address::Inet(SocketAddr::new(loopback, any.port()))
        }
        Address::Inet(_) | Address::Host(..) | Address::Unix(_) => source.clone(),
    }
}
