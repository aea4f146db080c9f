//! What strangers, operators and the other end can say, said by a fuzzer.
//!
//! Each target is a function that takes any bytes and asserts what must hold whatever
//! they are. `scripts/fuzz` has libFuzzer look for bytes with which it does not; what
//! it found worth keeping is in `fuzz/corpus/`, and the tests run that, too.
//!
//! The same bytes always do the same: what is random elsewhere comes from [`Seeded`].
//! The program behaves here as it does elsewhere; only this module, and what hands it
//! parts of the protocol, is compiled for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "a target fails that way"
)]

mod carrier;
mod carrier_hostile;
mod handshake;
pub(crate) mod input;
mod keys;
mod opener;
mod words;

pub use self::carrier::carrier;
pub use self::carrier_hostile::carrier_hostile;
pub use self::handshake::{message_1, message_2};
pub use self::keys::key;
pub use self::opener::opener;
pub use self::words::{address, config, words};
pub use crate::daemon::fuzzing::{control, relay};

/// A target: its name in `fuzz/`, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All there are.
pub const TARGETS: [Target; 11] = [
    ("address", address),
    ("carrier", carrier),
    ("carrier_hostile", carrier_hostile),
    ("config", config),
    ("control", control),
    ("key", key),
    ("message_1", message_1),
    ("message_2", message_2),
    ("opener", opener),
    ("relay", relay),
    ("words", words),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::input::{Input, Seeded};
    use super::*;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    /// What stands in a folder.
    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(folder).into_iter().map(name).collect()
    }

    #[test]
    fn each_target_can_be_fuzzed_and_has_a_corpus() {
        let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&folder("fuzz_targets")), targets);
        assert_eq!(names(&folder("corpus")), targets);
        let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in targets {
            let line = format!("name = \"{name}\"");
            assert!(manifest.lines().any(|given| given == line), "{name} is not in Cargo.toml");
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "shown where it fails")]
    fn all_that_fuzzers_have_found_is_handled() {
        for (name, target) in TARGETS {
            let files = entries(&folder("corpus").join(name));
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                println!("{}", file.display());
                target(&fs::read(file).unwrap());
            }
        }
    }

    #[test]
    fn the_same_bytes_do_the_same() {
        let random = |data: &[u8]| Seeded::new(data).array::<100>();
        assert_eq!(random(b"a"), random(b"a"));
        assert_ne!(random(b"a"), random(b"b"));
        let mut input = Input::new(&[1, 2, 3]);
        assert_eq!((input.number(), input.byte(), input.byte()), (0x0102, 3, 0));
        assert!(input.is_over());
    }
}
