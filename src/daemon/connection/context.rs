//! What all connections of this process share.

use std::sync::{Arc, Mutex};

use tracing::{error, info, warn};

use super::accepted::Accepted;
use super::log_limits::LogLimits;
use super::observer::Observer;
use super::prewarmed::Prewarmed;
use crate::config::Config;
use crate::daemon::limits::Limits;
use crate::daemon::limits::fd_budget::FdBudget;
use crate::daemon::limits::pre_auth::PreAuthPool;
use crate::daemon::net::target::Target;
use crate::daemon::runtime::shutdown::Shutdown;
use crate::keys::file::KeyFileError;
use crate::keys::{KeyStays, KeyStore, Replaced};
use crate::protocol::{KeyId, KeyLengthError, ReplaySet};
use crate::report::Report;

/// What all connections share.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) keys: KeyStore,
    pub(crate) target: Target,
    pub(crate) limits: Limits,
    pub(crate) fd_budget: FdBudget<Accepted>,
    pub(crate) prewarmed: Prewarmed,
    pub(crate) pre_auth: Arc<PreAuthPool>,
    pub(crate) replays: Mutex<ReplaySet>,
    pub(crate) log_limits: LogLimits,
    pub(crate) observer: Observer,
    /// Begins when the next process of the unit takes over: connections that were
    /// accepted here are served here.
    pub(crate) handover: Shutdown,
    /// Begins with the first signal: connections that are not served yet will not be.
    pub(crate) drain: Shutdown,
    /// Begins when the time to drain is over.
    pub(crate) shutdown: Shutdown,
}

impl Context {
    /// Reads the key file again; a bad one changes nothing. Open connections
    /// go on with the keys they agreed on.
    pub(crate) async fn reload_key(&self) {
        match self.keys.reload().await {
            Ok(replaced) => self.tell_replaced(replaced),
            Err(KeyStays::File(error)) => {
                let hint = match (&error, &self.config.process.run_as) {
                    (KeyFileError::Read { .. }, Some(_)) => {
                        "after -u this user may not read it: use 'spiped rekey', or restart"
                    }
                    _ => error.hint(),
                };
                error!(hint, key_id = %self.key_id(), "the key stays as it was: {error}");
            }
            Err(error @ KeyStays::ReadOnce) => {
                warn!(key_id = %self.key_id(), "the key stays as it was: {error}");
            }
            Err(error @ KeyStays::Thread(_)) => {
                error!(key_id = %self.key_id(), "the key stays as it was: {error}");
            }
        }
    }

    /// Puts another key in force. From now on new connections use it, and sessions that
    /// were made ready with the one before are not opened any more.
    ///
    /// # Errors
    /// Why it is refused; the outer one when there is no memory for it.
    pub(crate) fn replace_key(
        &self,
        content: &[u8],
    ) -> std::io::Result<Result<KeyId, KeyLengthError>> {
        let replaced = self.keys.replace_by(content)?;
        match &replaced {
            Ok(replaced) => self.tell_replaced(*replaced),
            Err(error) => {
                error!(key_id = %self.key_id(), "the key stays as it was: {error}");
            }
        }
        Ok(replaced.map(|replaced| replaced.id))
    }

    fn tell_replaced(&self, Replaced { id, before }: Replaced) {
        if id == before {
            info!(key_id = %id, "key reloaded: it is the same key");
        } else {
            info!(key_id = %id, %before, "key reloaded");
        }
        self.observer.changed();
    }

    /// The public name of the key in force.
    pub(crate) fn key_id(&self) -> KeyId {
        self.keys.in_force().id()
    }
}
