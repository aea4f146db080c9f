//! How many connections there may be: as many as file descriptors allow,
//! shared out at the start so that no connection meets a lack of them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::config::{Config, Prewarm, Role};

/// Descriptors of an open connection: the local socket and the tunnel.
const PER_CONNECTION: usize = 2;
/// Descriptors for standard input and output, signals, name look-ups, files.
const RESERVED: usize = 20;
/// Descriptors of each thread's runtime.
const PER_THREAD: usize = 4;
/// Sessions that are kept ready have one of so many descriptors at most.
const PREWARMED_PART: usize = 4;
/// More strangers than this serve nobody.
const STRANGERS_MAX: usize = 4096;

const MORE_DESCRIPTORS: &str = "raise the limit of file descriptors (LimitNOFILE=, ulimit -n)";

/// Places for connections, and those for strangers beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Connections that may be open at once.
    pub(super) connections: usize,
    /// Peers that have not proved the key; none connect to a sender.
    pub(super) strangers: usize,
    /// Sessions that are kept ready; those of a sender.
    pub(super) prewarmed: usize,
}

impl Places {
    /// Raises the soft limit of descriptors to the hard one, and shares them out.
    pub(super) fn from_limits(config: &Config) -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        };
        let descriptors = usize::try_from(limit).unwrap_or(usize::MAX);
        let places = Self::within(descriptors, config.role, config.threads.get(), config.prewarm);
        if places.prewarmed < config.prewarm.get() {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} sessions to be kept ready, not the {} of --prewarm",
                places.prewarmed,
                config.prewarm.get()
            );
        }
        let Some(asked) = config.connections.0 else {
            return places;
        };
        let asked = usize::try_from(asked.get()).unwrap_or(usize::MAX);
        if asked > places.connections {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} connections, not the {asked} of -n",
                places.connections
            );
        }
        Self { connections: places.connections.min(asked), ..places }
    }

    fn within(descriptors: usize, role: Role, threads: usize, prewarm: Prewarm) -> Self {
        let strangers = match role {
            Role::Encrypt => 0,
            Role::Decrypt => (descriptors / 8).clamp(1, STRANGERS_MAX),
        };
        let prewarmed = prewarm.get().min(descriptors / PREWARMED_PART);
        let taken = RESERVED
            .saturating_add(threads.saturating_mul(PER_THREAD))
            .saturating_add(strangers)
            .saturating_add(prewarmed);
        // A semaphore cannot count further than its own bound.
        let connections = (descriptors.saturating_sub(taken) / PER_CONNECTION)
            .clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        Self { connections, strangers, prewarmed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_promised_twice() {
        for descriptors in [64, 256, 1024, 20_000, 1 << 20] {
            for (role, prewarm) in
                [(Role::Encrypt, "0"), (Role::Encrypt, "1000"), (Role::Decrypt, "0")]
            {
                let places = Places::within(descriptors, role, 2, prewarm.parse().unwrap());
                let beside = places.strangers + places.prewarmed;
                let used = places.connections * PER_CONNECTION + beside;
                assert!(used + RESERVED <= descriptors, "{places:?} of {descriptors}");
                assert!(places.connections * 4 >= descriptors / 2 - RESERVED, "{places:?}");
            }
        }
    }
}
