//! The source: from an address or a name to listeners.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc::{EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, ENOENT, EPERM};
use socket2::Socket;
use thiserror::Error;
use tokio::time::sleep;
use tracing::warn;

use super::access::{Access, ListenerError};
use super::fd_store::{Stored, store};
use super::inherited::{Inherited, InheritedError};
use super::listener::{Listener, bind_all, bind_unix_source, serve_inherited};
use super::patience;
use super::unix_file::Rights;
use crate::config::{Address, Config, ConfigError, RunMode};
use crate::daemon::net::resolver::resolve;
use crate::process::blocking::BlockingThread;
use crate::report::{Report, SystemError, exit};
use crate::unit::notify::tell_status;

/// Why spiped does not listen on its source.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Listen { address: Address, error: io::Error },
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    #[error(transparent)]
    Listener(#[from] ListenerError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    System(#[from] SystemError),
}

impl Report for SourceError {
    fn hint(&self) -> &str {
        match self {
            Self::Listen { address, error } => listen_hint(address, error),
            Self::Inherited(error) => error.hint(),
            Self::Listener(error) => error.hint(),
            Self::Config(error) => Report::hint(error),
            Self::System(error) => error.hint(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } => exit::UNAVAILABLE,
            Self::Inherited(error) => error.exit_code(),
            Self::Listener(error) => error.exit_code(),
            Self::Config(error) => error.exit_code(),
            Self::System(error) => error.exit_code(),
        }
    }
}

/// The retry interval of a name that does not resolve (`-D`).
const UNRESOLVED: Duration = Duration::from_secs(1);

/// The source, before or after it is bound.
pub(crate) enum Source {
    /// With `--handover`, also the sockets that the previous process has left.
    Inet(SocketAddr, Option<Stored>),
    Unix(PathBuf, Rights),
    Host(SourceName),
    /// All addresses of a name.
    Resolved(Address, Vec<SocketAddr>, Option<Stored>),
    /// Sockets of a socket unit.
    Inherited(Vec<Socket>),
    /// Any of the above, once it is bound.
    Listening(Vec<Listener>),
}

/// A name that is looked up once; spiped listens on all of its addresses.
pub(crate) struct SourceName {
    host: String,
    port: u16,
    resolver: BlockingThread,
    stored: Option<Stored>,
}

impl Source {
    pub(crate) fn of(
        config: &Config,
        sockets: Inherited,
        rights: Rights,
    ) -> Result<Self, SourceError> {
        let (activated, stored) = sockets.into_sockets(config.source.as_ref())?;
        if !activated.is_empty() {
            config.access.clone().unless_for_inherited()?;
            stored.give_up();
            return Ok(Self::Inherited(activated));
        }
        let stored = match config.process.run_mode() {
            RunMode::Handover => Some(stored),
            RunMode::Foreground | RunMode::Background => {
                stored.give_up();
                None
            }
        };
        Ok(match config.source.clone().ok_or(ConfigError::Missing("-s".into()))? {
            Address::Inet(address) => Self::Inet(address, stored),
            Address::Unix(path) => {
                if let Some(stored) = stored {
                    stored.give_up();
                }
                Self::Unix(path, rights)
            }
            Address::Host(host, port) => {
                let resolver = BlockingThread::start("resolver")
                    .map_err(SystemError::of("cannot start a thread for the resolver"))?;
                Self::Host(SourceName { host, port, resolver, stored })
            }
        })
    }

    /// Whether it has a name, which may not resolve yet.
    pub(crate) const fn has_name(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// The number of listening sockets, as far as it is known.
    pub(crate) const fn listeners(&self) -> usize {
        match self {
            Self::Inet(..) | Self::Unix(..) | Self::Host(_) => 1,
            Self::Resolved(_, addresses, _) => addresses.len(),
            Self::Inherited(sockets) => sockets.len(),
            Self::Listening(listeners) => listeners.len(),
        }
    }

    /// Listens on the source, unless connections to `target` would be accepted here, or
    /// clients could not be told apart that `access` has to tell apart.
    pub(crate) async fn listen(
        mut self,
        target: &Address,
        access: &Access,
    ) -> Result<Vec<Listener>, SourceError> {
        let listeners = patience::listen(async || self.try_to_listen().await, may_come).await?;
        listeners.iter().try_for_each(|listener| access.can_tell_clients_of(listener))?;
        unless_led_back(listeners, target)
    }

    /// Tries once; sockets that listen already are taken as they are.
    async fn try_to_listen(&mut self) -> Result<Vec<Listener>, SourceError> {
        let refused = |address| |error| SourceError::Listen { address, error };
        match self {
            Self::Listening(listeners) => Ok(mem::take(listeners)),
            Self::Inherited(sockets) => serve_inherited(mem::take(sockets)).map_err(|error| {
                SystemError::of("cannot use the sockets of LISTEN_FDS")(error).into()
            }),
            Self::Inet(address, stored) => {
                bind(&[*address], stored).await.map_err(refused(Address::Inet(*address)))
            }
            Self::Unix(path, rights) => bind_unix_source(path, *rights)
                .map(|listener| vec![listener])
                .map_err(refused(Address::Unix(path.clone()))),
            Self::Resolved(name, addresses, stored) => {
                bind(addresses, stored).await.map_err(refused(name.clone()))
            }
            Self::Host(name) => {
                let listeners = match name.resolve().await {
                    Ok(addresses) => bind(&addresses, &mut name.stored).await,
                    Err(error) => Err(error),
                };
                listeners.map_err(refused(name.address()))
            }
        }
    }

    /// As [`Source::listen`], after looking the name up until it resolves.
    pub(crate) async fn listen_once_resolved(
        self,
        target: &Address,
        access: &Access,
    ) -> Result<Vec<Listener>, SourceError> {
        let Self::Host(name) = self else { return self.listen(target, access).await };
        let mut is_said = false;
        let addresses = loop {
            match name.resolve().await {
                Ok(addresses) => break addresses,
                Err(error) if !is_said => name.say_unresolved(&error),
                Err(_as_before) => {}
            }
            is_said = true;
            sleep(UNRESOLVED).await;
        };
        Self::Resolved(name.address(), addresses, name.stored).listen(target, access).await
    }
}

/// Takes the stored sockets, binds the other addresses, and has systemd store all.
async fn bind(addresses: &[SocketAddr], stored: &mut Option<Stored>) -> io::Result<Vec<Listener>> {
    let Some(stored) = stored else { return bind_all(addresses, vec![]) };
    let listeners = bind_all(addresses, stored.for_addresses(addresses).await?)?;
    store(listeners.iter().map(Listener::duplicate).collect::<io::Result<_>>()?);
    Ok(listeners)
}

/// Whether a later try may succeed: another program may give up the address, or an
/// interface get it.
const fn may_come(error: &SourceError) -> bool {
    matches!(error, SourceError::Listen { .. })
}

fn unless_led_back(
    listeners: Vec<Listener>,
    target: &Address,
) -> Result<Vec<Listener>, SourceError> {
    match listeners.iter().find(|listener| listener.is_at(target)) {
        None => Ok(listeners),
        Some(listener) => Err(ConfigError::leads_back(target, &listener.name()).into()),
    }
}

impl SourceName {
    fn address(&self) -> Address {
        Address::Host(self.host.clone(), self.port)
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(&self.resolver, &self.host, self.port).await
    }

    fn say_unresolved(&self, error: &io::Error) {
        let host = &self.host;
        tell_status(&format!("waiting for the name {host} to resolve"));
        let hint = "spiped retries until it resolves (-D)";
        warn!(hint, "the name {host} does not resolve: {error}");
    }
}

fn listen_hint(address: &Address, error: &io::Error) -> &'static str {
    let is_ipv6 = matches!(address, Address::Inet(inet) if inet.is_ipv6());
    match error.raw_os_error() {
        Some(EADDRINUSE) if matches!(address, Address::Unix(_)) => {
            "something listens there: 'ss -lxp' names it"
        }
        Some(EADDRINUSE) => "something listens there, perhaps another pipe: 'ss -lntxp' names it",
        Some(EADDRNOTAVAIL) if is_ipv6 => {
            "no interface of this host has that address, or IPv6 is off here: [0.0.0.0] is all of IPv4"
        }
        Some(EADDRNOTAVAIL) => "no interface of this host has that address",
        Some(EAFNOSUPPORT) => {
            "this kernel, or the unit's sandbox, has no IPv6: [0.0.0.0] is all of IPv4"
        }
        Some(EACCES | EPERM) => {
            "this user is not allowed to use ports below 1024 and folders of others; a socket unit of systemd can"
        }
        Some(ENOENT) => "the folder of that path does not exist: make it first",
        None if error.kind() == io::ErrorKind::PermissionDenied => {
            "only root can give a socket away, to another user or to a group without this user"
        }
        None if matches!(address, Address::Host(..)) => {
            "check the name after -s and the resolver; with -D spiped waits until it resolves"
        }
        _ => "name another address after -s, or another path after --control or --status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_ipv6_is_told_so() {
        let hint = |address: &str, number| {
            let error = io::Error::from_raw_os_error(number);
            let address = address.parse().unwrap();
            SourceError::Listen { address, error }.hint().to_owned()
        };
        assert!(hint("[::]:1", EAFNOSUPPORT).contains("no IPv6"));
        assert!(hint("[::1]:1", EADDRNOTAVAIL).contains("IPv6 is off here"));
        assert!(!hint("127.0.0.9:1", EADDRNOTAVAIL).contains("IPv6"));
    }
}
