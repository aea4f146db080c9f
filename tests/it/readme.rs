//! README: its session, its pages, and what it says about the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::net::{Net, namespaces_can_be};
use crate::support::{Folder, SPIPED, need, wait_until};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn readme() -> String {
    fs::read_to_string(project("README.md")).unwrap()
}

/// Runs the session on one host where its ports are free; the output is as shown,
/// except the key's id.
#[test]
fn the_session_of_the_readme_is_as_it_is_shown() {
    if !namespaces_can_be("README's session") {
        return;
    }
    need("redis-server", "redis-server");
    let readme = readme();
    let (_, session) = readme.split_once("```console\n").unwrap();
    let (session, _) = session.split_once("```").unwrap();
    let commands: Vec<_> = session.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(commands.len() > 4, "{session}");

    let folder = Folder::new();
    fs::remove_file(folder.shared_key()).unwrap();
    let log = folder.path("redis.log");
    let path = format!("{}:{}", Path::new(SPIPED).parent().unwrap().display(), env!("PATH"));
    let shown = Net::new().enter(|| {
        let mut redis = Command::new("redis-server")
            .args(["--port", "6379", "--save", "", "--logfile"])
            .arg(&log)
            .current_dir(folder.path(""))
            .spawn()
            .unwrap();
        wait_until("redis listens", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("Ready to accept"))
        });
        let mut shown = String::new();
        for command in commands {
            let ran = Command::new("bash")
                .args(["-c", &format!("exec 2>&1; {command}")])
                .env("PATH", &path)
                .current_dir(folder.path(""))
                .output()
                .unwrap();
            let said = String::from_utf8(ran.stdout).unwrap();
            shown.extend(["$ ", command, "\n", &said.replace("\n\n", "\n")]);
        }
        redis.kill().unwrap();
        redis.wait().unwrap();
        shown
    });
    assert_eq!(without_ids(&shown), without_ids(session));
}

/// Replaces the ids of keys, such as 79f4-4d2e-013f-47c4.
fn without_ids(text: &str) -> String {
    let is_id = |line: &str| {
        line.len() == 19 && line.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let line = |line| if is_id(line) { "(id)" } else { line };
    text.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_leads_to_every_page_of_the_manual() {
    let readme = readme();
    for page in fs::read_dir(project("man")).unwrap() {
        let page = format!("(man/{})", page.unwrap().file_name().to_str().unwrap());
        assert!(readme.contains(&page), "{page}");
    }
}

#[test]
fn the_readme_says_what_state_it_is_in_and_what_it_needs() {
    let readme = readme();
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(readme.contains(&format!("Rust {rust} or later")), "{rust}");
    let is_alpha = env!("CARGO_PKG_VERSION").contains("-alpha");
    assert_eq!(readme.contains("**This is an alpha version.**"), is_alpha);
    // The first screen has two commands, and leads to Redis over two hosts.
    let first: Vec<_> = readme.lines().take(45).collect();
    for begin in ["scripts/demo ", "scripts/test ", "## Redis over two hosts"] {
        assert!(first.iter().any(|line| line.starts_with(begin)), "{begin}");
    }
}
