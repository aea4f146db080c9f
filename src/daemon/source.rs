//! What is listened on, from its name to listeners.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use socket2::Socket;
use tokio::time::sleep;
use tracing::warn;

use super::activation::Inherited;
use super::blocking::BlockingThread;
use super::fd_store::{Stored, store};
use super::listener::{Listener, bind_all, bind_unix, serve_inherited};
use super::notify::tell_status;
use super::patience;
use super::resolver::resolve;
use super::system;
use crate::config::{Address, Config, ConfigError, Ground};
use crate::error::Error;

/// How soon a name that does not resolve is tried again (`-D`).
const UNRESOLVED: Duration = Duration::from_secs(1);

/// What is listened on.
pub(super) enum Source {
    /// With `--handover`, and what the process before has left.
    Inet(SocketAddr, Option<Stored>),
    Unix(PathBuf),
    Name(SourceName),
    /// All addresses of a name.
    Resolved(Address, Vec<SocketAddr>, Option<Stored>),
    /// Sockets that listen already.
    Inherited(Vec<Socket>),
    /// Any of them, once it is.
    Listening(Vec<Listener>),
}

/// A name that is looked up once: all of its addresses are listened on.
pub(super) struct SourceName {
    host: String,
    port: u16,
    resolver: BlockingThread,
    stored: Option<Stored>,
}

impl Source {
    pub(super) fn of(config: &Config, sockets: Inherited) -> Result<Self, Error> {
        let (activated, stored) = sockets.into_sockets(config.source.as_ref())?;
        if !activated.is_empty() {
            stored.give_up();
            return Ok(Self::Inherited(activated));
        }
        let stored = match config.process.ground {
            Ground::Handover => Some(stored),
            Ground::Foreground | Ground::Background => {
                stored.give_up();
                None
            }
        };
        Ok(match config.source.clone().ok_or(ConfigError::Missing("-s"))? {
            Address::Inet(address) => Self::Inet(address, stored),
            Address::Unix(path) => {
                if let Some(stored) = stored {
                    stored.give_up();
                }
                Self::Unix(path)
            }
            Address::Host(host, port) => {
                let resolver = BlockingThread::start("resolver")
                    .map_err(system("cannot start a thread for the resolver"))?;
                Self::Name(SourceName { host, port, resolver, stored })
            }
        })
    }

    /// How many sockets are to listen, as far as that is known.
    pub(super) const fn listeners(&self) -> usize {
        match self {
            Self::Inet(..) | Self::Unix(_) | Self::Name(_) => 1,
            Self::Resolved(_, addresses, _) => addresses.len(),
            Self::Inherited(sockets) => sockets.len(),
            Self::Listening(listeners) => listeners.len(),
        }
    }

    /// Listens, unless connections to `target` would be accepted here.
    pub(super) async fn listen(mut self, target: &Address) -> Result<Vec<Listener>, Error> {
        let listeners = patience::listen(async || self.try_to_listen().await).await?;
        unless_led_back(listeners, target)
    }

    /// What is listened on already is taken.
    async fn try_to_listen(&mut self) -> Result<Vec<Listener>, Error> {
        let refused = |address| |error| Error::Listen { address, error };
        match self {
            Self::Listening(listeners) => Ok(mem::take(listeners)),
            Self::Inherited(sockets) => serve_inherited(mem::take(sockets))
                .map_err(system("cannot use the sockets of LISTEN_FDS")),
            Self::Inet(address, stored) => {
                bind(&[*address], stored).await.map_err(refused(Address::Inet(*address)))
            }
            Self::Unix(path) => bind_unix(path, Mode::from_bits_truncate(0o777))
                .map(|listener| vec![listener])
                .map_err(refused(Address::Unix(path.clone()))),
            Self::Resolved(name, addresses, stored) => {
                bind(addresses, stored).await.map_err(refused(name.clone()))
            }
            Self::Name(name) => {
                let listeners = match name.resolve().await {
                    Ok(addresses) => bind(&addresses, &mut name.stored).await,
                    Err(error) => Err(error),
                };
                listeners.map_err(refused(name.address()))
            }
        }
    }

    /// As `listen`, and looks the name up until that succeeds.
    pub(super) async fn listen_once_resolved(
        self,
        target: &Address,
    ) -> Result<Vec<Listener>, Error> {
        let Self::Name(name) = self else { return self.listen(target).await };
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
        Self::Resolved(name.address(), addresses, name.stored).listen(target).await
    }
}

/// What listens already is kept, the rest is bound.
async fn bind(addresses: &[SocketAddr], stored: &mut Option<Stored>) -> io::Result<Vec<Listener>> {
    let Some(stored) = stored else { return bind_all(addresses, vec![]) };
    let listeners = bind_all(addresses, stored.for_addresses(addresses).await?)?;
    store(&listeners)?;
    Ok(listeners)
}

fn unless_led_back(listeners: Vec<Listener>, target: &Address) -> Result<Vec<Listener>, Error> {
    match listeners.iter().find(|listener| listener.is_at(target)) {
        None => Ok(listeners),
        Some(listener) => Err(ConfigError::leads_back(target, listener.name()).into()),
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
        let hint = "it is tried again until it does (-D)";
        warn!(hint, "the name {host} does not resolve: {error}");
    }
}
