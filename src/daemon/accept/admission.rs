//! Admission: an accepted connection is admitted, waits for a slot, or is turned away.
//!
//! ```text
//! sender:    ─ accepted ─┬ access ─ connection permit ─ connection
//!                        ├ turned away: its user may not use the sender
//!                        └ turned away: the connection limit is reached
//!
//! receiver:  ─ accepted ─┬ pre-auth slot ─ connection
//!                        └ parked ─┬ pre-auth slot of its own source address ─ connection
//!                                  └ turned away, when others need the descriptor
//! ```
//!
//! A peer whose source address has all the slots it may have is parked, and the next
//! connection is accepted, so that no other peer waits for a parked one. Only while all
//! slots are taken does accepting wait.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use socket2::Socket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::access::Access;
use crate::config::Role;
use crate::daemon::connection::accepted::Accepted;
use crate::daemon::connection::context::Context;
use crate::daemon::connection::handshake_error::PreAuthError;
use crate::daemon::connection::log::turn_away;
use crate::daemon::connection::permit::ConnectionPermit;
use crate::daemon::connection::{self, Admitted};
use crate::daemon::limits::pre_auth::{Full, RETRY};
use crate::daemon::net::peer::Peer;
use crate::daemon::runtime::workers::{Home, Workers};

/// Admits accepted connections.
pub(crate) struct Admission<'a> {
    context: &'a Arc<Context>,
    workers: &'a Workers,
    access: &'a Access,
    /// Dropped with the last connection.
    alive: mpsc::Sender<()>,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(
        context: &'a Arc<Context>,
        workers: &'a Workers,
        access: &'a Access,
        alive: mpsc::Sender<()>,
    ) -> Self {
        Self { context, workers, access, alive }
    }

    /// Admits, parks or turns away an accepted connection. Waits only while all slots are
    /// taken.
    pub(crate) async fn admit(&self, socket: Socket, peer: Peer) {
        let id = self.context.next_id();
        let accepted = Accepted { id, at: Instant::now(), socket, peer };
        match self.context.config.role {
            Role::Encrypt => self.admit_client(accepted),
            Role::Decrypt => self.admit_stranger(accepted).await,
        }
    }

    fn admit_client(&self, client: Accepted) {
        if let Err(reason) = self.access.check(&client.socket, &client.peer) {
            return turn_away(self.context, client, &reason.into());
        }
        match ConnectionPermit::get(self.context) {
            Ok(permit) => self.serve(client, Admitted::Client(permit)),
            Err(reason) => turn_away(self.context, client, &reason),
        }
    }

    async fn admit_stranger(&self, stranger: Accepted) {
        let Context { pre_auth, fd_budget, .. } = &**self.context;
        let source = source(&stranger.peer);
        let full = loop {
            match source {
                // Earlier peers of this address wait already.
                Some(ip) if fd_budget.is_parked(ip, |_| true) => break ip,
                _ => {}
            }
            match pre_auth.try_enter(source, Instant::now().into()) {
                Ok(slot) => return self.serve(stranger, Admitted::Stranger(slot)),
                Err(Full::Source(ip)) => break ip,
                Err(Full::All) => sleep(RETRY).await,
            }
        };
        if let Some(displaced) = fd_budget.park(full, stranger) {
            turn_away(self.context, displaced, &PreAuthError::NoSlot.into());
        }
    }

    /// Gives the slots of each source address to its parked peers; for ever.
    pub(crate) async fn admit_parked(&self) -> Infallible {
        loop {
            self.context.fd_budget.peer_is_parked().await;
            for source in self.context.fd_budget.parked_sources() {
                self.admit_parked_of(source);
            }
            sleep(RETRY).await;
        }
    }

    /// Gives each parked peer a slot, or turns it away at its deadline.
    pub(crate) async fn admit_all_parked(&self) {
        loop {
            let sources = self.context.fd_budget.parked_sources();
            if sources.is_empty() {
                return;
            }
            for source in sources {
                self.admit_parked_of(source);
            }
            sleep(RETRY).await;
        }
    }

    fn admit_parked_of(&self, source: IpAddr) {
        let Context { pre_auth, fd_budget, .. } = &**self.context;
        let limit = self.context.config.tunnel.timeout.get();
        while fd_budget.is_parked(source, |parked| parked.at.elapsed() >= limit)
            && let Some(late) = fd_budget.unpark(source)
        {
            turn_away(self.context, late, &PreAuthError::NoSlot.into());
        }
        while fd_budget.is_parked(source, |_| true)
            && let Ok(slot) = pre_auth.try_enter(Some(source), Instant::now().into())
            && let Some(parked) = fd_budget.unpark(source)
        {
            self.serve(parked, Admitted::Stranger(slot));
        }
    }

    fn serve(&self, accepted: Accepted, admitted: Admitted) {
        // Boxed, since each wrapper around a future reserves space for it twice.
        let home = Home { on: self.workers.least_loaded().clone(), alive: self.alive.clone() };
        let context = Arc::clone(self.context);
        let connection = Box::pin(connection::run(context, accepted, admitted, home.clone()));
        home.spawn(connection);
    }
}

impl Drop for Admission<'_> {
    /// Turns parked peers away: nothing is admitted from now on.
    fn drop(&mut self) {
        for source in self.context.fd_budget.parked_sources() {
            while let Some(parked) = self.context.fd_budget.unpark(source) {
                turn_away(self.context, parked, &PreAuthError::ShuttingDown.into());
            }
        }
    }
}

/// The source address that counts for a peer: an IPv4 address, or an IPv6 network of 64
/// bits, which is what a single customer is given. Peers on unix sockets have none: the
/// mode of the socket's file guards it.
fn source(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Unix => None,
        Peer::Inet(address) => Some(match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from(network))
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_source() {
        let source = |address: &str| source(&Peer::Inet(address.parse().unwrap()));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::2]:1"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
        assert_eq!(source("[::ffff:10.0.0.1]:1"), source("10.0.0.1:1"));
    }
}
