//! The manual pages: well formed, and true to the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Folder, SPIPED, need};

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
fn the_manuals_have_every_option_and_no_other() {
    let folder = Folder::new();
    let setup = ["", "setup receive", "setup send", "setup pair", "setup remove"];
    let programs = [
        (Path::new(SPIPED).to_owned(), "man/spiped.1", "--source", setup.as_slice()),
        (folder.spipe(), "man/spipe.1", "--target", &[""]),
    ];
    for (program, page, known, commands) in programs {
        let in_help: BTreeSet<_> =
            commands.iter().flat_map(|command| options_of(&program, command)).collect();
        assert!(in_help.contains(known), "{in_help:?}");
        let manual = read(page);
        let described = flags(manual.lines().filter(|line| line.starts_with(".It ")));
        assert_eq!(described, in_help, "described in {page}, and printed by --help");
        let mentioned = flags(manual.lines().filter(|line| line.starts_with('.')));
        assert_eq!(mentioned, in_help, "mentioned in {page}, and printed by --help");
    }
}

/// The options that the --help of a program, or of a command of it, lists.
pub fn options_of(program: &Path, command: &str) -> BTreeSet<String> {
    let mut program = Command::new(program);
    let help = program
        .args(command.split_whitespace())
        .arg("--help")
        .env("COLUMNS", "200")
        .output()
        .unwrap()
        .stdout;
    let help = String::from_utf8(help).unwrap();
    let (_, options) = help.split_once("\nOptions:\n").unwrap();
    // An example may have a line that begins with an option.
    let options = options.split("\nExample").next().unwrap();
    let is_option = |word: &&str| word.starts_with('-');
    options
        .lines()
        .flat_map(|line| line.split_whitespace().take_while(is_option))
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

/// The options marked as such in lines of mdoc, where `-s` is `Fl s`.
fn flags<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines {
        let words: Vec<_> = line.trim_start_matches('.').split(' ').collect();
        for pair in words.windows(2) {
            match pair {
                // As in `Op Fl gj`: several that have no value.
                ["Fl", names] if words[0] == "Op" && !names.starts_with('-') => {
                    found.extend(names.chars().map(|name| format!("-{name}")));
                }
                ["Fl", name] => drop(found.insert(format!("-{name}"))),
                _ => {}
            }
        }
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
