//! What `--help` shows: short enough to be read, and true where it can be run.

use std::path::Path;
use std::process::Command;

use crate::support::{Daemon, Folder, SPIPED, Server, round_trip};

/// The commands that have a help of their own; the empty one is the program itself.
const COMMANDS: [&str; 19] = [
    "",
    "check",
    "config-check",
    "keygen",
    "keyid",
    "rekey",
    "revoke",
    "status",
    "handover",
    "unit-check",
    "setup",
    "setup receive",
    "setup send",
    "setup pair",
    "setup client",
    "setup revoke",
    "setup rotate",
    "setup remove",
    "completions",
];

/// The help of a program, or of one of its commands, in a terminal of 80 columns.
fn help(program: &Path, command: &str) -> String {
    let mut program = Command::new(program);
    program.args(command.split_whitespace()).arg("--help");
    let output = program.env("COLUMNS", "80").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn all_helps() -> Vec<String> {
    let spiped = COMMANDS.map(|command| help(Path::new(SPIPED), command));
    [spiped.to_vec(), vec![help(&Folder::new().spipe(), "")]].concat()
}

#[test]
fn help_is_dense_and_fits_a_terminal() {
    for help in all_helps() {
        assert!(help.lines().count() <= 100, "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "too wide: {line}\n{help}");
        }
        assert!(!help.contains("[env"), "{help}");
        // Options stand in blocks, with no blank line between two of them.
        assert!(!help.contains("\n\n  -") && !help.contains("\n\n      --"), "{help}");
    }
}

#[test]
fn help_has_the_common_options_first_and_those_of_spiped_1_6_last() {
    let folder = Folder::new();
    let common =
        [(Path::new(SPIPED).to_owned(), "-e -d -s -t -k -v -h"), (folder.spipe(), "-t -k -v -h")];
    for (program, common) in common {
        let help = help(&program, "");
        let options: Vec<_> = help
            .lines()
            .filter_map(|line| line.strip_prefix("  -")?.split([',', ' ']).next())
            .map(|name| format!("-{name}"))
            .collect();
        assert!(options.join(" ").starts_with(common), "{options:?}");
        assert_eq!(options[options.len() - 2..], ["-g", "-f"]);
    }
}

#[test]
fn help_names_the_manual_and_begins_with_setup() {
    let help = help(Path::new(SPIPED), "");
    assert!(help.contains("\nUsage: spiped setup ") && help.contains("\nCommands:\n  setup "));
    for help in all_helps().iter().filter(|help| help.contains("\nExample")) {
        assert!(help.contains("\nThe manual: man spipe"), "{help}");
    }
}

/// The test replaces the addresses of the example by addresses of this machine.
#[test]
fn the_example_of_the_help_carries_what_is_sent() {
    let help = help(Path::new(SPIPED), "");
    let (_, example) = help.split_once("\nExample: ").unwrap();
    let mut commands = example.lines().filter_map(|line| line.strip_prefix("  spiped "));
    let mut next = || commands.next().unwrap();
    let folder = Folder::new();
    let in_folder = |line: &str, server: &str, receiver: &str| {
        let line = line.replace("-s 10.0.0.5:6379", "-s 127.0.0.1:0");
        let line = line.replace("-s 127.0.0.1:8000", "-s 127.0.0.1:0");
        let line = line.replace("-t 127.0.0.1:6379", &format!("-t {server}"));
        let line = line.replace("-t 10.0.0.5:6379", &format!("-t {receiver}"));
        let mut command = Command::new(SPIPED);
        command.args(line.split(' ')).current_dir(folder.path(""));
        command
    };
    // Every folder of a test already has a key of this name.
    std::fs::remove_file(folder.shared_key()).unwrap();
    assert!(in_folder(next(), "", "").status().unwrap().success());
    let server = Server::echo();
    let receiver = Daemon::spawn(in_folder(next(), &server.address.to_string(), ""));
    let sender = Daemon::spawn(in_folder(next(), "", &receiver.address.to_string()));
    round_trip(&mut sender.connect(), b"by the example");
}

/// The last command of each example, as far as it works without systemd.
#[test]
fn the_examples_of_setup_are_commands_that_it_takes() {
    let folder = Folder::new();
    for command in ["setup receive", "setup send", "setup pair"] {
        let help = help(Path::new(SPIPED), command);
        let help = help.replace("\\\n", " ");
        let typed = help.lines().find_map(|line| line.trim_start().strip_prefix("sudo spiped "));
        let typed = typed.unwrap();
        assert!(typed.starts_with(command), "{typed}");
        let mut spiped = Command::new(SPIPED);
        // A key file stands in for the key that comes from the other host.
        let key = folder.shared_key().display().to_string();
        let words = typed.split_whitespace().map(|word| if word == "-" { &key } else { word });
        let output = spiped.args(words).arg("--dry-run").output().unwrap();
        assert!(output.status.success(), "{typed}: {output:?}");
    }
}
