//! `hostile`: it attacks, its clients are served, and it says so. The times of such a short
//! run mean nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends that way")]
#![allow(clippy::indexing_slicing, reason = "a test ends that way")]

use std::path::Path;
use std::process::Command;

#[test]
fn an_attack_is_made_and_no_client_fails() {
    let hostile = env!("CARGO_BIN_EXE_hostile");
    let spiped = Path::new(hostile).with_file_name("spiped");
    assert!(spiped.exists(), "build it first, as cargo nextest run --workspace does");
    let options = ["--rounds", "1", "--seconds", "0.3", "--rate", "300", "--clients", "30"];
    let ran = Command::new(hostile).arg(spiped).args(options).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let told = String::from_utf8(ran.stdout).unwrap();
    let rows = |load: &str| told.lines().filter(|line| line.contains(load)).collect::<Vec<_>>();
    for (load, count) in [(" nothing ", 2), (" no message ", 2), (" attack ", 4)] {
        let rows = rows(load);
        assert_eq!(rows.len(), count, "{told}");
        // From the right, since a load may have several words: clients, failed, and six more.
        let fields = rows.iter().map(|row| row.split_whitespace().rev().nth(6).unwrap());
        assert!(fields.clone().all(|failed| failed == "0"), "{told}");
    }
    assert_eq!(rows(" x25519").len(), 8, "{told}");
    for keys in ["1 keys, log: ", "1000 keys, log: "] {
        let counts = told.lines().find(|line| line.starts_with(keys)).unwrap();
        for reason in ["not-our-protocol", "replay", "wrong-key"] {
            assert!(counts.contains(reason), "{told}");
        }
    }
}
