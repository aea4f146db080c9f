//! Noise's DH functions (section 4.1) with X25519 (RFC 7748).
//!
//! There are two implementations of `PrivateKey`, as of the ciphers. The tests compare the
//! two.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(all(feature = "rust-crypto", not(feature = "aws-lc")), test))]
mod dalek;
#[cfg(test)]
mod wycheproof;

#[cfg(feature = "aws-lc")]
pub(super) use aws_lc::PrivateKey;
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(super) use dalek::PrivateKey;

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of small order, with which DH is all zeros (RFC 7748, section 6.1): 0, 1,
    /// p - 1, p, p + 1, and the two of order 8.
    fn small_order() -> [[u8; 32]; 7] {
        const LAST: u128 = u128::MAX - 0x80;
        [
            [0, 0],
            [1 << 120, 0],
            [0xecff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, LAST],
            [0xedff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, LAST],
            [0xeeff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, LAST],
            [0xe0eb_7a7c_3b41_b8ae_1656_e3fa_f19f_c46a, 0xda09_8deb_9c32_b1fd_8662_0516_5f49_b800],
            [0x5f9c_95bc_a350_8c24_b1d0_b155_9c83_ef5b, 0x0444_5cc4_581c_8e86_d822_4edd_d09f_1157],
        ]
        .map(|halves| halves.map(u128::to_be_bytes).as_flattened().try_into().unwrap())
    }

    #[test]
    fn points_of_small_order_give_no_secret() {
        for point in small_order() {
            assert!(PrivateKey::new(&[3; 32]).agree(&point).is_none(), "{point:02x?}");
        }
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn aws_lc_and_dalek_agree() {
        // Some have the top bit set, which is ignored; the last one is above p.
        let peers = (0..=255).step_by(5).map(|byte| [byte; 32]);
        for (peer, secret) in peers.chain(small_order()).zip(0..) {
            let ours = PrivateKey::new(&[secret; 32]);
            let theirs = dalek::PrivateKey::new(&[secret; 32]);
            assert_eq!(ours.public(), theirs.public(), "secret {secret}");
            let (a, b) = (ours.agree(&theirs.public()), theirs.agree(&ours.public()));
            assert!(a.is_some() && a == b, "secret {secret}");
            assert_eq!(ours.agree(&peer), theirs.agree(&peer), "secret {secret}, {peer:02x?}");
        }
    }
}
