//! Bytes whose position is recognizable: the stream that is sent, and the check of what
//! arrives.
//!
//! A stream is a repeated block of noise that begins at another place in each stream. So
//! a byte that is lost, doubled, changed, moved or taken from another stream does not
//! fit. Both sides take slices of one buffer, so that the check costs a memcmp.

use std::sync::LazyLock;

use thiserror::Error;

/// The number of bytes to send, and to read, at once.
pub const CHUNK: usize = 256 * 1024;
/// The length is a prime, so that no buffer or record of a tunnel repeats with it.
const PERIOD: usize = 65_521;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    noise.iter().copied().cycle().take(PERIOD + CHUNK).collect()
});

/// The bytes that arrived are not the bytes that were sent.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("stream {stream}: byte {position} is not what was sent")]
pub struct Wrong {
    stream: usize,
    position: usize,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    stream: usize,
    position: usize,
}

impl Place {
    /// The beginning of the stream with this number.
    pub fn start(stream: usize) -> Self {
        Self { stream, position: 0 }
    }

    /// The number of bytes before the place.
    pub fn position(self) -> usize {
        self.position
    }

    /// Steps over bytes that were sent.
    pub fn advance(&mut self, count: usize) {
        self.position += count;
    }

    /// The next bytes: one chunk.
    pub fn next(self) -> &'static [u8] {
        let start = (self.position + self.stream * 4099) % PERIOD;
        BYTES.get(start..start + CHUNK).unwrap_or_default()
    }

    /// Steps over bytes that arrived, at most a chunk.
    ///
    /// # Errors
    /// If the bytes are not the next bytes of the stream.
    pub fn check(&mut self, arrived: &[u8]) -> Result<(), Wrong> {
        let sent = self.next();
        if sent.get(..arrived.len()) == Some(arrived) {
            self.advance(arrived.len());
            return Ok(());
        }
        let good = arrived.iter().zip(sent).take_while(|(arrived, sent)| arrived == sent).count();
        Err(Wrong { stream: self.stream, position: self.position + good })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of three chunks, read in pieces of this size.
    fn read(stream: &[u8], piece: usize) -> Result<usize, Wrong> {
        let mut place = Place::start(7);
        for piece in stream.chunks(piece) {
            place.check(piece)?;
        }
        Ok(place.position())
    }

    fn sent() -> Vec<u8> {
        let mut place = Place::start(7);
        let mut stream = Vec::new();
        for _ in 0..3 {
            stream.extend(place.next());
            place.advance(CHUNK);
        }
        stream
    }

    #[test]
    fn what_was_sent_arrives_in_any_pieces() {
        for piece in [1, 1000, CHUNK - 1, CHUNK] {
            assert_eq!(read(&sent(), piece), Ok(3 * CHUNK));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_where_it_is() {
        for position in [0, 1, PERIOD, CHUNK - 1, CHUNK, 3 * CHUNK - 1] {
            let mut stream = sent();
            stream[position] ^= 0x10;
            assert_eq!(read(&stream, 5000), Err(Wrong { stream: 7, position }));
        }
    }

    #[test]
    fn lost_doubled_and_swapped_bytes_are_noticed() {
        let mut lost = sent();
        lost.remove(100_000);
        assert!(read(&lost, CHUNK).is_err());
        let mut doubled = sent();
        doubled.insert(100_000, doubled[100_000]);
        assert!(read(&doubled, CHUNK).is_err());
        let mut swapped = sent();
        let (one, other) = swapped.split_at_mut(CHUNK);
        one[..16_384].swap_with_slice(&mut other[..16_384]);
        assert!(read(&swapped, CHUNK).is_err());
    }

    #[test]
    fn another_stream_is_noticed() {
        let mut place = Place::start(8);
        assert!(place.check(&sent()[..100]).is_err());
    }
}
