//! Pages of the manual with commands and answers: the commands, run word for word, get the
//! answers that the page shows.

use std::fs;

use super::recipe::{follow, recipe};
use crate::support::hosts::{Hosts, hosts_can_be, project};
use crate::support::need;

/// A command of the page, and the lines to expect.
struct Question {
    host: String,
    command: String,
    answer: Vec<String>,
}

/// The blocks of a page. The commands of a block run one after the other in one shell.
fn blocks(page: &str) -> Vec<Vec<Question>> {
    let page = fs::read_to_string(project(page)).unwrap();
    let blocks = page.split("\n.Bd -literal\n").skip(1);
    let blocks = blocks
        .map(|rest| rest.split("\n.Ed").next().unwrap().replace("\\e", "\\").replace("\\&", ""));
    blocks.map(|block| questions(&block)).collect()
}

fn questions(block: &str) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    for line in block.lines() {
        match line.split_once("# ") {
            Some((host, command)) if host.len() == 1 => questions.push(Question {
                host: host.into(),
                command: command.into(),
                answer: vec![],
            }),
            _ => {
                let last = questions.last_mut().unwrap();
                // A command goes on behind the sign of a pipe.
                if last.answer.is_empty() && last.command.ends_with('|') {
                    last.command.push_str(line);
                } else {
                    last.answer.push(line.into());
                }
            }
        }
    }
    questions
}

/// Runs these commands in one shell; returns the answer of each.
fn ask(hosts: &Hosts, host: &str, questions: &[Question]) -> Vec<String> {
    const NEXT: &str = "--- the next command ---";
    let commands: Vec<_> = questions.iter().map(|question| question.command.as_str()).collect();
    // As at a terminal, a grep without a match does not end the shell.
    let script = format!("set +e; {}", commands.join(&format!("\necho '{NEXT}'\n")));
    let said = hosts[host].sh(&format!("{script}\ntrue"));
    said.split(NEXT).map(str::to_owned).collect()
}

/// Whether a line is as expected, where three dots stand for any text, and white space
/// for any white space.
fn is_as_expected(line: &str, expected: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, expected) = (squeeze(line), squeeze(expected));
    let mut parts = expected.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn an_audit_gets_the_answers_that_the_manual_shows() {
    if !hosts_can_be("the audit of the manual") {
        return;
    }
    need("tcpdump", "tcpdump");
    need("ss", "iproute2");
    let hosts = Hosts::boot(&["a", "b"]);
    hosts["a"].has_redis();
    follow(&hosts, &recipe("A SERVER AND ITS CLIENTS"));
    // The log has connections with an older key, which the audit must not show.
    follow(&hosts, &recipe("A new key"));
    let asked = asks(&hosts, "man/spiped-audit.7");
    assert!(asked.len() > 15, "{asked:?}");
    let of = |end: &'static str| asked.iter().filter(move |(command, _)| command.ends_with(end));
    let ids: Vec<_> = of("keyid /etc/spiped/redis.key").map(|(_, said)| said.trim()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert!(of("cipher=").all(|(_, said)| said.contains(&format!("key_id={}", ids[0]))));
    assert!(of("cipher=").count() > 0);
}

#[test]
fn the_life_of_a_key_goes_as_the_manual_shows() {
    if !hosts_can_be("the life of a key") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b"]);
    hosts["a"].has_redis();
    follow(&hosts, &recipe("A SERVER AND ITS CLIENTS"));
    let asked = asks(&hosts, "man/spiped-keys.7");
    let is_of_one_key = |command: &str| {
        command.starts_with("spiped keyid ") && command != "spiped keyid /etc/spiped/redis.keys"
    };
    let ids: Vec<_> = asked.iter().filter(|(command, _)| is_of_one_key(command)).collect();
    assert!(ids.len() == 2 && ids[0].1 == ids[1].1, "{ids:?}");
}

/// Runs the commands of a page, and compares the answers with the page. Returns both.
fn asks(hosts: &Hosts, page: &str) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    for block in blocks(page) {
        for questions in block.chunk_by(|one, next| one.host == next.host) {
            let host = &questions[0].host;
            let answers = ask(hosts, host, questions);
            assert_eq!(answers.len(), questions.len(), "{answers:?}");
            for (Question { command, answer, .. }, said) in questions.iter().zip(answers) {
                let lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
                let is_good = lines.len() == answer.len()
                    && lines.iter().zip(answer).all(|(line, good)| is_as_expected(line, good));
                assert!(is_good, "{host}# {command}\n{said}\ninstead of\n{}", answer.join("\n"));
                asked.push((command.clone(), said));
            }
        }
    }
    asked
}
