//! The context that all connections of this process share.

use std::sync::{Arc, Mutex, PoisonError};

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
use crate::keys::error::KeyFileError;
use crate::keys::guessable::GuessableKey;
use crate::keys::{KeyStays, KeyStore, Replaced};
use crate::protocol::{KeyId, KeyLengthError, ReplaySet};
use crate::report::Report;

/// The context that all connections of this process share.
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
    /// Begins when the next process of the unit takes over. Connections that were accepted
    /// here are still served here.
    pub(crate) handover: Shutdown,
    /// Begins with the first signal. Connections that are not served yet will not be.
    pub(crate) drain: Shutdown,
    /// Begins when the drain timeout is over.
    pub(crate) shutdown: Shutdown,
}

impl Context {
    /// Reloads the key file. A key that is refused changes nothing, and open connections go
    /// on in any case.
    pub(crate) async fn reload_key(&self) {
        match self.keys.reload().await {
            Ok(replaced) => self.log_replaced(&replaced),
            Err(KeyStays::File(error)) => {
                let hint = match (&error, &self.config.process.run_as) {
                    (KeyFileError::Read { .. }, Some(_)) => {
                        "after -u this user is not allowed to read it: use 'spiped rekey', or restart"
                    }
                    _ => error.hint(),
                };
                error!(hint, key_id = %self.key_id(), "key not reloaded: {error}");
            }
            Err(error @ KeyStays::ReadOnce) => {
                warn!(key_id = %self.key_id(), "key not reloaded: {error}");
            }
            Err(error @ KeyStays::Thread(_)) => {
                error!(key_id = %self.key_id(), "key not reloaded: {error}");
            }
        }
    }

    /// Puts another key in force. New connections use it from now on, and ready sessions
    /// of the previous key are no longer used.
    ///
    /// # Errors
    /// The inner error when the key is refused; the outer one when there is no memory.
    pub(crate) fn replace_key(
        &self,
        content: &[u8],
    ) -> std::io::Result<Result<KeyId, KeyLengthError>> {
        let replaced = self.keys.replace_by(content)?;
        match &replaced {
            Ok(replaced) => self.log_replaced(replaced),
            Err(error) => {
                error!(key_id = %self.key_id(), "key not reloaded: {error}");
            }
        }
        Ok(replaced.map(|replaced| replaced.id))
    }

    fn log_replaced(&self, Replaced { id, before, guessable }: &Replaced) {
        if id == before {
            info!(key_id = %id, "key reloaded: it is the same key");
        } else {
            info!(key_id = %id, %before, "key reloaded");
            let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
            replays.keep_only(|key| key == *id);
        }
        if let Some(guessable) = guessable {
            warn!(hint = GuessableKey::HINT, key_id = %id, "{guessable}");
        }
        self.observer.status_changed();
    }

    /// The id of the key in force.
    pub(crate) fn key_id(&self) -> KeyId {
        self.keys.in_force().id()
    }
}
