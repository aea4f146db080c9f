//! HKDF-SHA256 (RFC 5869), the only key derivation of the protocol.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

/// How many words of the stack are wiped: 4 KiB, more than a derivation uses.
const STACK: usize = 512;

/// Fills `out` with `HKDF-SHA256(salt, ikm, info)`.
///
/// Noise's own HKDF (section 4.3) is the same with an empty `info`.
pub(super) fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8], out: &mut [u8]) {
    derive(salt, ikm, info, out);
    wipe_stack();
}

/// Derives in a stack frame of its own, which [`wipe_stack`] wipes.
#[inline(never)]
fn derive(salt: &[u8], ikm: &[u8], info: &[u8], out: &mut [u8]) {
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), ikm);
    prk.as_mut_slice().zeroize();
    if hkdf.expand(info, out).is_err() {
        unreachable!("HKDF-SHA256 gives 8160 bytes, here at most 96 are asked for");
    }
}

/// Wipes what the call before it has left on the stack: the hashes wipe themselves, but
/// not the memory that they were moved from.
#[inline(never)]
pub(super) fn wipe_stack() {
    let mut below = [0_u64; STACK];
    below.zeroize();
}
