//! The journal has a field for each field of a line: two hosts, joined by them.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::hosts::{Host, Hosts, hosts_can_be, project};
use crate::support::{connect, noise, wait_until};

const RECEIVE: &str = "spiped-receive@redis.service";
const SEND: &str = "spiped-send@redis.service";

/// Redis on host a, whose client on host b has a key of its own, `web1`.
fn boot() -> Hosts {
    let hosts = Hosts::boot(&["a", "b"]);
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.has_redis();
    let key = noise(5, 32);
    let conf = "SPIPED_SOURCE=192.0.2.1:6379\nSPIPED_TARGET=127.0.0.1:6379\nSPIPED_LOG=debug\n";
    a.write_etc("redis.conf", conf, 0o644);
    a.write_etc("redis.keys/web1.key", &key, 0o600);
    let conf = "SPIPED_SOURCE=127.0.0.1:8000\nSPIPED_TARGET=192.0.2.1:6379\nSPIPED_TELL_CLIENT=1\n";
    b.write_etc("redis.conf", conf, 0o644);
    b.write_etc("redis.key", &key, 0o600);
    a.start("start", RECEIVE);
    b.start("start", SEND);
    assert_eq!(b.redis("ping"), "PONG");
    hosts
}

/// What the journal has with these fields.
fn entries(host: &Host, matches: &str) -> Vec<Value> {
    host.must("journalctl --sync");
    let lines = host.must(&format!("journalctl --quiet --output json {matches}"));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The only such line, once it is there.
fn entry(host: &Host, matches: &str) -> Value {
    let mut found = Vec::new();
    wait_until(matches, || {
        found = entries(host, matches);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// The line has each field that it shows, and is as other logs have it.
fn is_whole(entry: &Value, unit: &str) {
    let message = entry["MESSAGE"].as_str().unwrap();
    let mut count = 0;
    for (name, value) in entry.as_object().unwrap() {
        let Some(name) = name.strip_prefix("SPIPED_") else { continue };
        let (name, value) = (name.to_lowercase(), value.as_str().unwrap());
        let shown = [format!(" {name}={value}"), format!(" {name}={value:?}")];
        assert!(shown.iter().any(|shown| message.contains(shown)), "{name}: {entry:#}");
        count += 1;
    }
    assert!(count >= 10 && !message.contains('\n'), "{entry:#}");
    assert_eq!(entry["PRIORITY"], "6");
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "spiped");
    assert_eq!(entry["SYSLOG_FACILITY"], "3");
    assert_eq!(entry["_SYSTEMD_UNIT"], unit);
}

#[test]
fn the_journals_of_both_ends_are_joined_by_the_field_of_the_connection() {
    if !hosts_can_be("the fields of the journal") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let at_a = entry(a, "SPIPED_KEY=web1 SPIPED_REASON=finished");
    is_whole(&at_a, RECEIVE);
    let conn = at_a["SPIPED_CONN"].as_str().unwrap();
    assert_eq!(entry(a, &format!("SPIPED_CONN={conn}")), at_a);
    let at_b = entry(b, &format!("SPIPED_CONN={conn}"));
    is_whole(&at_b, SEND);
    assert_eq!(at_a["SPIPED_CLIENT"], at_b["SPIPED_PEER"]);
    assert_eq!(at_a["SPIPED_KEY_ID"], at_b["SPIPED_KEY_ID"]);
    for (host, unit, entry) in [(a, RECEIVE, &at_a), (b, SEND, &at_b)] {
        assert!(host.log(unit).lines().any(|line| line == entry["MESSAGE"]));
    }
    // A warning has its hint; the end of the process is the unit's, too.
    b.net().enter(|| {
        connect(SocketAddr::from(([192, 0, 2, 1], 6379))).write_all(b"PING\r\n").unwrap();
    });
    let stranger = entry(a, "SPIPED_REASON=not-our-protocol");
    assert!(stranger["PRIORITY"] == "4" && !stranger["SPIPED_HINT"].is_null());
    let run = a.must(&format!("systemctl show -P InvocationID {RECEIVE}"));
    a.must(&format!("systemctl stop {RECEIVE}"));
    let ended = entry(a, &format!("_SYSTEMD_INVOCATION_ID={run} SPIPED_SERVED=1"));
    assert_eq!(ended["_SYSTEMD_UNIT"], RECEIVE);
}

/// The manual's own commands, each of which finds something.
#[test]
fn the_questions_of_the_manual_have_answers_in_the_journal() {
    if !hosts_can_be("the questions to the journal") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let conn = entry(a, "SPIPED_KEY=web1 SPIPED_REASON=finished")["SPIPED_CONN"].clone();
    let mut open = b.net().enter(|| connect(SocketAddr::from(([127, 0, 0, 1], 8000))));
    open.write_all(b"PING\r\n").unwrap();
    open.read_exact(&mut [0; 7]).unwrap();
    a.must("spiped revoke /run/spiped-receive@redis/control web1");
    entry(a, "SPIPED_REASON=key-revoked");

    let manual = fs::read_to_string(project("man/spiped.1")).unwrap();
    let (_, block) = manual.split_once("A connection has its line once it has ended.\n").unwrap();
    let block = block.split(".Ed").next().unwrap();
    let (questions, answers): (Vec<_>, Vec<_>) = block
        .trim_end()
        .lines()
        .filter(|line| !line.starts_with(".Bd"))
        .partition(|line| line.contains("# "));
    assert_eq!((questions.len(), answers.len()), (5, 1));
    for question in questions {
        let (host, command) = question.split_once("# ").unwrap();
        let command = command.replace(answers[0], conn.as_str().unwrap());
        let said = hosts[host].must(&format!("{command} --quiet"));
        assert!(!said.is_empty(), "{command} finds nothing");
    }
}

#[test]
fn a_journal_that_is_stuck_or_gone_holds_up_no_connection() {
    if !hosts_can_be("a journal that is stuck") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let receiver = SocketAddr::from(([192, 0, 2, 1], 6379));
    a.must("systemctl kill --signal STOP systemd-journald");
    // More probes than the queue has room for.
    b.net().enter(|| (0..2500).for_each(|_| drop(connect(receiver))));
    assert_eq!(b.redis("ping"), "PONG");
    a.must("systemctl kill --signal CONT systemd-journald");
    wait_until("the lost lines are counted", || {
        let counts = entries(a, "PRIORITY=4");
        counts.iter().any(|entry| {
            entry["MESSAGE"].as_str().unwrap().starts_with("log lines were suppressed")
                && entry["SPIPED_SUPPRESSED"].as_str().unwrap().parse::<u32>().unwrap() > 0
        })
    });
    a.must("systemctl kill --signal KILL systemd-journald");
    assert_eq!(b.redis("ping"), "PONG");
    // Without the socket of the native protocol, lines go to standard error.
    a.must("rm /run/systemd/journal/socket");
    assert_eq!(b.redis("ping"), "PONG");
    wait_until("the line is there", || {
        let lines = entries(a, "_TRANSPORT=stdout");
        lines.iter().any(|line| line["MESSAGE"].as_str().unwrap().contains(" reason=finished "))
    });
}

#[test]
fn a_path_with_ends_of_lines_forges_no_field() {
    if !hosts_can_be("a forged field") {
        return;
    }
    let hosts = boot();
    let b = &hosts["b"];
    b.sh("systemd-run --quiet --unit odd --description odd spiped -F -e -s 127.0.0.1:8001 \
          -t $'/tmp/a\\nSPIPED_KEY=web2\\nMESSAGE=forged' -k /etc/spiped/redis.key");
    wait_until("it listens", || b.log("odd").contains(" listening on "));
    b.net().enter(|| drop(connect(SocketAddr::from(([127, 0, 0, 1], 8001)))));
    let line = entry(b, "_SYSTEMD_UNIT=odd.service SPIPED_ID=1");
    assert_eq!(line["SPIPED_TARGET"], "/tmp/a\\nSPIPED_KEY=web2\\nMESSAGE=forged");
    assert!(line["MESSAGE"].as_str().unwrap().contains(line["SPIPED_TARGET"].as_str().unwrap()));
    assert_eq!(entries(b, "SPIPED_KEY=web2"), [Value::Null; 0]);
    assert_eq!(entries(b, "MESSAGE=forged"), [Value::Null; 0]);
}
