//! Replays: first messages that came before (rule H5).
//!
//! Knowing them saves work, and no promise rests on it: a replay that is not known gets one
//! answer, which is of no use, and reaches no target. A new process knows no messages.

use std::collections::{HashMap, HashSet};

use rand::TryCryptoRng;

use super::aead::TAG;
use super::handshake::HandshakeError;
use super::ids::KeyId;
use super::keys::HINT;

/// The most messages that are known of each key.
const MOST: usize = 4096;

/// The hint of a message, and its last tag. Only a message whose tags fit a key becomes
/// known, so no stranger can choose what is in the set.
type Id = [u8; HINT + TAG];

/// The set of known first messages, which have fitted a key.
#[derive(Default)]
pub struct ReplaySet {
    /// The standard library's hash is keyed, so a holder of the key who chooses tags cannot
    /// make look-ups slow.
    known: HashSet<Id>,
    /// The content of `known` by key, from which a random one can be removed.
    of_key: HashMap<KeyId, Vec<Id>>,
}

impl ReplaySet {
    /// Whether the message is known. To be called before the keys are tried.
    #[must_use]
    pub fn contains(&self, message_1: &[u8]) -> bool {
        id(message_1).is_some_and(|id| self.known.contains(&id))
    }

    /// Makes a message known whose tags fit a key. Returns `false` if it was known before.
    /// To be called before the Diffie-Hellman: of two threads that handle equal messages at
    /// once, one gets `false`.
    ///
    /// A full set forgets a message of that key at random. If it forgot the oldest, a
    /// stranger with one recorded message more than fits into the set could replay for ever.
    ///
    /// # Errors
    /// When the message is too short to be one, or `random` fails.
    pub fn insert<R: TryCryptoRng + ?Sized>(
        &mut self,
        message_1: &[u8],
        key: KeyId,
        random: &mut R,
    ) -> Result<bool, HandshakeError> {
        let id = id(message_1).ok_or(HandshakeError::Length)?;
        if self.known.contains(&id) {
            return Ok(false);
        }
        let ids = self.of_key.entry(key).or_default();
        if ids.len() == MOST {
            let mut number = [0; 2];
            random.try_fill_bytes(&mut number).map_err(|_| HandshakeError::Randomness)?;
            // Each message is equally likely, since MOST is a power of two.
            let gone = ids.swap_remove(usize::from(u16::from_be_bytes(number)) % MOST);
            self.known.remove(&gone);
        }
        ids.push(id);
        Ok(self.known.insert(id))
    }

    /// Forgets the messages of all keys but those in force: nothing fits the others again.
    pub fn keep_only(&mut self, is_in_force: impl Fn(KeyId) -> bool) {
        let known = &mut self.known;
        self.of_key.retain(|key, ids| {
            let keep = is_in_force(*key);
            if !keep {
                for id in ids {
                    known.remove(id);
                }
            }
            keep
        });
    }
}

/// `None` where a message is too short.
fn id(message_1: &[u8]) -> Option<Id> {
    let (_suite, rest) = message_1.split_first()?;
    let (hint, rest) = rest.split_first_chunk::<HINT>()?;
    let (_keys, tag) = rest.split_last_chunk::<TAG>()?;
    let mut id = [0; HINT + TAG];
    let (head, tail) = id.split_at_mut(HINT);
    head.copy_from_slice(hint);
    tail.copy_from_slice(tag);
    Some(id)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may fail that way")]
mod tests {
    use super::*;
    use rand::rngs::SysRng;

    const KEY: KeyId = KeyId([1; 8]);

    /// Message 1 with this number in its tag.
    fn message(number: usize) -> Vec<u8> {
        [&[3; 49][..], &number.to_be_bytes()].concat()
    }

    #[test]
    fn h5_a_message_is_known_once_it_was_inserted() {
        let mut set = ReplaySet::default();
        assert!(!set.contains(&message(1)));
        assert_eq!(set.insert(&message(1), KEY, &mut SysRng), Ok(true));
        assert_eq!(set.insert(&message(1), KEY, &mut SysRng), Ok(false));
        assert!(set.contains(&message(1)) && !set.contains(&message(2)));
        // The hint counts as the tag does, and nothing in between.
        let with = |at: usize| {
            let mut other = message(1);
            other[at] ^= 1;
            set.contains(&other)
        };
        assert_eq!(
            [0, 1, 8, 9, 40, 41, 56].map(with),
            [true, false, false, true, true, false, false]
        );
        assert!(!set.contains(&[]) && !set.contains(&[3; 20]));
    }

    /// The newest message never gives way.
    #[test]
    fn h5_when_it_is_full_one_at_random_gives_way() {
        let mut set = ReplaySet::default();
        let more = 3 * MOST;
        for number in 0..more {
            assert_eq!(set.insert(&message(number), KEY, &mut SysRng), Ok(true));
            assert!(set.contains(&message(number)));
        }
        assert_eq!((set.known.len(), set.of_key[&KEY].len()), (MOST, MOST));
        let old = (0..MOST).filter(|number| set.contains(&message(*number))).count();
        // A chance of (1 - 1/MOST)^(2 MOST) each, 0.135: 554 of them, give or take 22.
        assert!((300..900).contains(&old), "{old} of the oldest {MOST}");
    }

    #[test]
    fn h5_one_key_pushes_out_no_message_of_another() {
        let (mut set, other) = (ReplaySet::default(), KeyId([2; 8]));
        assert_eq!(set.insert(&message(0), other, &mut SysRng), Ok(true));
        for number in 1..2 * MOST {
            assert_eq!(set.insert(&message(number), KEY, &mut SysRng), Ok(true));
        }
        assert!(set.contains(&message(0)));
        set.keep_only(|key| key == other);
        assert!(set.contains(&message(0)));
        assert_eq!((set.known.len(), set.of_key.len()), (1, 1));
    }
}
