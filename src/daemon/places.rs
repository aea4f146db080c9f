//! How many connections there may be: as many as file descriptors allow,
//! shared out at the start so that no connection meets a lack of them.

use std::io;

use nix::libc::EMFILE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::config::{Config, Prewarm, Role, as_given};
use crate::error::Error;

/// Descriptors of an open connection: the local socket and the tunnel.
pub(super) const PER_CONNECTION: usize = 2;
/// Of a socket that listens: its own, and that of who was accepted last, until
/// there is a place.
const PER_LISTENER: usize = 2;
/// Standard input and output (3), what watches for signals (2), the socket of
/// `--control` and who is heard on it (5), the pid file, the log, what systemd is
/// told by, the key file as it is read again, name look-ups, and some to spare.
const RESERVED: usize = 24;
/// Descriptors of each thread's runtime.
const PER_THREAD: usize = 4;
/// Connects that run beside the first one of their connection, where a name has
/// many addresses, have one of so many descriptors.
const SPARE_PART: usize = 32;
/// More of them at once gain nothing.
const SPARE_MAX: usize = 256;
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
    /// Descriptors for connects beside the first one of their connection.
    pub(super) spare: usize,
    /// Descriptors of connections, of which there may be fewer (`-n`).
    pub(super) descriptors: usize,
}

impl Places {
    /// Raises the soft limit of descriptors to the hard one, and shares them out,
    /// where so many sockets listen.
    ///
    /// # Errors
    /// When not even one connection can be served.
    pub(super) fn from_limits(config: &Config, listeners: usize) -> Result<Self, Error> {
        let fixed = RESERVED
            .saturating_add(config.threads.get().saturating_mul(PER_THREAD))
            .saturating_add(listeners.saturating_mul(PER_LISTENER));
        // And one for a stranger, one to spare.
        let descriptors = raise_limit(fixed.saturating_add(PER_CONNECTION + 2))?;
        let places = Self::within(descriptors, fixed, config.role, config.prewarm);
        if places.prewarmed < config.prewarm.get() {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} sessions to be kept ready, not the {} of {}",
                places.prewarmed,
                config.prewarm.get(),
                as_given("--prewarm"),
            );
        }
        let Some(asked) = config.connections.0 else {
            return Ok(places);
        };
        let asked = usize::try_from(asked.get()).unwrap_or(usize::MAX);
        if asked > places.connections {
            warn!(
                hint = MORE_DESCRIPTORS,
                "{descriptors} file descriptors allow {} connections, not the {asked} of {}",
                places.connections,
                as_given("-n"),
            );
        }
        Ok(Self { connections: places.connections.min(asked), ..places })
    }

    fn within(descriptors: usize, fixed: usize, role: Role, prewarm: Prewarm) -> Self {
        let strangers = match role {
            Role::Encrypt => 0,
            Role::Decrypt => (descriptors / 8).clamp(1, STRANGERS_MAX),
        };
        let prewarmed = prewarm.get().min(descriptors / PREWARMED_PART);
        let spare = (descriptors / SPARE_PART).clamp(1, SPARE_MAX);
        let taken = fixed.saturating_add(strangers).saturating_add(prewarmed).saturating_add(spare);
        let connections = (descriptors.saturating_sub(taken) / PER_CONNECTION).max(1);
        let descriptors = connections.saturating_mul(PER_CONNECTION);
        Self { connections, strangers, prewarmed, spare, descriptors }
    }
}

/// Raises the soft limit of descriptors to the hard one; how many there may be.
///
/// # Errors
/// When that is fewer than are needed.
pub(super) fn raise_limit(needed: usize) -> Result<usize, Error> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let descriptors = usize::try_from(limit).unwrap_or(usize::MAX);
    if descriptors < needed {
        let error = io::Error::from_raw_os_error(EMFILE);
        return Err(Error::System { what: "not one connection can be served", error });
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
            for (role, prewarm) in
                [(Role::Encrypt, "0"), (Role::Encrypt, "1000"), (Role::Decrypt, "0")]
            {
                let places = Places::within(descriptors, fixed, role, prewarm.parse().unwrap());
                let beside = places.strangers + places.prewarmed + places.spare;
                assert_eq!(places.descriptors, places.connections * PER_CONNECTION);
                let used = places.descriptors + beside;
                assert!(used + fixed <= descriptors, "{places:?} of {descriptors}");
                assert!((places.connections + fixed) * 4 >= descriptors / 2, "{places:?}");
            }
        }
    }
}
