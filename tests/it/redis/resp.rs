//! As much of RESP, the protocol of redis, as the tests speak themselves:
//! requests, and replies that are known to the byte beforehand.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A request; an array of strings in a reply is written the same.
pub fn array<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// One request and the reply it must have.
pub fn ask<W: AsRef<[u8]>>(stream: &mut TcpStream, words: &[W], reply: impl AsRef<[u8]>) {
    stream.write_all(&array(words)).unwrap();
    expect(stream, reply);
}

/// Reads exactly these bytes.
pub fn expect(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == bytes, "{} and not {}", beginning(&got), beginning(bytes));
}

fn beginning(bytes: &[u8]) -> impl std::fmt::Display {
    bytes.iter().take(100).copied().collect::<Vec<_>>().escape_ascii().to_string()
}
