//! Shared by the programs and the bench `protocol`: two ends that stream, handshakes, and
//! processes. A failure here ends the measurement.
#![allow(
    clippy::unwrap_used,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "a measurement may end that way"
)]
#![allow(clippy::must_use_candidate, reason = "what is measured may be dropped")]

pub mod process;

use std::convert::Infallible;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use rand::{TryCryptoRng, TryRng};
use spiped::protocol::{
    Accepted, Extensions, Initiator, KEY_SECRETS, PREFIX, Responder, SUFFIX, Session, SharedKey,
    Suite,
};

/// The build that is measured.
pub const BUILD: &str = if cfg!(feature = "aws-lc") { "aws-lc" } else { "rust" };

/// Bytes of the stream in a record: a keystroke, a Redis command, a page of memory, a TLS
/// record.
pub const SIZES: [usize; 4] = [1, 64, 1024, 16_384];

/// Room for a record with `size` bytes of the stream.
pub fn room(size: usize) -> Vec<u8> {
    [&[0; PREFIX], vec![0x55; size].as_slice(), &[0; SUFFIX]].concat()
}

/// A key file's content.
pub const KEY_FILE: [u8; 32] = [1; 32];

/// The content of this many different key files.
pub fn key_files(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| [&KEY_FILE[..], &number.to_be_bytes()].concat()).collect()
}

/// This many different keys, each in a page of its own, as the program holds them.
pub fn keys(count: usize) -> Vec<SharedKey> {
    let key = |content: &Vec<u8>| SharedKey::from_key_file(content, Page::new());
    key_files(count).iter().map(|content| key(content).unwrap()).collect()
}

/// A page for the secrets of a key.
struct Page(MmapMut);

impl Page {
    fn new() -> Self {
        let page = MmapMut::map_anon(KEY_SECRETS).unwrap();
        page.lock().unwrap();
        Self(page)
    }
}

impl Deref for Page {
    type Target = [u8; KEY_SECRETS];

    fn deref(&self) -> &Self::Target {
        self.0.first_chunk().unwrap()
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.first_chunk_mut().unwrap()
    }
}

/// Message 1 of the initiator that has this source of randomness.
pub fn first_message(suite: Suite, key: &SharedKey, same: u8) -> Vec<u8> {
    Initiator::start(suite, key, &mut SameBytes(same)).unwrap().1
}

/// Both ends of handshakes with one suite and one key.
pub struct Handshake {
    suite: Suite,
    key: SharedKey,
    message_1: Vec<u8>,
}

impl Handshake {
    /// Makes the message 1 that the responder reads.
    pub fn new(suite: Suite) -> Self {
        let key = SharedKey::from_key_file(&KEY_FILE, Box::new([0; KEY_SECRETS])).unwrap();
        let message_1 = first_message(suite, &key, 2);
        Self { suite, key, message_1 }
    }

    /// Everything that an initiator computes before message 1.
    pub fn start(&self) -> (Initiator, Vec<u8>) {
        Initiator::start(self.suite, &self.key, &mut SameBytes(2)).unwrap()
    }

    /// Everything that a responder computes: reads message 1, makes message 2.
    pub fn respond(&self) -> Responder {
        self.respond_to(&self.message_1)
    }

    /// An initiator and the message 2 for it. AWS-LC's key exchange is another each time, so
    /// that message fits no other initiator.
    pub fn replied(&self) -> (Initiator, Vec<u8>) {
        let (initiator, message_1) = self.start();
        (initiator, self.respond_to(&message_1).reply)
    }

    /// Everything that an initiator computes after message 2.
    pub fn finish((initiator, message_2): (Initiator, Vec<u8>)) -> Session {
        initiator.finish(&message_2).unwrap()
    }

    /// Both ends after OPEN and OPENED: the next records are DATA.
    pub fn streaming(&self) -> (Session, Session) {
        let (initiator, message_1) = self.start();
        let Responder { reply, session: mut b, .. } = self.respond_to(&message_1);
        let mut a = Self::finish((initiator, reply));
        b.opener.open(&mut a.sealer.seal_open(Extensions::default()).unwrap()).unwrap();
        a.opener.open(&mut b.sealer.seal_opened().unwrap()).unwrap();
        (a, b)
    }

    fn respond_to(&self, message_1: &[u8]) -> Responder {
        Responder::accept(message_1, [&self.key], Accepted::default(), &mut SameBytes(3)).unwrap()
    }
}

/// A source without randomness, so that all runs are equal.
struct SameBytes(u8);

impl TryRng for SameBytes {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.into())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.into())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0);
        Ok(())
    }
}

impl TryCryptoRng for SameBytes {}
