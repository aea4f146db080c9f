//! The part of RESP, the protocol of redis, that the tests speak themselves: requests,
//! and replies that are known to the byte in advance.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A request; a reply that is an array of strings has the same form.
pub fn array<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A request and the reply that it must get.
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
