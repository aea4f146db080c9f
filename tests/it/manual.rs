//! The manual pages are well formed and agree with the program. src/config/tests.rs tests
//! what they say about options.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spiped::protocol::{AbortReason, Suite};

use crate::support::need;

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

/// A page, formatted for a terminal of 80 columns.
fn rendered(page: &Path) -> String {
    let mut mandoc = Command::new("mandoc");
    let output = mandoc.args(["-T", "utf8", "-O", "width=80"]).arg(page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // mandoc prints bold as a character, a backspace, and the character again.
    let mut seen = String::new();
    for character in text.chars() {
        match character {
            '\u{8}' => drop(seen.pop()),
            other => seen.push(other),
        }
    }
    seen
}

#[test]
fn no_line_of_a_page_is_wider_than_a_terminal() {
    need("mandoc", "mandoc");
    for page in fs::read_dir(project("man")).unwrap() {
        let page = page.unwrap().path();
        let text = rendered(&page);
        assert!(text.lines().count() > 50, "{text}");
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{}: {wide:#?}", page.display());
    }
}

/// Examples come before the options, and `setup` before all other commands.
#[test]
fn the_manual_begins_with_setup_and_examples() {
    let manual = read("man/spiped.1");
    let place = |text: &str| manual.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(manual.contains(".Sh SYNOPSIS\n.Nm\n.Cm setup\n"));
    assert!(place(".Ss Examples\n") < place(".Sh OPTIONS\n"));
    assert!(place("\nspiped setup receive") < place("\nspiped -F -d"));
}

/// The options that the --help of a program, or of one of its commands, lists.
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
    // A line of an example may begin with an option.
    let options = options.split("\nExample").next().unwrap();
    let is_option = |word: &&str| word.starts_with('-');
    options
        .lines()
        .flat_map(|line| line.split_whitespace().take_while(is_option))
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

/// The manual explains the log's messages about connections, word for word.
#[test]
fn the_manual_explains_why_connections_end() {
    let manual = read("man/spiped.1");
    let source = REASONS.map(read).concat();
    let texts: Vec<_> = source
        .split("#[error(")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(texts.len() > 20, "{texts:?}");
    for text in texts {
        // The text before the first value is enough to find the message.
        let known = text.split('{').next().unwrap();
        assert!(manual.contains(&format!("\n.It {known}")), "{text}");
    }
}

/// The files that define the reasons for the end of a connection.
const REASONS: [&str; 5] = [
    "src/daemon/connection/close_reason.rs",
    "src/daemon/connection/handshake_error.rs",
    "src/daemon/connection/not_allowed.rs",
    "src/daemon/net/connect_error.rs",
    "src/daemon/relay/error.rs",
];

#[test]
fn the_manual_lists_every_name_of_a_reason_and_no_other() {
    let source = REASONS.map(read).concat();
    let names = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    let names: BTreeSet<_> = names.filter(|name| !name.contains(' ')).collect();
    let manual = read("man/spiped.1");
    let (_, table) = manual.split_once(".Ss Reasons\n").unwrap();
    let table = table.split("\n.Ss ").next().unwrap();
    let listed: Vec<_> = table.lines().filter_map(|line| line.strip_prefix(".It Cm ")).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), names);
    assert!(names.len() == listed.len() && names.len() > 40, "{listed:?}");
}

/// Another implementation has nothing but this page.
#[test]
fn the_page_of_the_protocol_has_every_suite_and_every_reason_of_an_abort() {
    let page = read("man/spiped-protocol.7");
    let item = |suite: &Suite| {
        let (byte, name) = (suite.byte(), suite.noise_name());
        format!(".It {byte:#04x} Ta {name} Ta {} Ta {}", suite.message_1(), suite.message_2())
    };
    let listed: Vec<_> = page.lines().filter(|line| line.starts_with(".It 0x")).collect();
    assert_eq!(listed, Suite::ALL.iter().map(item).collect::<Vec<_>>());
    let (_, reasons) = page.split_once(".Bl -tag -width 10n -compact\n").unwrap();
    let reasons = reasons.split("\n.El").next().unwrap();
    let listed: Vec<u8> =
        reasons.lines().filter_map(|line| line.strip_prefix(".It ")?.parse().ok()).collect();
    let is_known = |byte: &u8| !matches!(AbortReason::from_byte(*byte), AbortReason::Other(1..));
    assert_eq!(listed, (0..=255).filter(is_known).collect::<Vec<_>>());
}

/// The example of a carrier is the conversation of the vectors.
#[test]
fn the_page_of_the_protocol_has_the_records_of_the_vectors() {
    let page = read("man/spiped-protocol.7");
    let (_, example) = page.split_once(".Ss Examples\n").unwrap();
    let (_, example) = example.split_once(".Bd -literal\n").unwrap();
    let example = example.split("\n.Ed").next().unwrap();
    // Behind the names, which end at the same column in each line.
    let column = example.find("07\n").unwrap();
    let shown: String = example.lines().map(|line| line[column..].replace(' ', "")).collect();
    let vectors: serde_json::Value =
        serde_json::from_str(&read("tests/vectors/carrier.json")).unwrap();
    let records = vectors["records"].as_array().unwrap();
    let plaintexts: String =
        records.iter().map(|record| record["plaintext"].as_str().unwrap()).collect();
    assert_eq!(shown, plaintexts);
}

/// Programs depend on the columns, and people on the example.
#[test]
fn the_page_of_status_has_the_columns_that_there_are() {
    let page = read("man/spiped-status.1");
    let names = |source: &str, start: &str| {
        let (_, list) = source.split_once(start).unwrap();
        let list = list.split("\n];").next().unwrap();
        list.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let (_, told) = page.split_once(".Sh COLUMNS FOR PROGRAMS\n").unwrap();
    let told = told.split("\n.Sh ").next().unwrap();
    let tab = read("src/status/tab.rs");
    let processes = names(&tab, "const PROCESSES: ");
    let listed = told.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    assert_eq!(listed.flat_map(|line| line.split(" , ")).collect::<Vec<_>>(), processes);
    let (_, told) = told.split_once("the columns are\n").unwrap();
    let listed = told.split(".Sh ").next().unwrap().lines();
    let listed = listed.filter_map(|line| line.strip_prefix(".Cm "));
    let listed: Vec<_> = listed.flat_map(str::split_whitespace).filter(|it| it.len() > 1).collect();
    assert_eq!(listed, names(&tab, "const CONNECTIONS: "));

    let overview = names(&read("src/status/text.rs"), "const OVERVIEW: ");
    let (_, example) = page.split_once(".Bd -literal\nNAME ").unwrap();
    let shown: Vec<_> = example.lines().next().unwrap().split_whitespace().collect();
    let known: Vec<_> = overview.iter().filter(|it| shown.contains(&&it[..])).collect();
    assert_eq!(known, shown);
    assert!(overview.iter().all(|name| page.contains(name.as_str())), "{overview:?}");
}

/// `spiped setup` and systemd depend on these codes.
#[test]
fn the_manual_and_the_units_have_the_exit_codes_that_there_are() {
    let report = read("src/report.rs");
    let (_, codes) = report.split_once("pub(crate) mod exit {").unwrap();
    let codes = codes.split(": u8 = ").skip(1);
    let codes: BTreeSet<u8> =
        codes.map(|rest| rest.split(';').next().unwrap().parse().unwrap()).collect();
    assert!(codes.len() > 10, "{codes:?}");
    let manual = read("man/spiped.1");
    let (_, status) = manual.split_once(".Sh EXIT STATUS\n").unwrap();
    let status = status.split("\n.Sh ").next().unwrap();
    let numbers = status.lines().filter_map(|line| line.strip_prefix(".It "));
    let told: BTreeSet<u8> = numbers.filter_map(|number| number.parse().ok()).collect();
    assert_eq!(told.iter().copied().filter(|code| *code >= 64).collect::<BTreeSet<_>>(), codes);
    for unit in ["receive", "receive@", "send", "send@"] {
        let unit = read(&format!("systemd/spiped-{unit}.service"));
        let force = unit.lines().find_map(|line| line.strip_prefix("RestartForceExitStatus="));
        // A panic ends with a code of the runtime's own.
        let restarted: Vec<u8> =
            force.unwrap().split(' ').map(|code| code.parse().unwrap()).collect();
        assert!(restarted.iter().all(|code| codes.contains(code) || *code == 101));
    }
}

/// Jobs depend on the names of findings.
#[test]
fn the_page_of_check_has_every_finding_and_no_other() {
    let source = read("src/check/all/findings.rs");
    let names = source.split(" => \"").skip(1).filter_map(|rest| rest.split('"').next());
    let names: Vec<_> = names.filter(|name| !name.contains(' ')).collect();
    let page = read("man/spiped-check.1");
    let (_, section) = page.split_once("The names do not change:\n").unwrap();
    let section = section.split("\n.El").next().unwrap();
    let listed: Vec<_> = section.lines().filter_map(|it| it.strip_prefix(".It Cm ")).collect();
    assert!(listed == names && names.len() > 10, "{listed:?} {names:?}");
}
