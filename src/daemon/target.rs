//! The way out: the target's name is resolved, off the data path, and one of
//! its addresses connected to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockAddr;
use tokio::select;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::close::ConnectError;
use super::deadline::Deadline;
use super::stream::{Options, Stream};
use crate::config::{Address, Refresh, TunnelConfig};

/// How long one address may keep the next one waiting (RFC 8305, section 5).
const SPACING: Duration = Duration::from_millis(250);
/// How soon a name that has never been resolved is tried again.
const UNRESOLVED: Duration = Duration::from_secs(1);

/// The target, with what is known of its name.
pub(super) struct Target {
    address: Address,
    options: Options,
    limit: Duration,
    /// The last good answer; empty until there is one.
    known: watch::Sender<Vec<SocketAddr>>,
    /// Held while a connection asks, so that a thousand do not ask at once.
    asking: Mutex<()>,
}

impl Target {
    pub(super) fn new(config: &TunnelConfig) -> Self {
        Self {
            address: config.target.clone(),
            options: Options { bind: config.bind, keepalive: config.keepalive },
            limit: config.timeout.get(),
            known: watch::Sender::default(),
            asking: Mutex::default(),
        }
    }

    /// Connects to it in time, by whichever of its addresses answers.
    pub(super) async fn connect(&self) -> Result<Stream, ConnectError> {
        let connected = Deadline::after(self.limit).bound(self.connect_without_limit()).await;
        connected.unwrap_or(Err(ConnectError::TimedOut(self.limit)))
    }

    async fn connect_without_limit(&self) -> Result<Stream, ConnectError> {
        match &self.address {
            Address::Inet(address) => connect_to((*address).into(), self.options).await,
            Address::Unix(path) => {
                let address = SockAddr::unix(path).map_err(ConnectError::Unreachable)?;
                connect_to(address, self.options).await
            }
            Address::Host(host, port) => {
                connect_to_any(self.addresses(host, *port).await?, self.options).await
            }
        }
    }

    /// The last good answer, or one that is asked for now.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let known = self.known();
        if !known.is_empty() {
            return Ok(known);
        }
        let _turn = self.asking.lock().await;
        let known = self.known();
        if !known.is_empty() {
            return Ok(known);
        }
        let answer = resolve(host, port)
            .await
            .map_err(|error| ConnectError::Unresolved(host.to_owned(), error))?;
        self.learn(host, answer.clone());
        Ok(answer)
    }

    /// Resolves the name over and over, as often as it should be; for ever.
    pub(super) async fn keep_resolved(&self, refresh: Refresh) {
        let Address::Host(host, port) = &self.address else { return std::future::pending().await };
        let mut is_failing = false;
        loop {
            match resolve(host, *port).await {
                Ok(answer) => {
                    self.learn(host, answer);
                    is_failing = false;
                }
                Err(error) if !is_failing => {
                    is_failing = true;
                    let known = self.known();
                    warn!(
                        ?known,
                        hint = "check the name after -t and the resolver",
                        "the name {host} does not resolve, the last good answer is kept: {error}"
                    );
                }
                Err(_as_before) => {}
            }
            match refresh {
                _ if self.known().is_empty() => sleep(UNRESOLVED).await,
                Refresh::Every(time) => sleep(time).await,
                Refresh::Never => std::future::pending().await,
            }
        }
    }

    fn learn(&self, host: &str, answer: Vec<SocketAddr>) {
        self.known.send_if_modified(|known| {
            let has_moved = !known.is_empty() && is_another(known, &answer);
            if known.is_empty() {
                info!(now = ?answer, "the name {host} resolves");
            } else if has_moved {
                info!(before = ?*known, now = ?answer, "the name {host} resolves to another address");
            }
            *known = answer;
            has_moved
        });
    }

    fn known(&self) -> Vec<SocketAddr> {
        self.known.borrow().clone()
    }

    /// Tells when the name resolves to another address than before.
    pub(super) fn moves(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.known.subscribe()
    }
}

/// Whether there is any other address; resolvers like to change the order.
fn is_another(before: &[SocketAddr], now: &[SocketAddr]) -> bool {
    before.iter().any(|address| !now.contains(address))
        || now.iter().any(|address| !before.contains(address))
}

/// All addresses of a name; at least one.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let answer: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if answer.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(answer) }
}

/// Tries the addresses in order: the next as soon as one fails, or does not
/// answer for a moment. The first to connect is taken.
async fn connect_to_any(
    addresses: Vec<SocketAddr>,
    options: Options,
) -> Result<Stream, ConnectError> {
    let mut attempts = JoinSet::new();
    let mut rest = addresses.into_iter().peekable();
    let mut failed = ConnectError::Unreachable(io::ErrorKind::NotFound.into());
    loop {
        if let Some(address) = rest.next() {
            attempts.spawn(connect_to(address.into(), options));
        }
        select! {
            attempt = attempts.join_next() => match attempt {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failed = error,
                Some(Err(error)) => failed = ConnectError::Unreachable(error.into()),
                None => return Err(failed),
            },
            () = sleep(SPACING), if rest.peek().is_some() => {}
        }
    }
}

async fn connect_to(address: SockAddr, options: Options) -> Result<Stream, ConnectError> {
    Stream::connect(&address, options).await.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            ConnectError::Refused
        } else {
            ConnectError::Unreachable(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_order_is_no_other_address() {
        let [a, b] = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        assert!(!is_another(&[a, b], &[b, a]));
        assert!(is_another(&[a], &[a, b]) && is_another(&[a, b], &[b]) && is_another(&[a], &[b]));
    }
}
