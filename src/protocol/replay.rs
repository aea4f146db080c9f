//! Replays: first messages that came before.
//!
//! Knowing them saves work, and no promise rests on it: a replay that is not known gets one
//! answer, which is of no use, and reaches no target. A new process knows no messages.

use std::collections::HashSet;

use rand::TryCryptoRng;

use super::aead::TAG;
use super::handshake::{HandshakeError, MESSAGE_1, split};

/// The most messages that are known.
const MOST: usize = 4096;

/// The tag of a message, its last 16 bytes. Only a message whose tag fits a key becomes
/// known, so no stranger can choose a tag in the set.
type Id = [u8; TAG];

/// The set of known first messages, which have fitted a key.
#[derive(Default)]
pub struct ReplaySet {
    /// The standard library's hash is keyed, so a holder of the key who chooses tags cannot
    /// make look-ups slow.
    known: HashSet<Id>,
    /// The content of `known`, from which a random one can be removed.
    ids: Vec<Id>,
}

impl ReplaySet {
    /// Whether the message is known. To be called before a key is tried.
    #[must_use]
    pub fn contains(&self, message: &[u8; MESSAGE_1]) -> bool {
        self.known.contains(&id(message))
    }

    /// Makes a message known whose tag fits a key. Returns `false` if it was known before.
    /// To be called before the Diffie-Hellman: of two threads that handle equal messages at
    /// once, one gets `false`.
    ///
    /// A full set forgets a message at random. If it forgot the oldest, a stranger with one
    /// recorded message more than fits into the set could replay for ever.
    ///
    /// # Errors
    /// Only when `random` fails.
    pub fn insert<R: TryCryptoRng + ?Sized>(
        &mut self,
        message: &[u8; MESSAGE_1],
        random: &mut R,
    ) -> Result<bool, HandshakeError> {
        let id = id(message);
        if self.known.contains(&id) {
            return Ok(false);
        }
        if self.ids.len() == MOST {
            let mut number = [0; 2];
            random.try_fill_bytes(&mut number).map_err(|_| HandshakeError::Randomness)?;
            // Each message is equally likely, since MOST is a power of two.
            let gone = self.ids.swap_remove(usize::from(u16::from_be_bytes(number)) % MOST);
            self.known.remove(&gone);
        }
        self.ids.push(id);
        Ok(self.known.insert(id))
    }
}

fn id(message: &[u8; MESSAGE_1]) -> Id {
    let (_suite_and_public, tag): ([u8; MESSAGE_1 - TAG], Id) = split(message);
    tag
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may fail that way")]
mod tests {
    use super::*;
    use rand::rngs::SysRng;

    /// Message 1 with this number as its tag.
    fn message(number: usize) -> [u8; MESSAGE_1] {
        let mut message = [3; MESSAGE_1];
        message[MESSAGE_1 - 8..].copy_from_slice(&number.to_be_bytes());
        message
    }

    #[test]
    fn a_message_is_known_once_it_was_inserted() {
        let mut set = ReplaySet::default();
        assert!(!set.contains(&message(1)));
        assert_eq!(set.insert(&message(1), &mut SysRng), Ok(true));
        assert_eq!(set.insert(&message(1), &mut SysRng), Ok(false));
        assert!(set.contains(&message(1)) && !set.contains(&message(2)));
    }

    /// The newest message never gives way.
    #[test]
    fn when_it_is_full_one_at_random_gives_way() {
        let mut set = ReplaySet::default();
        let more = 3 * MOST;
        for number in 0..more {
            assert_eq!(set.insert(&message(number), &mut SysRng), Ok(true));
            assert!(set.contains(&message(number)));
        }
        assert_eq!((set.known.len(), set.ids.len()), (MOST, MOST));
        let old = (0..MOST).filter(|number| set.contains(&message(*number))).count();
        // A chance of (1 - 1/MOST)^(2 MOST) each, 0.135: 554 of them, give or take 22.
        assert!((300..900).contains(&old), "{old} of the oldest {MOST}");
    }
}
