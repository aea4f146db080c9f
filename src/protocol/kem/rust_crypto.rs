//! ML-KEM-768 in pure Rust, by the ml-kem crate.

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768;
use ml_kem::{B32, Seed};
use rand::TryCryptoRng;
use zeroize::Zeroizing;

use super::types::{
    CIPHERTEXT, Ciphertext, ENCAPSULATION_KEY, EncapsulationKey, KemError, SharedSecret,
};
use crate::protocol::hkdf::wipe_stack;

/// A decapsulation key, wiped when dropped. Boxed, so that moving the key leaves no copy
/// behind.
pub(in crate::protocol) struct DecapsulationKey(Box<ml_kem_768::DecapsulationKey>);

impl DecapsulationKey {
    /// The key of 64 random bytes, d and z (FIPS 203, section 7.1), and its encapsulation key.
    pub(in crate::protocol) fn generate<R: TryCryptoRng + ?Sized>(
        random: &mut R,
    ) -> Result<(Self, EncapsulationKey), KemError> {
        let mut seed = Zeroizing::new(Seed::default());
        random.try_fill_bytes(seed.as_mut_slice()).map_err(|_| KemError::Randomness)?;
        let private = expand(&seed);
        wipe_stack();
        let public = Box::new(private.encapsulation_key().to_bytes().into());
        Ok((Self(private), public))
    }

    /// The secret in the ciphertext; a wrong ciphertext gives a secret that nobody else has
    /// (FIPS 203, section 6.3).
    pub(in crate::protocol) fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT]) -> SharedSecret {
        let secret = Zeroizing::new(self.0.decapsulate(&(*ciphertext).into()));
        Zeroizing::new((*secret).into())
    }

    /// The key of 64 known bytes.
    #[cfg(test)]
    #[cfg(not(feature = "aws-lc"))]
    pub(in crate::protocol) fn known<R: TryCryptoRng + ?Sized>(
        random: &mut R,
    ) -> (Self, EncapsulationKey) {
        Self::generate(random).unwrap()
    }

    /// The key in the form that AWS-LC reads.
    #[cfg(all(test, feature = "aws-lc"))]
    pub(super) fn expanded(&self) -> Vec<u8> {
        #[allow(deprecated, reason = "AWS-LC reads no seeds")]
        ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&*self.0).to_vec()
    }
}

/// Makes a key in a stack frame of its own, which is wiped.
#[inline(never)]
fn expand(seed: &Seed) -> Box<ml_kem_768::DecapsulationKey> {
    Box::new(ml_kem_768::DecapsulationKey::from_seed(*seed))
}

/// A new secret, and the ciphertext from which the holder of the decapsulation key has it,
/// of 32 random bytes, m (FIPS 203, section 7.2).
///
/// # Errors
/// When the encapsulation key is invalid, or `random` fails.
pub(in crate::protocol) fn encapsulate<R: TryCryptoRng + ?Sized>(
    encapsulation_key: &[u8; ENCAPSULATION_KEY],
    random: &mut R,
) -> Result<(Ciphertext, SharedSecret), KemError> {
    let key = ml_kem_768::EncapsulationKey::new(encapsulation_key.into())
        .map_err(|_| KemError::InvalidKey)?;
    let mut m = Zeroizing::new(B32::default());
    random.try_fill_bytes(m.as_mut_slice()).map_err(|_| KemError::Randomness)?;
    let (ciphertext, secret) = key.encapsulate_deterministic(&m);
    let secret = Zeroizing::new(secret);
    Ok((Box::new(ciphertext.into()), Zeroizing::new((*secret).into())))
}
