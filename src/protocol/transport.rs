//! One direction's cipher with its nonce counter (Noise section 5.1), and Noise's
//! `Rekey()`.

use thiserror::Error;

use super::aead::CipherKey;

/// After each this many records, a direction applies `Rekey()`.
pub(super) const REKEY_INTERVAL: u64 = 1 << 20;

/// The nonces of one direction are used up (Noise section 5.1: 2^64-1 is
/// reserved, and using a nonce twice would break the cipher).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("2^64-1 records were sent in one direction, the connection cannot go on")]
pub struct Exhausted;

/// A cipher and the number of the next record.
pub(super) struct Transport {
    cipher: CipherKey,
    n: u64,
    rekey_interval: u64,
}

impl Transport {
    pub(super) const fn new(cipher: CipherKey, rekey_interval: u64) -> Self {
        Self { cipher, n: 0, rekey_interval }
    }

    /// The cipher and the nonce for the next record. Each nonce is given once.
    pub(super) fn next(&mut self) -> Result<(&CipherKey, u64), Exhausted> {
        let n = self.n;
        // Checked before use: the nonce 2^64-1 is reserved for Rekey().
        self.n = n.checked_add(1).ok_or(Exhausted)?;
        if n > 0 && n.is_multiple_of(self.rekey_interval) {
            self.cipher.rekey();
        }
        Ok((&self.cipher, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::suite::Cipher;

    #[test]
    fn the_last_nonce_is_never_given() {
        let mut transport =
            Transport::new(CipherKey::new(Cipher::Aes256Gcm, &[1; 32]), REKEY_INTERVAL);
        transport.n = u64::MAX - 1;
        assert_eq!(transport.next().map(|(_, n)| n).ok(), Some(u64::MAX - 1));
        assert_eq!(transport.next().err(), Some(Exhausted));
        assert_eq!(transport.next().err(), Some(Exhausted));
    }
}
