//! Key files, and keys that are pasted.

use std::io::{ErrorKind, Write};

use base64ct::{Base64, Encoding};
use tempfile::NamedTempFile;

use super::input::Input;
use crate::keys::entry;
use crate::keys::error::KeyFileError;
use crate::keys::file::{self, Owners};
use crate::keys::memory::SecretBytes;
use crate::keys::terminal::decode_base64;
use crate::protocol::{KEY_FILE_MAX, KEY_FILE_MIN, KEY_SECRETS, KeyLengthError, SharedKey};

/// A key file of any length, with any bytes; what somebody pastes; or what rekey sends.
pub fn key(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => read(input),
        1 => pasted(input.rest()),
        2 => entries(input.rest()),
        _ => printed(input),
    }
}

/// It is read as it is, or refused for its length alone.
fn read(mut input: Input<'_>) {
    let length = input.length(KEY_FILE_MAX + 2);
    let content: Vec<u8> = input.rest().iter().copied().chain([7]).cycle().take(length).collect();
    // Its mode is that of a key.
    let mut made = NamedTempFile::new().unwrap();
    made.write_all(&content).unwrap();
    let read = file::content(made.path(), Owners::Own);
    let key = file::read(made.path(), Owners::Own);
    match (length, read, key) {
        (KEY_FILE_MIN..=KEY_FILE_MAX, Ok(read), Ok(key)) => {
            assert_eq!(*read, content);
            named(&key.key, content);
        }
        (_, Ok(_), Err(KeyFileError::Length { error, .. })) => {
            let expected = if length < KEY_FILE_MIN {
                KeyLengthError::TooShort(length)
            } else {
                KeyLengthError::TooLong
            };
            assert_eq!(error, expected);
            assert!(!(KEY_FILE_MIN..=KEY_FILE_MAX).contains(&length));
        }
        (_, read, key) => panic!("{length} bytes: {:?}, {:?}", read.err(), key.err()),
    }
}

/// The key's id has four groups, and another key has another one.
fn named(key: &SharedKey, mut content: Vec<u8>) {
    let id = key.id().to_string();
    let groups: Vec<_> = id.split('-').collect();
    assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [4; 4]);
    assert!(groups.concat().bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
    assert_eq!(format!("{key:?}"), format!("SharedKey({id})"));
    content[0] ^= 1;
    let other = SharedKey::from_key_file(&content, Box::new([0; KEY_SECRETS])).unwrap();
    assert_ne!(other.id(), key.id());
}

/// Any bytes: what is understood as the entries of a set is understood again as the same.
fn entries(bytes: &[u8]) {
    let Some(entries) = entry::from_bytes(bytes).unwrap() else { return };
    let again = entry::from_bytes(&entry::to_bytes(&entries).unwrap()).unwrap().unwrap();
    assert_eq!(entries.len(), again.len());
    for (one, other) in entries.iter().zip(&again) {
        assert_eq!((&one.name, one.settings), (&other.name, other.settings));
        assert_eq!(*one.content, *other.content);
    }
}

/// Any bytes: they are the base64 of what they are taken for, or refused.
fn pasted(text: &[u8]) {
    match decode_base64(secret(text)) {
        Ok(content) => {
            let bare: Vec<u8> =
                text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            assert_eq!(encoded(&content), bare);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData),
    }
}

/// What base64(1) prints of any bytes, in lines of any length, is read as those.
fn printed(mut input: Input<'_>) {
    let width = usize::from(input.byte()).max(1);
    let end = [&b"\n"[..], b"\r\n", b"\r", b" "][input.below(4)];
    let content = input.rest();
    let lines: Vec<_> = encoded(content).chunks(width).map(|line| [line, end].concat()).collect();
    let decoded = decode_base64(secret(&lines.concat())).unwrap();
    assert_eq!(*decoded, *content);
}

fn encoded(content: &[u8]) -> Vec<u8> {
    let mut text = vec![0; Base64::encoded_len(content)];
    let length = Base64::encode(content, &mut text).unwrap().len();
    text.truncate(length);
    text
}

fn secret(bytes: &[u8]) -> SecretBytes {
    let mut secret = SecretBytes::zeroed(bytes.len()).unwrap();
    secret.copy_from_slice(bytes);
    secret
}
