//! The status: what this process tells of itself, as it is now.

use std::process;

use super::context::Context;
use super::observer::Told;
use crate::config::{Role, unit_name};
use crate::keys::set::Key;
use crate::status::{self, Detail, State, Status, UnixTime};

impl Context {
    /// The status. Thousands of keys or connections take milliseconds, so this is not for an
    /// event loop.
    pub(crate) fn snapshot(&self, detail: Detail) -> Status {
        let tunnel = &self.config.tunnel;
        let connections = self.fd_budget.connections();
        let listening = self.observer.listening();
        let state = match (self.drain.has_begun(), listening.is_empty()) {
            (true, _) => State::Draining,
            (false, true) => State::Waiting,
            (false, false) => State::Serving,
        };
        let (in_force, removed) = self.keys.with_connections();
        let keys = in_force.iter().map(|key| self.told_key(key));
        let removed = removed.iter().map(|key| self.told_key(key));
        let removed = removed.map(|key| status::Key { in_force: false, ..key });
        let told = self.observer.told(tunnel.target.to_string(), connections);
        let Told { target, totals, closed_without_key, handshakes, recent, failures, .. } = told;
        Status {
            version: status::VERSION,
            spiped: env!("CARGO_PKG_VERSION").to_owned(),
            role: self.config.role,
            state,
            pid: process::id(),
            unit: unit_name(),
            since: self.observer.since,
            now: UnixTime::now(),
            listening,
            target,
            kex: self.kex(),
            connections: count(connections),
            connection_limit: count(self.limits.connections),
            strangers: count(self.pre_auth.strangers()),
            stranger_limit: count(self.limits.pre_auth),
            carriers: self.told_carriers(),
            keys: keys.chain(removed).take(status::KEYS_MAX).collect(),
            keys_reloaded: self.observer.reloads(),
            totals,
            closed_without_key,
            handshakes,
            handshake_seconds: told.handshake_seconds,
            target_connect_seconds: told.target_connect_seconds,
            recent,
            failures,
            open: (detail == Detail::Connections).then(|| self.observer.told_open()),
        }
    }

    fn told_carriers(&self) -> Vec<status::Carrier> {
        let mut carriers = self.carriers.all();
        carriers.sort_by_cached_key(|carrier| (carrier.since, carrier.agreed.conn().to_string()));
        carriers.truncate(status::CARRIERS_MAX);
        carriers.iter().map(|carrier| carrier.told()).collect()
    }

    /// The key exchange: a sender's, or what a receiver accepts.
    pub(crate) fn kex(&self) -> String {
        let tunnel = &self.config.tunnel;
        match self.config.role {
            Role::Encrypt => tunnel.kex_of_sender().to_string(),
            // auto: whichever the sender has.
            Role::Decrypt => tunnel.kex.to_string(),
        }
    }

    fn told_key(&self, key: &Key) -> status::Key {
        let (totals, last_used) = self.observer.told_of_key(key.id());
        let suite = last_used.map(|(_, suite)| suite);
        let limit = key.settings.connections.or(self.config.connections.per_key.0);
        status::Key {
            name: key.name.to_string(),
            id: key.id().to_string(),
            in_force: true,
            connections: count(key.connections()),
            connection_limit: limit.map(|limit| limit.get().into()),
            address: key.address.map(|address| address.to_string()),
            last_used: last_used.map(|(time, _)| time),
            kex: suite.map(|suite| suite.kex.to_string()),
            cipher: suite.map(|suite| suite.cipher.to_string()),
            totals,
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
