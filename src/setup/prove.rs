//! The proof that a pipe works: a connection as a sender makes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::error::SetupError;
use super::plan::{file, read, value};
use crate::config::environment_file::EnvironmentFile;
use crate::config::setup::{End, PipeName};
use crate::config::{self, Address, Keepalive, Role, TunnelConfig};
use crate::daemon::proof::{Fault, prove};
use crate::keys::file::Owners;
use crate::keys::folder::{self, Folders};
use crate::protocol::SharedKey;

/// Proves an end: a sender by a connection to its receiver, a receiver by one to its own
/// source.
///
/// # Errors
/// What does not work.
pub(super) fn works(end: &End) -> Result<(), SetupError> {
    let paths = folder::existing(&[file(&end.name, "key"), file(&end.name, "keys")]);
    // Any key of a receiver will do.
    let entries = folder::read_all(&paths, Owners::Own, Folders::Allowed)?;
    let Some(entry) = entries.first() else { unreachable!("a folder without a key is an error") };
    let key = entry.derive()?;
    // The daemon runs, so it has accepted the configuration.
    let conf = read(&file(&end.name, "conf"))?;
    let (target, bind) = match end.role {
        Role::Decrypt => (of_this_host(&end.source), None),
        Role::Encrypt => (end.target.clone(), value(&conf, "SPIPED_BIND")),
    };
    let proof = with_key(target, bind.as_deref(), &conf, &key);
    proof.map_err(|fault| SetupError::Unproved { name: end.name.clone(), fault })
}

/// Whether the receiver of a sender that is set up takes this key.
///
/// # Errors
/// The outer error when the configuration cannot be read, the inner one when the key or the
/// pipe does not work.
pub(super) fn takes(pipe: &PipeName, key: &SharedKey) -> Result<Result<(), Fault>, SetupError> {
    let path = file(pipe, "conf");
    let conf = read(&path)?;
    let target = value(&conf, "SPIPED_TARGET").and_then(|text| text.parse().ok());
    let target = target.ok_or(SetupError::NoTarget(path))?;
    Ok(with_key(target, value(&conf, "SPIPED_BIND").as_deref(), &conf, key))
}

fn with_key(target: Address, bind: Option<&str>, conf: &str, key: &SharedKey) -> Result<(), Fault> {
    prove(&tunnel(target, bind, &EnvironmentFile::read(conf)), key).map(|_proof| ())
}

/// The way of a sender with this configuration.
pub(crate) fn tunnel(target: Address, bind: Option<&str>, conf: &EnvironmentFile) -> TunnelConfig {
    TunnelConfig {
        bind: bind.and_then(|text| config::bind(text).ok()),
        keepalive: Keepalive::Off,
        cipher: chosen(conf, "SPIPED_CIPHER"),
        kex: chosen(conf, "SPIPED_KEX"),
        // The paths of the keys are not used here.
        ..TunnelConfig::to(target)
    }
}

/// What a configuration chooses by this variable, or the default.
fn chosen<T: FromStr + Default>(conf: &EnvironmentFile, variable: &str) -> T {
    conf.value(variable).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The address by which this host itself reaches a source.
pub(crate) fn of_this_host(source: &Address) -> Address {
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
