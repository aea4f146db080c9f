//! HKDF-SHA256 (RFC 5869), the only key derivation there is here.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

/// Fills `out` with `HKDF-SHA256(salt, ikm, info)`.
///
/// Noise's own HKDF (section 4.3) is the same with an empty `info`.
pub(super) fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8], out: &mut [u8]) {
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), ikm);
    prk.as_mut_slice().zeroize();
    if hkdf.expand(info, out).is_err() {
        unreachable!("HKDF-SHA256 gives 8160 bytes, here at most 96 are asked for");
    }
}
