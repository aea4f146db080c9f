//! Noise's KEM functions (HFS, section 5) with ML-KEM-768 (FIPS 203).
//!
//! There are two implementations, as of the ciphers. AWS-LC takes its randomness from the
//! operating system itself; the other one is handed it, so that test vectors can run. The
//! tests compare the two.

use rand::TryCryptoRng;

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(all(feature = "rust-crypto", not(feature = "aws-lc")), test))]
mod rust_crypto;
mod types;

#[cfg(feature = "aws-lc")]
pub(super) use aws_lc::{DecapsulationKey, encapsulate};
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(super) use rust_crypto::{DecapsulationKey, encapsulate};
pub(super) use types::{CIPHERTEXT, ENCAPSULATION_KEY, EncapsulationKey, KemError};

/// Does what the first key exchange of a process would wait for, up to a tenth of a second:
/// AWS-LC tests itself when ML-KEM is used first.
pub fn warm_up<R: TryCryptoRng + ?Sized>(random: &mut R) {
    // What fails here fails again when it is needed.
    if let Ok((key, public)) = DecapsulationKey::generate(random)
        && let Ok((ciphertext, _)) = encapsulate(&public, random)
    {
        drop(key.decapsulate(&ciphertext));
    }
}

#[cfg(test)]
mod wycheproof;

#[cfg(test)]
mod tests {
    use rand::rngs::SysRng;

    use super::*;

    #[test]
    fn both_ends_have_one_secret() {
        let (key, public) = DecapsulationKey::generate(&mut SysRng).unwrap();
        let (ciphertext, secret) = encapsulate(&public, &mut SysRng).unwrap();
        assert_eq!(key.decapsulate(&ciphertext), secret);
    }

    /// Implicit rejection (FIPS 203, section 6.3): there is a secret, and it is another one.
    #[test]
    fn a_wrong_ciphertext_gives_another_secret_and_always_the_same() {
        let (key, public) = DecapsulationKey::generate(&mut SysRng).unwrap();
        let (mut ciphertext, secret) = encapsulate(&public, &mut SysRng).unwrap();
        ciphertext[17] ^= 1;
        let other = key.decapsulate(&ciphertext);
        assert_ne!(other, secret);
        assert_eq!(key.decapsulate(&ciphertext), other);
    }

    /// Each three bytes have two of the 768 coefficients, and the modulus is 0xd01.
    #[test]
    fn h2_a_key_with_a_coefficient_above_the_modulus_is_refused() {
        let with = |at: usize, bytes: [u8; 3]| {
            let mut key = [0; ENCAPSULATION_KEY];
            key[at..at + 3].copy_from_slice(&bytes);
            encapsulate(&key, &mut SysRng).map(|_| ())
        };
        for at in [0, 384, 1149] {
            assert_eq!(with(at, [0x00, 0x0d, 0x00]), Ok(()), "{at}");
            assert_eq!(with(at, [0x00, 0x00, 0xd0]), Ok(()), "{at}");
            assert_eq!(with(at, [0x01, 0x0d, 0x00]), Err(KemError::InvalidKey), "{at}");
            assert_eq!(with(at, [0x00, 0x10, 0xd0]), Err(KemError::InvalidKey), "{at}");
            assert_eq!(with(at, [0xff; 3]), Err(KemError::InvalidKey), "{at}");
        }
        // Behind the coefficients is a seed, of any bytes.
        assert_eq!(with(1152, [0xff; 3]), Ok(()));
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn aws_lc_and_rust_crypto_agree() {
        for _ in 0..20 {
            let (ours, our_key) = DecapsulationKey::generate(&mut SysRng).unwrap();
            let (theirs, their_key) = rust_crypto::DecapsulationKey::generate(&mut SysRng).unwrap();
            let (a, secret_a) = encapsulate(&their_key, &mut SysRng).unwrap();
            let (b, secret_b) = rust_crypto::encapsulate(&our_key, &mut SysRng).unwrap();
            assert_eq!((theirs.decapsulate(&a), ours.decapsulate(&b)), (secret_a, secret_b));
            let expanded = DecapsulationKey::expanded(&theirs);
            // What is rejected implicitly is as equal.
            for wrong in [a, b, Box::new([0; CIPHERTEXT])] {
                assert_eq!(expanded.decapsulate(&wrong), theirs.decapsulate(&wrong));
            }
        }
    }
}
