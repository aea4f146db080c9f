//! Entries of a key set: a key as its file has it, with its name and settings. `spiped rekey`
//! sends them to a running spiped.

use std::io;
use std::path::PathBuf;

use super::error::KeyFileError;
use super::guessable::GuessableKey;
use super::memory::{KeyMemory, SecretBytes};
use super::settings::KeySettings;
use crate::config::KeyName;
use crate::protocol::{KEY_FILE_MAX, KeyId, SharedKey};

/// The most keys of one end.
pub(crate) const KEYS_MAX: usize = 1000;
/// The most bytes of all key files of one end together. Usual ones have 32 bytes.
const CONTENT_MAX: usize = 3 << 20;
/// The most bytes of all entries, of which each has a name and settings, too.
pub(crate) const ENTRIES_MAX: usize = CONTENT_MAX + KEYS_MAX * 512;
/// The most bytes of a file of settings.
pub(crate) const SETTINGS_MAX: usize = 4096;

/// A key as its file has it.
pub(crate) struct KeyEntry {
    pub(crate) name: KeyName,
    /// The key file, where it is known.
    pub(crate) path: Option<PathBuf>,
    pub(crate) content: SecretBytes,
    pub(crate) settings: KeySettings,
}

impl KeyEntry {
    /// Derives the key.
    ///
    /// # Errors
    /// When the content is too short or too long, or no memory is left.
    pub(crate) fn derive(&self) -> Result<SharedKey, KeyFileError> {
        let memory = KeyMemory::new().map_err(KeyFileError::Memory)?;
        SharedKey::from_key_file(&self.content, memory).map_err(|error| {
            let path = self.path.clone().unwrap_or_else(|| self.name.as_str().into());
            KeyFileError::Length { path, error }
        })
    }

    /// The warning, where the key can be guessed.
    pub(crate) fn guessable(&self) -> Option<GuessableKey> {
        GuessableKey::find(self.path.as_deref(), &self.content)
    }
}

/// The names and ids of the keys, of which each can be in force with the others.
///
/// # Errors
/// When there are too many keys, two of one name, one under two names, or one that is
/// refused.
pub(crate) fn check(entries: &[KeyEntry]) -> Result<Vec<(KeyName, KeyId)>, KeyFileError> {
    check_size(entries)?;
    let mut seen: Vec<(KeyName, KeyId)> = Vec::new();
    for entry in entries {
        let id = entry.derive()?.id();
        check_against(seen.iter().map(|(name, id)| (name, *id)), &entry.name, id)?;
        seen.push((entry.name.clone(), id));
    }
    Ok(seen)
}

/// Refuses more keys than one end can have.
pub(super) fn check_size(entries: &[KeyEntry]) -> Result<(), KeyFileError> {
    let bytes: usize = entries.iter().map(|entry| entry.content.len()).sum();
    if entries.len() > KEYS_MAX || bytes > CONTENT_MAX {
        return Err(KeyFileError::TooMany);
    }
    Ok(())
}

/// Refuses a key whose name or content another one has.
pub(super) fn check_against<'a>(
    mut others: impl Iterator<Item = (&'a KeyName, KeyId)>,
    name: &KeyName,
    id: KeyId,
) -> Result<(), KeyFileError> {
    match others.find(|(other, other_id)| *other == name || *other_id == id) {
        Some((other, _)) if other == name => Err(KeyFileError::SameName(name.clone())),
        Some((other, _)) => Err(KeyFileError::SameKey(other.clone(), name.clone())),
        None => Ok(()),
    }
}

/// The entries as bytes: for each `NAME BYTES BYTES\n`, its key and its settings.
///
/// # Errors
/// When no memory is left.
pub(crate) fn to_bytes(entries: &[KeyEntry]) -> io::Result<SecretBytes> {
    let parts: Vec<_> = entries
        .iter()
        .map(|KeyEntry { name, content, settings, .. }| {
            let settings = settings.to_string();
            (format!("{name} {} {}\n", content.len(), settings.len()), content, settings)
        })
        .collect();
    let length =
        parts.iter().map(|(line, key, settings)| line.len() + key.len() + settings.len()).sum();
    let mut bytes = SecretBytes::zeroed(length)?;
    let mut rest = &mut bytes[..];
    for (line, key, settings) in parts {
        for part in [line.as_bytes(), key, settings.as_bytes()] {
            let (room, after) = rest.split_at_mut(part.len());
            room.copy_from_slice(part);
            rest = after;
        }
    }
    Ok(bytes)
}

/// The entries that [`to_bytes`] has made. Of too many, one more than there may be: each
/// takes memory.
///
/// # Errors
/// The inner error where the bytes are no entries; the outer one when no memory is left.
pub(crate) fn from_bytes(mut bytes: &[u8]) -> io::Result<Option<Vec<KeyEntry>>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() && entries.len() <= KEYS_MAX {
        let Some((entry, rest)) = first_entry(bytes) else { return Ok(None) };
        let (name, key, settings) = entry;
        let content = SecretBytes::copy_of(key)?;
        entries.push(KeyEntry { name, path: None, content, settings });
        bytes = rest;
    }
    Ok(Some(entries))
}

/// An entry's name, key and settings.
type Parts<'a> = (KeyName, &'a [u8], KeySettings);

fn first_entry(bytes: &[u8]) -> Option<(Parts<'_>, &[u8])> {
    let end = bytes.iter().take(128).position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let (name, key, settings) = (words.next()?, words.next()?, words.next()?);
    let (key, settings): (usize, usize) = (key.parse().ok()?, settings.parse().ok()?);
    if words.next().is_some() || key > KEY_FILE_MAX || settings > SETTINGS_MAX {
        return None;
    }
    let (key, rest) = rest.get(1..)?.split_at_checked(key)?;
    let (settings, rest) = rest.split_at_checked(settings)?;
    let settings = str::from_utf8(settings).ok()?.parse().ok()?;
    Some(((name.parse().ok()?, key, settings), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, content: &[u8], settings: &str) -> KeyEntry {
        KeyEntry {
            name: name.parse().unwrap(),
            path: None,
            content: SecretBytes::copy_of(content).unwrap(),
            settings: settings.parse().unwrap(),
        }
    }

    fn parts(entries: &[KeyEntry]) -> Vec<(KeyName, Vec<u8>, KeySettings)> {
        let parts = |it: &KeyEntry| (it.name.clone(), it.content.to_vec(), it.settings);
        entries.iter().map(parts).collect()
    }

    #[test]
    fn entries_arrive_as_they_were_sent_or_not_at_all() {
        let entries = [
            entry("alice", &[b'\n'; 32], "CONNECTIONS=3"),
            entry("b.ob", &[0; 40], ""),
            entry("c", b"", "ADDRESS=127.1.2.3\nCONNECTIONS=1"),
        ];
        let bytes = to_bytes(&entries).unwrap();
        assert_eq!(parts(&from_bytes(&bytes).unwrap().unwrap()), parts(&entries));
        for length in 1..bytes.len() {
            // Whole entries are entries, too.
            if let Some(some) = from_bytes(&bytes[..length]).unwrap() {
                assert!(parts(&entries).starts_with(&parts(&some)) && some.len() < 3);
            }
        }
        for wrong in ["a 1\nx", "a 1 0 0\nx", "- 1 0\nx", "a 99999 0\n", "a 0 5\nwords", "a"] {
            assert!(from_bytes(wrong.as_bytes()).unwrap().is_none(), "{wrong}");
        }
    }

    #[test]
    fn of_too_many_entries_only_one_more_is_read() {
        let bytes = b"a 0 0\n".repeat(KEYS_MAX + 9);
        let entries = from_bytes(&bytes).unwrap().unwrap();
        assert_eq!(entries.len(), KEYS_MAX + 1);
        assert!(matches!(check_size(&entries), Err(KeyFileError::TooMany)));
    }

    #[test]
    fn one_name_stands_for_one_key() {
        let check = |entries: &[KeyEntry]| check(entries).err().map(|error| error.to_string());
        assert_eq!(check(&[entry("a", &[1; 32], ""), entry("b", &[2; 32], "")]), None);
        let error = check(&[entry("a", &[1; 32], ""), entry("b", &[1; 32], "")]).unwrap();
        assert!(error.contains("a and b"), "{error}");
        let error = check(&[entry("a", &[1; 32], ""), entry("a", &[2; 32], "")]).unwrap();
        assert!(error.contains("two keys"), "{error}");
    }
}
