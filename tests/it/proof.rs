//! The symbolic proof of the handshake: tests/proof.

use std::process::Command;

use crate::support::hosts::project;
use crate::support::need;

/// Every claim holds for any number of sessions, and every control fails as it must.
#[test]
fn the_handshake_is_proved() {
    need("python3", "python3");
    need("eprover", "eprover");
    let proof = Command::new(project("tests/proof/run")).output().unwrap();
    let table = String::from_utf8_lossy(&proof.stdout);
    let errors = String::from_utf8_lossy(&proof.stderr);
    assert!(proof.status.success(), "{table}{errors}");
    // An empty table would prove nothing.
    assert!(table.ends_with(" passed, 0 failed\n"), "{table}{errors}");
}
