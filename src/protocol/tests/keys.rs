//! The shared key: which files make one, and what is left of it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn only_files_between_the_bounds_make_a_key() {
    let made = |length: usize| {
        SharedKey::from_key_file(&vec![1; length], Box::new([0; KEY_SECRETS])).map(|key| key.id())
    };
    for short in [0, 1, 31] {
        assert_eq!(made(short), Err(KeyLengthError::TooShort(short)));
    }
    for long in [65_537, 100_000] {
        assert_eq!(made(long), Err(KeyLengthError::TooLong));
    }
    assert!([32, 33, 2000, 65_536].map(made).iter().all(Result::is_ok));
}

/// Memory that tells what was in it when it was given back.
struct Watched([u8; KEY_SECRETS], Arc<Mutex<Option<[u8; KEY_SECRETS]>>>);

impl Deref for Watched {
    type Target = [u8; KEY_SECRETS];

    fn deref(&self) -> &[u8; KEY_SECRETS] {
        &self.0
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut [u8; KEY_SECRETS] {
        &mut self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = Some(self.0);
    }
}

/// The same memory, of any length.
struct Slice(Watched);

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &*self.0
    }
}

impl DerefMut for Slice {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut *self.0
    }
}

#[test]
fn hint_keys_lie_side_by_side_and_are_wiped_when_dropped() {
    let left = Arc::new(Mutex::new(None));
    let keys = [1, 2, 3].map(key);
    let memory = Slice(Watched([0; KEY_SECRETS], Arc::clone(&left)));
    let hint_keys = HintKeys::of(&keys, memory);
    let copies: Vec<_> = hint_keys.iter().copied().collect();
    assert_eq!(copies.len(), keys.len());
    assert!(copies.iter().all(|copy| *copy != [0; HINT_KEY]));
    drop(hint_keys);
    assert_eq!(*left.lock().unwrap(), Some([0; KEY_SECRETS]));
}

#[test]
fn a_key_that_is_dropped_is_wiped() {
    let left = Arc::new(Mutex::new(None));
    let memory = Watched([0; KEY_SECRETS], Arc::clone(&left));
    let key = SharedKey::from_key_file(&[1; 32], memory).unwrap();
    assert_ne!(*key.psk(), [0; 32]);
    drop(key);
    assert_eq!(*left.lock().unwrap(), Some([0; KEY_SECRETS]));
}

#[test]
fn secrets_are_not_shown() {
    let key = key(0x41);
    let id = key.id();
    assert_eq!(format!("{key:?}"), format!("SharedKey({id})"));
    assert_eq!(format!("{id:?}"), format!("KeyId({id})"));
}
