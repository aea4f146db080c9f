//! Completions, as the shells themselves report them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::manual::options_of;
use crate::support::{Folder, SPIPED, need};

const NAMES: [&str; 2] = ["spiped", "spipe"];

/// The script for a shell and a name of the program.
fn script(shell: &str, name: &str) -> String {
    let output = Command::new(SPIPED).args(["completions", shell, name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words that a shell prints for this input.
fn words(shell: &[&str], line: &str) -> BTreeSet<String> {
    let output = Command::new(shell[0]).args(&shell[1..]).args(["-c", line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(String::from).collect()
}

#[test]
fn bash_completes_every_option_and_subcommand() {
    let folder = Folder::new();
    let completed = |name: &str, typed: &str| {
        let file = folder.path("completions");
        fs::write(&file, script("bash", name)).unwrap();
        let file = file.display();
        let line: Vec<_> = [&[name], &*typed.split(' ').collect::<Vec<_>>()].concat();
        let (count, last, before) = (line.len() - 1, line[line.len() - 1], line[line.len() - 2]);
        // readline calls the registered function, with these variables.
        let line = format!(
            "source {file} && function=$(complete -p {name} | sed 's/.* -F \\([^ ]*\\).*/\\1/') && \
             COMP_WORDS=({name} {typed}) COMP_CWORD={count} && \
             $function {name} '{last}' '{before}' && \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        words(&["bash", "--norc"], &line)
    };
    for (name, program) in [("spiped", Path::new(SPIPED).to_owned()), ("spipe", folder.spipe())] {
        assert_eq!(completed(name, "-"), options_of(&program, ""), "{name}");
    }
    assert_eq!(completed("spiped", "--drain"), ["--drain-timeout".to_owned()].into());
    assert_eq!(completed("spiped", "keyg"), ["keygen".to_owned()].into());
    assert_eq!(completed("spiped", "--log-format j"), ["json".to_owned()].into());
    assert_eq!(completed("spipe", "--cipher ae"), ["aes-256-gcm".to_owned()].into());
    assert_eq!(completed("spipe", "--kex x25519m"), ["x25519mlkem768".to_owned()].into());
    let of_handover = ["-h", "--help"].map(str::to_owned).into();
    assert_eq!(completed("spiped", "handover -"), of_handover);
}

#[test]
fn fish_completes_options_and_subcommands() {
    need("fish", "fish");
    let folder = Folder::new();
    for name in NAMES {
        fs::write(folder.path(name), script("fish", name)).unwrap();
    }
    let completed = |name: &str, typed: &str| {
        let file = folder.path(name);
        // A line is a word and, after a tab, its description.
        let line = format!(
            "source {}; complete -C '{name} {typed}' | string split -f 1 \\t",
            file.display()
        );
        words(&["fish", "--no-config"], &line)
    };
    assert_eq!(completed("spiped", "--drain"), ["--drain-timeout".to_owned()].into());
    assert_eq!(completed("spiped", "keyg"), ["keygen".to_owned()].into());
    assert_eq!(completed("spipe", "--tar"), ["--target".to_owned()].into());
}

#[test]
fn zsh_loads_completions_by_their_names() {
    need("zsh", "zsh");
    let folder = Folder::new();
    for name in NAMES {
        fs::write(folder.path(&format!("_{name}")), script("zsh", name)).unwrap();
        words(&["zsh", "-f", "-n"], &script("zsh", name));
    }
    let line = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; \
         print $_comps[spiped] $_comps[spipe]; autoload +X -Uz _spiped _spipe",
        folder.path("").display()
    );
    assert_eq!(words(&["zsh", "-f"], &line), NAMES.map(|name| format!("_{name}")).into());
}

#[test]
fn an_unknown_shell_is_refused_with_those_that_are_known() {
    let output = Command::new(SPIPED).args(["completions", "csh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("bash, fish, zsh"), "{said}");
}
