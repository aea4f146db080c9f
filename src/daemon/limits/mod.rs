//! Limits of connections, slots and sessions. All of them follow from the limit of file
//! descriptors, which is divided at the start, so that no connection fails later for lack
//! of a descriptor.

pub(crate) mod fd_budget;
pub(crate) mod pre_auth;

use std::io;

use nix::libc::EMFILE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tracing::warn;

use crate::config::{CarriersUse, Config, Prewarm, Role, as_given};
use crate::report::{Report, exit};

/// Descriptors of an open connection: the local socket and the tunnel.
pub(crate) const PER_CONNECTION: usize = 2;
/// Descriptors of a listening socket: its own, and one for the connection that was accepted
/// last, which may wait for a slot.
const PER_LISTENER: usize = 2;
/// Descriptors of everything else: standard input and output (3), the signal handlers
/// (2), the control socket and its clients (5), the pid file, the log, the socket of
/// systemd, the key file during a reload, name look-ups, and some to spare.
const RESERVED: usize = 24;
/// Descriptors of each thread's runtime.
const PER_THREAD: usize = 4;
/// The most carriers of a sender's thread. Beyond their streams, each connection has its own
/// session.
pub(crate) const SENDER_CARRIERS: usize = 8;
/// Clients of the status over HTTP at once.
pub(crate) const STATUS_CLIENTS: usize = 16;
/// Descriptors of the status over HTTP beside its listening sockets: its thread's runtime, its
/// clients, a connect to the target, and files in `/proc`.
const STATUS: usize = PER_THREAD + STATUS_CLIENTS + 4;
/// One of so many descriptors is for further connects, to targets with several addresses.
const SPARE_PART: usize = 32;
/// More descriptors for further connects gain nothing.
const SPARE_MAX: usize = 256;
/// At most one of so many descriptors is for a ready session.
const PREWARMED_PART: usize = 4;
/// At most one of so many descriptors is for a carrier of a receiver.
const CARRIERS_PART: usize = 16;
/// More carriers of a receiver gain nothing.
const CARRIERS_MAX: usize = 4096;
/// More slots before authentication gain nothing.
const PRE_AUTH_MAX: usize = 4096;

const MORE_DESCRIPTORS: &str = "raise the limit of file descriptors (LimitNOFILE=, ulimit -n)";

/// How many of each kind may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections that have proved the key.
    pub(crate) connections: usize,
    /// Sockets of peers that have not proved the key; a sender has no such peers.
    pub(crate) pre_auth: usize,
    /// Carriers of a receiver; a sender has at most [`SENDER_CARRIERS`] for each thread.
    pub(crate) carriers: usize,
    /// Ready sessions of a sender.
    pub(crate) prewarmed: usize,
    /// Descriptors for further connects, beside the first one of their connection.
    pub(crate) spare: usize,
    /// Descriptors of connections; `-n` may allow fewer connections than that.
    pub(crate) descriptors: usize,
}

impl Limits {
    /// Raises the soft limit of descriptors to the hard one, and divides them for a
    /// process that listens on so many sockets, and on others for its status over HTTP.
    ///
    /// # Errors
    /// When not even one connection can be served.
    pub(crate) fn from_descriptors(
        config: &Config,
        listeners: usize,
        status_listeners: usize,
    ) -> Result<Self, TooFewDescriptors> {
        let status = if status_listeners == 0 { 0 } else { STATUS };
        let carriers = config.connections.carriers;
        let of_thread = PER_THREAD.saturating_add(match (config.role, carriers) {
            (Role::Encrypt, CarriersUse::On) => SENDER_CARRIERS,
            (Role::Encrypt, CarriersUse::Off) | (Role::Decrypt, _) => 0,
        });
        let fixed = RESERVED
            .saturating_add(status)
            .saturating_add(status_listeners.saturating_mul(PER_LISTENER))
            .saturating_add(config.process.threads.get().saturating_mul(of_thread))
            .saturating_add(listeners.saturating_mul(PER_LISTENER));
        // One connection, one slot before authentication, one carrier, one further connect.
        let descriptors = raise_limit(fixed.saturating_add(PER_CONNECTION + 3))?;
        let prewarm = config.connections.prewarm;
        let limits = Self::within((descriptors, fixed), config.role, prewarm, carriers);
        if limits.prewarmed < config.connections.prewarm.get() {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} prewarmed sessions, not the {} of {}",
                limits.prewarmed,
                config.connections.prewarm.get(),
                as_given("--prewarm"),
            );
        }
        let Some(asked) = config.connections.max.0 else {
            return Ok(limits);
        };
        let asked = usize::try_from(asked.get()).unwrap_or(usize::MAX);
        if asked > limits.connections {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} connections, not the {asked} of {}",
                limits.connections,
                as_given("-n"),
            );
        }
        Ok(Self { connections: limits.connections.min(asked), ..limits })
    }

    fn within(
        (descriptors, fixed): (usize, usize),
        role: Role,
        prewarm: Prewarm,
        carriers: CarriersUse,
    ) -> Self {
        let pre_auth = match role {
            Role::Encrypt => 0,
            Role::Decrypt => (descriptors / 8).clamp(1, PRE_AUTH_MAX),
        };
        let carriers = match (role, carriers) {
            (Role::Decrypt, CarriersUse::On) => {
                (descriptors / CARRIERS_PART).clamp(1, CARRIERS_MAX)
            }
            (Role::Decrypt, CarriersUse::Off) | (Role::Encrypt, _) => 0,
        };
        let prewarmed = prewarm.get().min(descriptors / PREWARMED_PART);
        let spare = (descriptors / SPARE_PART).clamp(1, SPARE_MAX);
        let taken = [fixed, pre_auth, carriers, prewarmed, spare]
            .into_iter()
            .fold(0, usize::saturating_add);
        let connections = (descriptors.saturating_sub(taken) / PER_CONNECTION).max(1);
        let descriptors = connections.saturating_mul(PER_CONNECTION);
        Self { connections, pre_auth, carriers, prewarmed, spare, descriptors }
    }
}

/// The limit of descriptors is too low for a single connection.
#[derive(Debug, Error)]
#[error("cannot serve even one connection: {0}")]
pub(crate) struct TooFewDescriptors(io::Error);

impl Report for TooFewDescriptors {
    fn hint(&self) -> &str {
        MORE_DESCRIPTORS
    }

    fn exit_code(&self) -> u8 {
        exit::OS
    }
}

/// Raises the soft limit of descriptors to the hard one, and returns the limit.
///
/// # Errors
/// When the limit is below `needed`.
pub(crate) fn raise_limit(needed: usize) -> Result<usize, TooFewDescriptors> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let descriptors = usize::try_from(limit).unwrap_or(usize::MAX);
    if descriptors < needed {
        return Err(TooFewDescriptors(io::Error::from_raw_os_error(EMFILE)));
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_promised_twice() {
        let fixed = RESERVED + 2 * PER_THREAD + PER_LISTENER;
        for descriptors in [64, 256, 1024, 20_000, 1 << 20] {
            for (role, prewarm, carriers) in [
                (Role::Encrypt, "0", CarriersUse::Off),
                (Role::Encrypt, "1000", CarriersUse::On),
                (Role::Decrypt, "0", CarriersUse::Off),
                (Role::Decrypt, "0", CarriersUse::On),
            ] {
                let prewarm = prewarm.parse().unwrap();
                let limits = Limits::within((descriptors, fixed), role, prewarm, carriers);
                let beside = limits.pre_auth + limits.carriers + limits.prewarmed + limits.spare;
                assert_eq!(limits.descriptors, limits.connections * PER_CONNECTION);
                let used = limits.descriptors + beside;
                assert!(used + fixed <= descriptors, "{limits:?} of {descriptors}");
                assert!((limits.connections + fixed) * 4 >= descriptors / 2, "{limits:?}");
            }
        }
    }
}
