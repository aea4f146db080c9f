//! Bytes of the fuzzer's as numbers, choices and randomness.

use std::convert::Infallible;

use rand::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};

/// What the fuzzer has given, from the front; zeros once that is used up.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// So many bytes, or fewer at the end.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    /// A length up to `max`, as often short as long.
    pub(crate) fn length(&mut self, max: usize) -> usize {
        (self.number() >> (self.byte() % 16)).min(max)
    }

    /// A length up to `max`, over 65,535 too: often `max`, or else as often short as long.
    pub(crate) fn any_length(&mut self, max: usize) -> usize {
        let bytes = [self.byte(), self.byte(), self.byte(), self.byte()];
        let number = u32::from_be_bytes(bytes) >> (self.byte() % 32);
        usize::try_from(number).map_or(max, |number| number.min(max))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.number() % end
    }

    pub(crate) fn choice(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// So many bytes that differ from each other, as a stream's do.
    pub(crate) fn stream(&mut self, length: usize) -> Vec<u8> {
        let first = self.byte();
        (0_u8..251).cycle().take(length).map(|byte| byte.wrapping_add(first)).collect()
    }

    /// Changes some bytes of `message`.
    pub(crate) fn alter(&mut self, message: &mut [u8]) {
        for _ in 0..self.byte() % 4 {
            if !message.is_empty() {
                message[self.below(message.len())] ^= self.byte();
            }
        }
    }
}

/// Bytes that the same input gives again. No randomness, whatever its trait says; but
/// no input has in it what is made with them, as it could with fixed keys: libFuzzer
/// sees what is compared, and keeps it.
pub(crate) struct Seeded {
    seed: [u8; 32],
    block: u64,
}

impl Seeded {
    pub(crate) fn new(data: &[u8]) -> Self {
        Self { seed: Sha256::digest(data).into(), block: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let Ok(()) = self.try_fill_bytes(&mut array);
        array
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(self.array()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(self.array()))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        for part in into.chunks_mut(32) {
            let block = Sha256::new().chain_update(self.seed);
            let block = block.chain_update(self.block.to_be_bytes()).finalize();
            part.copy_from_slice(&block[..part.len()]);
            self.block += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}
