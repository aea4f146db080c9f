//! The way out: the target is resolved and connected to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockAddr;

use super::close::ConnectError;
use super::deadline::Deadline;
use super::stream::Stream;
use crate::config::Address;

/// Connects to the target within `limit`, trying all of its addresses in order.
pub(super) async fn connect(target: &Address, limit: Duration) -> Result<Stream, ConnectError> {
    let connected = Deadline::after(limit).bound(connect_without_limit(target)).await;
    connected.unwrap_or(Err(ConnectError::TimedOut(limit)))
}

async fn connect_without_limit(target: &Address) -> Result<Stream, ConnectError> {
    match target {
        Address::Inet(address) => connect_to(&(*address).into()).await,
        Address::Unix(path) => {
            let address = SockAddr::unix(path).map_err(ConnectError::Unreachable)?;
            connect_to(&address).await
        }
        Address::Host(host, port) => {
            let mut last = None;
            for address in resolve(host, *port).await? {
                match connect_to(&address.into()).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| unresolved(host, io::ErrorKind::NotFound.into())))
        }
    }
}

async fn resolve(host: &str, port: u16) -> Result<impl Iterator<Item = SocketAddr>, ConnectError> {
    tokio::net::lookup_host((host, port)).await.map_err(|error| unresolved(host, error))
}

fn unresolved(host: &str, error: io::Error) -> ConnectError {
    ConnectError::Unresolved(host.to_owned(), error)
}

async fn connect_to(address: &SockAddr) -> Result<Stream, ConnectError> {
    Stream::connect(address).await.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            ConnectError::Refused
        } else {
            ConnectError::Unreachable(error)
        }
    })
}
