//! ML-KEM-768 by AWS-LC.

use aws_lc_rs::kem::{self, ML_KEM_768};
use rand::TryCryptoRng;

use super::types::{
    CIPHERTEXT, Ciphertext, ENCAPSULATION_KEY, EncapsulationKey, KemError, SharedSecret,
};

/// A decapsulation key, which AWS-LC wipes when it frees it.
pub(in crate::protocol) struct DecapsulationKey(kem::DecapsulationKey);

impl DecapsulationKey {
    /// A new key, of AWS-LC's own randomness, and its encapsulation key.
    pub(in crate::protocol) fn generate<R: TryCryptoRng + ?Sized>(
        _random: &mut R,
    ) -> Result<(Self, EncapsulationKey), KemError> {
        let private =
            kem::DecapsulationKey::generate(&ML_KEM_768).map_err(|_| KemError::Randomness)?;
        let public = private.encapsulation_key().and_then(|key| key.key_bytes());
        match public.map(|bytes| bytes.as_ref().try_into()) {
            Ok(Ok(public)) => Ok((Self(private), Box::new(public))),
            _ => unreachable!("every decapsulation key has an encapsulation key"),
        }
    }

    /// The secret in the ciphertext; a wrong ciphertext gives a secret that nobody else has
    /// (FIPS 203, section 6.3).
    pub(in crate::protocol) fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT]) -> SharedSecret {
        match self.0.decapsulate(kem::Ciphertext::from(&ciphertext[..])) {
            Ok(secret) => shared_secret(&secret),
            Err(_) => unreachable!("every ciphertext of that length has a secret"),
        }
    }

    /// The key of 64 known bytes, by the other implementation.
    #[cfg(test)]
    pub(in crate::protocol) fn known<R: TryCryptoRng + ?Sized>(
        random: &mut R,
    ) -> (Self, EncapsulationKey) {
        let (key, public) = super::rust_crypto::DecapsulationKey::generate(random).unwrap();
        (Self::expanded(&key), public)
    }

    /// The key of the other implementation.
    #[cfg(test)]
    pub(super) fn expanded(key: &super::rust_crypto::DecapsulationKey) -> Self {
        Self(kem::DecapsulationKey::new(&ML_KEM_768, &key.expanded()).unwrap())
    }
}

/// A new secret, and the ciphertext from which the holder of the decapsulation key has it,
/// of AWS-LC's own randomness.
///
/// # Errors
/// When the encapsulation key is invalid.
pub(in crate::protocol) fn encapsulate<R: TryCryptoRng + ?Sized>(
    encapsulation_key: &[u8; ENCAPSULATION_KEY],
    _random: &mut R,
) -> Result<(Ciphertext, SharedSecret), KemError> {
    // AWS-LC checks the key (FIPS 203, section 7.2) when it encapsulates.
    let key = kem::EncapsulationKey::new(&ML_KEM_768, encapsulation_key)
        .map_err(|_| KemError::InvalidKey)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| KemError::InvalidKey)?;
    match ciphertext.as_ref().try_into() {
        Ok(ciphertext) => Ok((Box::new(ciphertext), shared_secret(&secret))),
        Err(_) => unreachable!("ciphertexts have one length"),
    }
}

fn shared_secret(secret: &kem::SharedSecret) -> SharedSecret {
    let mut out = SharedSecret::default();
    out.copy_from_slice(secret.as_ref());
    out
}
