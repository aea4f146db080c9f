//! The texts for developers: everything that they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of the repository with this extension, by their paths from the root.
fn files(extension: &str) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    found
}

/// A text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The names of all tests: each is the first function after a test attribute.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in files("rs").values() {
        let mut lines = source.lines().map(str::trim_start);
        let is_attribute = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
        while lines.any(is_attribute) {
            let name = lines.find_map(|line| line.split_once("fn ")?.1.split('(').next()).unwrap();
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn every_promise_has_its_tests() {
    let security = &files("md")[Path::new("SECURITY.md")];
    let (_, table) = security.split_once("| promise | tests |\n|---|---|\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let tests = tests();
    assert!(table.lines().count() > 20, "{table}");
    for row in table.lines() {
        let [_, _promise, cell, _] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("not two cells: {row}");
        };
        let named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            assert!(tests.contains(name), "SECURITY.md names no test: {name}");
        }
    }
}

/// Such as H1, which the page about the protocol defines, and tests name as `h1_…`.
#[test]
fn every_rule_of_the_protocol_has_a_test_that_names_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/spiped-protocol.7");
    let page = fs::read_to_string(page).unwrap();
    let words = page.split(|character: char| !character.is_ascii_alphanumeric());
    let is_rule = |word: &&str| match word.as_bytes() {
        [group, number] => b"HRX".contains(group) && number.is_ascii_digit(),
        _ => false,
    };
    let rules: BTreeSet<_> = words.filter(is_rule).collect();
    assert!(rules.len() > 10, "{rules:?}");
    let tests = tests();
    for rule in rules {
        let begin = format!("{}_", rule.to_lowercase());
        assert!(tests.iter().any(|name| name.starts_with(&begin)), "no test names {rule}");
    }
}

/// The anchors of a text's headings, as websites make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn the_links_of_every_text_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = files("md");
    let mut count = 0;
    for (path, text) in &texts {
        let text = prose(text);
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(root.join(&target).exists(), "{}: {link}", path.display());
            let is_known = || anchors(&prose(&texts[&target])).iter().any(|known| known == anchor);
            assert!(anchor.is_empty() || is_known(), "{}: {link}", path.display());
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// Every folder of `src/` that a text names, such as the table in CONTRIBUTING.md.
#[test]
fn every_folder_that_a_text_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for (path, text) in &files("md") {
        let text = prose(text);
        let words = text.split('`').skip(1).step_by(2);
        for folder in words.filter(|word| word.starts_with("src/") && word.ends_with('/')) {
            assert!(root.join(folder).is_dir(), "{}: {folder}", path.display());
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

/// The changelog may name older versions.
#[test]
fn every_text_names_the_same_minimum_rust_version() {
    let mut texts = files("md");
    texts.remove(Path::new("CHANGELOG.md")).unwrap();
    for (path, text) in &texts {
        for named in text.split("Rust 1.").skip(1) {
            let named = named.split(|c: char| !c.is_ascii_digit()).next().unwrap();
            assert_eq!(format!("1.{named}"), env!("CARGO_PKG_RUST_VERSION"), "{}", path.display());
        }
    }
    for path in ["README.md", "CONTRIBUTING.md"] {
        assert!(texts[Path::new(path)].contains("Rust 1."), "{path}");
    }
}

/// Weaknesses are reported to this address: it must reach somebody.
#[test]
fn only_an_alpha_has_no_address_of_a_maintainer() {
    let manifest = &files("toml")[Path::new("Cargo.toml")];
    let (_, maintainer) = manifest.split_once("\nmaintainer = \"").unwrap();
    let (maintainer, _) = maintainer.split_once('"').unwrap();
    let is_alpha = env!("CARGO_PKG_VERSION").contains("-alpha");
    assert!(is_alpha || !maintainer.contains(".example>"), "{maintainer}");
}
