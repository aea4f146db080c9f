//! What both implementations take and give.

use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of an encapsulation key, the public key of a KEM.
pub(in crate::protocol) const ENCAPSULATION_KEY: usize = 1184;
/// Bytes of a ciphertext.
pub(in crate::protocol) const CIPHERTEXT: usize = 1088;

/// An encapsulation key.
pub(in crate::protocol) type EncapsulationKey = Box<[u8; ENCAPSULATION_KEY]>;
/// A ciphertext.
pub(in crate::protocol) type Ciphertext = Box<[u8; CIPHERTEXT]>;
/// The secret that both ends have once one has encapsulated and the other decapsulated.
pub(in crate::protocol) type SharedSecret = Zeroizing<[u8; 32]>;

/// Why a key was not generated or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::protocol) enum KemError {
    /// The encapsulation key fails the check of FIPS 203, section 7.2: a coefficient is not
    /// below the modulus.
    #[error("an invalid encapsulation key")]
    InvalidKey,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Randomness,
}
