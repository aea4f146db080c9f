//! Where the status is served: an address of this host, or sockets from systemd.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::{Address, Config, as_given};
use crate::daemon::accept::{Bound, Inherited, InheritedError, Listener, SourceError};
use crate::report::Report;

/// The pause between two tries to bind the address.
const AGAIN: Duration = Duration::from_secs(3);

/// Where the status is served.
pub(crate) enum Place {
    /// Sockets that listen already.
    Bound(Vec<Bound>),
    /// An address that something else has, or that is not there yet.
    Awaited(Address),
}

impl Place {
    /// The place that the options say, or the sockets that systemd has passed; `None` where
    /// there is neither. Binds the address. One that cannot be bound is no error: the pipe
    /// does not depend on it.
    ///
    /// # Errors
    /// When sockets were passed that do not fit the options.
    pub(crate) fn of(
        config: &Config,
        sockets: &mut Inherited,
    ) -> Result<Option<Self>, InheritedError> {
        let inherited = sockets.take_status(&config.status)?;
        if !inherited.is_empty() {
            return Ok(Some(Self::Bound(inherited)));
        }
        Ok(config.status.at.clone().map(|address| match Bound::to(&address) {
            Ok(bound) => Self::Bound(vec![bound]),
            Err(error) => {
                let error = SourceError::Listen { address: address.clone(), error };
                warn!(
                    hint = &*as_given(error.hint()),
                    "no status over HTTP: {error}; retrying until it succeeds"
                );
                Self::Awaited(address)
            }
        }))
    }

    /// The number of listening sockets.
    pub(crate) const fn listeners(&self) -> usize {
        match self {
            Self::Bound(all) => all.len(),
            Self::Awaited(_) => 1,
        }
    }

    /// Listens, as soon as that is possible.
    pub(super) async fn listen(self) -> Vec<Listener> {
        let bound = match self {
            Self::Bound(bound) => bound,
            Self::Awaited(address) => loop {
                sleep(AGAIN).await;
                if let Ok(bound) = Bound::to(&address) {
                    break vec![bound];
                }
            },
        };
        let mut listeners = Vec::new();
        for bound in bound {
            match bound.listener() {
                Ok(listener) => {
                    info!("status over HTTP at {}", listener.name());
                    listeners.push(listener);
                }
                Err(error) => warn!("no status over HTTP: {error}"),
            }
        }
        listeners
    }
}
