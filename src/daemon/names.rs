//! The look-ups of a start, without the start.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::join;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::accept::SourceError;
use super::net::connect_error::ConnectError;
use super::net::resolver::resolve;
use crate::config::{Address, Config};
use crate::process::blocking::BlockingThread;
use crate::report::is_of_system;

/// The longest time of a look-up, where `-o` is more.
const LIMIT: Duration = Duration::from_secs(30);

/// Why names do not resolve.
#[derive(Default)]
pub(crate) struct Unresolved {
    pub(crate) source: Option<SourceError>,
    pub(crate) target: Option<ConnectError>,
}

/// Looks up the names of the source and of the target, each within the time of `-o`.
///
/// # Errors
/// When the system lacks what a look-up needs.
pub(crate) fn look_up(config: &Config) -> io::Result<Unresolved> {
    let limit = config.tunnel.timeout.get().min(LIMIT);
    let runtime = Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let source = config.source.as_ref();
        let target = &config.tunnel.target;
        let (of_source, of_target) = join!(failure(source, limit), failure(Some(target), limit));
        let source = source
            .zip(of_source?)
            .map(|(address, error)| SourceError::Listen { address: address.clone(), error });
        let target = of_target?.map(|error| {
            let host = match target {
                Address::Host(host, _) => host.clone(),
                Address::Inet(_) | Address::Unix(_) => target.to_string(),
            };
            ConnectError::Unresolved(host, error.to_string())
        });
        Ok(Unresolved { source, target })
    })
}

/// All addresses of a name, at least one, within a time.
///
/// # Errors
/// When it does not resolve, or the system lacks what a look-up needs.
pub(crate) fn addresses(host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(within(host, port, limit))
}

/// Why the name of an address does not resolve.
async fn failure(address: Option<&Address>, limit: Duration) -> io::Result<Option<io::Error>> {
    let Some(Address::Host(host, port)) = address else { return Ok(None) };
    match within(host, *port, limit).await {
        Err(error) if is_of_system(&error) => Err(error),
        answer => Ok(answer.err()),
    }
}

async fn within(host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let resolver = BlockingThread::start("resolver")?;
    let answer = timeout(limit, resolve(&resolver, host, port)).await;
    let silent = || io::Error::other(format!("the resolver did not answer in {limit:?}"));
    answer.unwrap_or_else(|_| Err(silent()))
}
