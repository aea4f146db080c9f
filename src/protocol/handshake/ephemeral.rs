//! The X25519 keys of one handshake.

use rand::TryCryptoRng;
use zeroize::Zeroizing;

use super::error::HandshakeError;
use crate::protocol::dh::PrivateKey;

/// `GENERATE_KEYPAIR()`; the secret is wiped when dropped.
pub(super) fn generate_keypair<R: TryCryptoRng + ?Sized>(
    random: &mut R,
) -> Result<PrivateKey, HandshakeError> {
    let mut bytes = Zeroizing::new([0; 32]);
    random.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| HandshakeError::Randomness)?;
    Ok(PrivateKey::new(&bytes))
}

/// `DH(e, re)`; an all-zero result ends the handshake (RFC 7748, section 6.1).
pub(super) fn diffie_hellman(
    e: &PrivateKey,
    re: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
    e.agree(re).ok_or(HandshakeError::DegenerateKey)
}
