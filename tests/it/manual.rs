//! The manual pages: well formed, and true to the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{SPIPED, need};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

#[test]
fn mandoc_finds_nothing_wrong_with_any_page() {
    need("mandoc", "mandoc");
    let pages: Vec<_> =
        fs::read_dir(project("man")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!pages.is_empty());
    for page in pages {
        let lint = Command::new("mandoc").args(["-Tlint", "-W", "style"]).arg(&page).output();
        let lint = lint.unwrap();
        let said = String::from_utf8([lint.stdout, lint.stderr].concat()).unwrap();
        assert!(lint.status.success() && said.is_empty(), "{said}");
    }
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    let help = Command::new(SPIPED).arg("--help").env("COLUMNS", "200").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let (_, options) = help.split_once("\nOptions:\n").unwrap();
    let in_help: BTreeSet<_> = options
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('-'))
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect();
    assert!(in_help.contains("-s") && in_help.contains("--source"), "{in_help:?}");

    let manual = read("man/spiped.1");
    let described = flags(manual.lines().filter(|line| line.starts_with(".It ")));
    assert_eq!(described, in_help, "described in the manual, and printed by --help");
    let mentioned = flags(manual.lines().filter(|line| line.starts_with('.')));
    assert_eq!(mentioned, in_help, "mentioned in the manual, and printed by --help");
}

/// The options marked as such in lines of mdoc, where `-s` is `Fl s`.
fn flags<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines {
        let words: Vec<_> = line.trim_start_matches('.').split(' ').collect();
        found.extend(words.windows(2).filter_map(|pair| match pair {
            ["Fl", name] => Some(format!("-{name}")),
            _ => None,
        }));
    }
    found
}

/// What the log says of a connection is explained, word for word.
#[test]
fn the_manual_explains_why_connections_end() {
    let manual = read("man/spiped.1");
    let source = read("src/daemon/close.rs");
    let texts: Vec<_> = source
        .split("#[error(")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(texts.len() > 20, "{texts:?}");
    for text in texts {
        // What stands before the first value is enough to find it by.
        let known = text.split('{').next().unwrap();
        assert!(manual.contains(&format!("\n.It {known}")), "{text}");
    }
}
