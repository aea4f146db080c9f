//! A set of keys: those that are in force at once.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::memory::SecretBytes;
use super::settings::KeySettings;
use crate::config::KeyName;
use crate::protocol::{Accepted, Greeting, HINT_KEY, HandshakeError, HintKeys, KeyId, SharedKey};

/// Keys in the order in which they were given; a sender uses the first.
pub(crate) struct KeySet {
    pub(super) keys: Vec<Arc<Key>>,
    hint_keys: HintKeys,
}

/// A key that is in force, or was.
pub(crate) struct Key {
    pub(crate) name: KeyName,
    pub(crate) settings: KeySettings,
    /// Where its connections to the target come from, if the option says so.
    pub(crate) address: Option<Ipv4Addr>,
    pub(super) secret: Arc<SharedKey>,
    /// Shared with a later set that has this key, too.
    pub(super) standing: Arc<Standing>,
}

/// Whether a key is in force, and how many connections have it.
pub(super) struct Standing {
    out_of_force: watch::Sender<Option<OutOfForce>>,
    connections: AtomicUsize,
}

/// How a key went out of force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfForce {
    /// A reload has taken the key away. Open connections go on.
    Removed,
    /// The key was revoked, and its connections end.
    Revoked,
}

/// A connection of a key. Guard: it counts until this is dropped.
pub(crate) struct KeyUse(Arc<Key>);

impl KeySet {
    pub(super) fn new(keys: Vec<Arc<Key>>) -> Self {
        let secrets = keys.iter().map(|key| &*key.secret);
        let length = keys.len() * HINT_KEY;
        let hint_keys = match SecretBytes::zeroed(length) {
            Ok(memory) => HintKeys::of(secrets, memory),
            // Memory that may be swapped is no reason to keep a key that is revoked.
            Err(_) => HintKeys::of(secrets, vec![0; length]),
        };
        Self { keys, hint_keys }
    }

    /// Reads message 1, and finds its key.
    ///
    /// # Errors
    /// As [`Greeting::read_among`].
    pub(crate) fn read(
        &self,
        message_1: &[u8],
        accepted: Accepted,
    ) -> Result<(Greeting, Arc<Key>), HandshakeError> {
        let mut found = None;
        let key = |number: usize| {
            found = self.keys.get(number);
            found.map(|key| key.secret())
        };
        let greeting = Greeting::read_among(message_1, &self.hint_keys, key, accepted)?;
        let Some(key) = found else { unreachable!("one of these keys fits") };
        Ok((greeting, Arc::clone(key)))
    }

    /// The key of this id.
    pub(crate) fn find(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// The first key. Only a receiver whose last key was revoked has none.
    pub(crate) fn first(&self) -> Option<&Arc<Key>> {
        self.keys.first()
    }

    /// The key that a sender uses.
    pub(crate) fn of_sender(&self) -> Arc<Key> {
        match self.first() {
            Some(key) => Arc::clone(key),
            None => unreachable!("a sender's key cannot be revoked at the sender"),
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Key>> {
        self.keys.iter()
    }
}

impl Default for KeySet {
    fn default() -> Self {
        Self::new(vec![])
    }
}

impl Key {
    /// A key of this name, in force.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str) -> Arc<Self> {
        let memory = super::memory::KeyMemory::new().unwrap();
        let secret = SharedKey::from_key_file(name.repeat(32).as_bytes(), memory).unwrap();
        Arc::new(Self {
            name: name.parse().unwrap(),
            settings: KeySettings::default(),
            address: None,
            secret: Arc::new(secret),
            standing: Standing::new(),
        })
    }

    /// Revokes it.
    #[cfg(test)]
    pub(crate) fn revoke(&self) {
        self.standing.set(Some(OutOfForce::Revoked));
    }

    pub(crate) fn id(&self) -> KeyId {
        self.secret.id()
    }

    pub(crate) fn secret(&self) -> &SharedKey {
        &self.secret
    }

    /// How many connections have the key.
    pub(crate) fn connections(&self) -> usize {
        self.standing.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection, unless there are `most` already, or as many as the key's own
    /// settings say.
    ///
    /// # Errors
    /// How many there may be.
    pub(crate) fn count(self: &Arc<Self>, most: Option<NonZeroU32>) -> Result<KeyUse, u32> {
        let most = self.settings.connections.or(most).map(NonZeroU32::get);
        // Counted first: two threads may come at once.
        let counted = KeyUse(Arc::clone(self));
        let before = self.standing.connections.fetch_add(1, Ordering::Relaxed);
        match most {
            Some(most) if u32::try_from(before).is_ok_and(|before| before >= most) => Err(most),
            _ => Ok(counted),
        }
    }

    /// Waits until the key is out of force.
    pub(crate) async fn out_of_force(&self) -> OutOfForce {
        let mut watch = self.standing.out_of_force.subscribe();
        match watch.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(how)) => *how,
            Ok(None) | Err(_) => unreachable!("it is out of force, and the key has the sender"),
        }
    }

    /// Whether the key is revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        *self.standing.out_of_force.borrow() == Some(OutOfForce::Revoked)
    }
}

impl Standing {
    pub(super) fn new() -> Arc<Self> {
        let out_of_force = watch::Sender::new(None);
        Arc::new(Self { out_of_force, connections: AtomicUsize::new(0) })
    }

    /// `None` puts the key in force again.
    pub(super) fn set(&self, out_of_force: Option<OutOfForce>) {
        self.out_of_force.send_replace(out_of_force);
    }

    #[cfg(test)]
    pub(super) fn get(&self) -> Option<OutOfForce> {
        *self.out_of_force.borrow()
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        self.0.standing.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
