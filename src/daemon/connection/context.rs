//! The context that all connections of this process share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info, warn};

use super::accepted::Accepted;
use super::carriers::Carriers;
use super::log_limits::LogLimits;
use super::observer::Observer;
use super::prewarmed::Prewarmed;
use crate::config::{Config, KeyName, Role};
use crate::daemon::limits::Limits;
use crate::daemon::limits::fd_budget::FdBudget;
use crate::daemon::limits::pre_auth::PreAuthPool;
use crate::daemon::net::target::Target;
use crate::daemon::runtime::shutdown::Shutdown;
use crate::keys::change::{Change, KeyChange};
use crate::keys::entry::KeyEntry;
use crate::keys::error::KeyFileError;
use crate::keys::guessable::GuessableKey;
use crate::keys::set::Key;
use crate::keys::{KeyStore, KeysStay, Reloaded};
use crate::process::blocking::BlockingThread;
use crate::protocol::ReplaySet;
use crate::report::Report;

const NOT_RELOADED: &str = "keys not reloaded";
/// Why a sender takes no set of keys.
const SEVERAL: &str = "a sender has one key, and several came";
/// Why a sender revokes nothing.
const OF_SENDER: &str = "a sender has one key: give it another by 'spiped rekey', or stop it";
/// Why nothing is revoked.
pub(crate) const NO_KEY: &str = "no key has that name";
/// Why nothing is reloaded during the drain.
const DRAINING: &str =
    "this process only lets its open connections end, with the keys that they have";

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
    pub(crate) carriers: Carriers,
    /// The number of the next connection in the log.
    pub(crate) ids: AtomicU64,
    pub(crate) observer: Observer,
    /// Makes the status, which may take milliseconds.
    pub(crate) status_thread: BlockingThread,
    /// Begins when the next process of the unit takes over. Connections that were accepted
    /// here are still served here.
    pub(crate) handover: Shutdown,
    /// Begins with the first signal. Connections that are not served yet will not be.
    pub(crate) drain: Shutdown,
    /// Begins when the drain timeout is over.
    pub(crate) shutdown: Shutdown,
}

impl Context {
    /// The number of a new connection in the log, from 1.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Reloads the key files. One that is refused changes nothing, and open connections go
    /// on in any case.
    pub(crate) async fn reload_keys(&self) {
        if self.drain.has_begun() {
            warn!("{NOT_RELOADED}: {DRAINING}");
            return;
        }
        match self.keys.reload().await {
            Ok(reloaded) => return self.log_reloaded(&reloaded),
            Err(KeysStay::File(error)) => {
                let hint = match (&error, &self.config.process.run_as) {
                    (KeyFileError::Read { .. }, Some(_)) => {
                        "after -u this user is not allowed to read it: use 'spiped rekey', or restart"
                    }
                    _ => error.hint(),
                };
                error!(hint, "{NOT_RELOADED}: {error}");
            }
            Err(error @ KeysStay::ReadOnce) => warn!("{NOT_RELOADED}: {error}"),
            Err(error @ KeysStay::Thread(_)) => error!("{NOT_RELOADED}: {error}"),
        }
        self.observer.keys_not_reloaded();
    }

    /// Puts other keys in force, all or none. New connections use them from now on, and ready
    /// sessions of keys that are gone are no longer used.
    ///
    /// # Errors
    /// Why the keys are refused.
    pub(crate) async fn replace_keys(
        &self,
        entries: Vec<KeyEntry>,
    ) -> Result<Vec<KeyChange>, String> {
        let refused = if self.drain.has_begun() {
            DRAINING.to_owned()
        } else if entries.is_empty() {
            "the request has no keys that can be understood".to_owned()
        } else if self.config.role == Role::Encrypt && entries.len() > 1 {
            SEVERAL.to_owned()
        } else {
            match self.keys.replace_by(entries).await {
                Ok(reloaded) => {
                    self.log_reloaded(&reloaded);
                    return Ok(reloaded.changes);
                }
                Err(error) => error.to_string(),
            }
        };
        error!("{NOT_RELOADED}: {refused}");
        self.observer.keys_not_reloaded();
        Err(refused)
    }

    /// Takes the key of this name out of force and ends its connections.
    ///
    /// # Errors
    /// Why no key was revoked.
    pub(crate) fn revoke_key(&self, name: &str) -> Result<Vec<KeyChange>, String> {
        let refused = match (self.config.role, name.parse()) {
            (Role::Encrypt, _) => OF_SENDER,
            (Role::Decrypt, Err(_)) => NO_KEY,
            (Role::Decrypt, Ok(name)) => match self.keys.revoke(&name) {
                None => NO_KEY,
                Some(changes) => {
                    self.shutdown.ask_again();
                    for KeyChange { name, id, open, .. } in &changes {
                        warn!(key = %name, key_id = %id, ended = open, "key revoked");
                    }
                    self.forget_replays();
                    self.observer.status_changed();
                    return Ok(changes);
                }
            },
        };
        if let Ok(key) = name.parse::<KeyName>() {
            warn!(%key, "key not revoked: {refused}");
        } else {
            warn!("key not revoked: {refused}");
        }
        Err(refused.to_owned())
    }

    fn log_reloaded(&self, Reloaded { changes, guessable }: &Reloaded) {
        let mut counts = [0_usize; 3];
        for KeyChange { what, name, id, open } in changes {
            let count = match what {
                Change::Added => {
                    info!(key = %name, key_id = %id, "key added");
                    0
                }
                Change::Removed | Change::Revoked => {
                    info!(key = %name, key_id = %id, open, "key removed");
                    1
                }
                Change::Kept => 2,
            };
            counts[count] += 1;
        }
        let [added, removed, kept] = counts;
        info!(added, removed, kept, "keys reloaded");
        self.forget_replays();
        let in_force = self.keys.in_force();
        self.observer.keys_reloaded(|id| in_force.find(id).is_some());
        for (key_id, guessable) in guessable {
            warn!(hint = GuessableKey::HINT, %key_id, "{guessable}");
        }
        self.observer.status_changed();
    }

    /// Forgets the first messages of keys that are not in force any more.
    fn forget_replays(&self) {
        let keys = self.keys.in_force();
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        replays.keep_only(|id| keys.find(id).is_some());
    }

    /// The key of a sender.
    pub(crate) fn key_of_sender(&self) -> Arc<Key> {
        self.keys.in_force().of_sender()
    }
}
