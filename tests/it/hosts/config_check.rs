//! `spiped config-check` of units, and of their reloads.

use std::fs;
use std::net::SocketAddr;

use crate::support::hosts::{Host, Hosts, hosts_can_be, said};
use crate::support::{Server, connect, noise, round_trip};

const RECEIVE: &str = "spiped-receive@redis.service";
const SEND: &str = "spiped-send@local.service";

/// A host with both ends of a pipe before a server of the test's own.
fn boot() -> (Hosts, Server) {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let server = host.net().enter(Server::echo);
    let conf = format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={}\n", server.address);
    host.write_etc("redis.conf", conf, 0o644);
    let conf = "SPIPED_SOURCE=127.0.0.1:8000\nSPIPED_TARGET=127.0.0.1:7000\n";
    host.write_etc("local.conf", conf, 0o644);
    for file in ["redis.key", "local.key"] {
        host.write_etc(file, noise(3, 32), 0o600);
    }
    host.start("start", RECEIVE);
    host.start("start", SEND);
    (hosts, server)
}

fn works(host: &Host) {
    let sender = SocketAddr::from(([127, 0, 0, 1], 8000));
    host.net().enter(|| round_trip(&mut connect(sender), b"through the pipe"));
}

/// A reload of the receiver fails for this reason, and nothing changes.
fn is_refused(host: &Host, reason: &str) {
    let process = host.must(&format!("systemctl show -P MainPID {RECEIVE}"));
    assert!(!host.run(&format!("systemctl reload {RECEIVE}")).status.success(), "{reason}");
    let log = host.log(RECEIVE);
    assert!(log.contains(&format!("spiped: {reason}")), "{log}");
    assert!(!log.contains("key added key=redis key_id"), "{log}");
    assert_eq!(host.must(&format!("systemctl show -P MainPID {RECEIVE}")), process);
    assert_eq!(host.must(&format!("systemctl is-active {RECEIVE}")), "active");
    works(host);
}

#[test]
fn a_reload_with_a_bad_configuration_is_refused_and_changes_nothing() {
    if !hosts_can_be("reloads with a bad configuration") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let good = fs::read_to_string(host.etc("redis.conf")).unwrap();
    // The reload would put this one in force.
    host.write_etc("redis.key", noise(4, 32), 0o600);
    for (line, reason) in [
        ("SPIPED_TIMEOUT=soon", "SPIPED_TIMEOUT: 'soon' is not"),
        ("SPIPED_TIMEOT=5", "SPIPED_TIMEOT is no variable of spiped"),
        ("SPIPED_TARGET=", "-t is not given"),
        ("SPIPED_PREWARM=2", "-d and SPIPED_PREWARM exclude each other"),
        ("SPIPED_STATUS=0.0.0.0:9101", "SPIPED_STATUS: other hosts could read the status"),
    ] {
        host.write_etc("redis.conf", format!("{good}{line}\n"), 0o644);
        is_refused(host, reason);
        let typed = host.run("spiped config-check spiped-receive@redis");
        assert_eq!(typed.status.code(), Some(64));
        assert!(said(&typed).contains(&format!("spiped: {reason}")), "{}", said(&typed));
    }
    host.write_etc("redis.conf", &good, 0o644);
    // What a drop-in says counts, too.
    host.drop_in(RECEIVE, "[Service]\nEnvironment=SPIPED_PAD=1\n");
    is_refused(host, "SPIPED_PAD: '1' is not");
    host.drop_in(RECEIVE, "");
    host.write_etc("redis.key", "short", 0o600);
    is_refused(host, "the key file /etc/spiped/redis.key is refused: the key has 5 bytes");

    // A good one puts the keys in force, and says what it leaves as it is.
    host.write_etc("redis.key", noise(5, 32), 0o600);
    host.write_etc("redis.conf", format!("{good}SPIPED_LOG=debug\n"), 0o644);
    host.must(&format!("systemctl reload {RECEIVE}"));
    let log = host.log(RECEIVE);
    let id = host.must("spiped keyid /etc/spiped/redis.key");
    assert!(log.contains(&format!("key added key=redis key_id={id}")), "{log}");
    let warning = "spiped: warning: not as at the start, and not reloaded: SPIPED_LOG\n";
    assert!(
        log.contains(warning) && log.contains(&format!("systemctl restart {RECEIVE}")),
        "{log}"
    );
    // It prints no configuration there, and of what has not changed nothing.
    host.write_etc("local.key", noise(5, 32), 0o600);
    host.must(&format!("systemctl reload {SEND}"));
    let log = host.log(SEND);
    assert!(!log.contains("SPIPED_") && log.contains("key added"), "{log}");
    works(host);
}

#[test]
fn the_configuration_of_a_unit_is_printed_in_the_form_of_its_file() {
    if !hosts_can_be("configurations of units") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let print = "spiped config-check spiped-receive@redis";
    let more = "SPIPED_PER_KEY=\"9\"\nSPIPED_BIND_PER_KEY=127.64.0.0/10\nSPIPED_PAD = 512\n";
    host.sh(&format!("printf '{more}' >> /etc/spiped/redis.conf"));
    let printed = host.must(print);
    let id = host.must("spiped keyid /etc/spiped/redis.key");
    for line in [
        "# spiped-receive@redis.service",
        "SPIPED_SOURCE=127.0.0.1:7000",
        "SPIPED_PER_KEY=9",
        "SPIPED_PAD=512",
        "# SPIPED_DECRYPT=1",
        "# SPIPED_CONTROL=/run/spiped-receive@redis/control",
    ] {
        assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
    }
    assert!(printed.contains(&format!("# key redis {id} 127.")), "{printed}");
    host.write_etc("redis.conf", format!("{printed}\n"), 0o644);
    assert_eq!(host.must(print), printed);
    host.start("restart", RECEIVE);
    works(host);

    // A name is that of the units in use; each of several would be printed.
    assert_eq!(host.must("spiped config-check redis"), printed);
    let unused = host.run("spiped config-check nothing");
    assert!(unused.status.code() == Some(66) && said(&unused).contains("neither end of nothing"));
    for (line, skipped) in [("word", "line 1 has no ="), ("export A=b", "line 1 has what is no")] {
        host.write_etc("redis.conf", format!("{line}\n{printed}\n"), 0o644);
        let output = host.run(print);
        let said = said(&output);
        assert!(output.status.success() && said.contains(skipped), "{said}");
    }
    // The file does not choose what root loads.
    host.write_etc("redis.conf", format!("LD_PRELOAD=/no.so\n{printed}\n"), 0o644);
    assert_eq!(said(&host.run(print)).trim_end(), printed);
    host.must("chmod 666 /etc/spiped/redis.conf");
    assert_eq!(host.run(print).status.code(), Some(77));
    host.must("rm /etc/spiped/redis.conf");
    assert_eq!(host.run(print).status.code(), Some(66));
}

/// systemd itself is the judge.
#[test]
fn a_file_of_variables_is_read_and_written_as_systemd_does() {
    if !hosts_can_be("files of variables") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let good = fs::read_to_string(host.etc("redis.conf")).unwrap();
    let by_systemd = |file: &str| {
        host.must(&format!(
            "systemd-run --quiet --wait --pipe -p EnvironmentFile={file} printenv SPIPED_PIDFILE"
        ))
    };
    for value in [
        "/plain",
        "\"/a b\"",
        "/a b  ",
        "'/a\"b'\"c d\"  e",
        "/a\"b\"",
        "\"/a\\\"\\$HOME\\x \\` \\\\\"",
        "/a\\ b\\\n  c\\",
        "'/a\\\nb'",
        "\"/a\nb\"",
        "/a#b;c",
        "/ü%n$HOME",
    ] {
        // One of them also takes the next line.
        host.write_etc("redis.conf", format!("SPIPED_PIDFILE={value}\n\n{good}"), 0o644);
        let expected = by_systemd("/etc/spiped/redis.conf");
        host.sh("spiped config-check spiped-receive@redis > /etc/spiped/printed");
        assert_eq!(by_systemd("/etc/spiped/printed"), expected, "{value}");
    }
}

#[test]
fn a_unit_has_a_source_or_a_socket_unit() {
    if !hosts_can_be("sources and socket units") {
        return;
    }
    let (hosts, server) = boot();
    let host = &hosts["one"];
    let good = fs::read_to_string(host.etc("redis.conf")).unwrap();
    let without = format!("SPIPED_TARGET={}\n", server.address);
    let refused = |code: i32, reason: &str| {
        let checked = host.run("spiped config-check redis");
        let text = said(&checked);
        assert!(checked.status.code() == Some(code) && text.contains(reason), "{text}");
    };
    // systemd skips the line with the mark.
    for content in [&without, &format!("\u{feff}{good}")] {
        host.write_etc("redis.conf", content, 0o644);
        refused(64, "-s is not given");
        is_refused(host, "-s is not given");
        let found = host.run("spiped check --all");
        assert!(said(&found).contains("  FINDING    start-refused: "), "{}", said(&found));
    }
    assert!(!host.run(&format!("systemctl restart {RECEIVE}")).status.success());
    host.must(&format!("systemctl stop {RECEIVE}"));
    host.drop_in("spiped-receive@redis.socket", "[Socket]\nListenStream=127.0.0.1:7000\n");
    host.write_etc("redis.conf", &without, 0o644);
    host.must("systemctl enable --quiet --now spiped-receive@redis.socket");
    host.must("spiped config-check redis");
    works(host);
    // Both, where they do not say the same.
    host.write_etc("redis.conf", &good, 0o644);
    host.must("spiped config-check redis");
    host.write_etc("redis.conf", good.replace("7000", "7001"), 0o644);
    refused(64, "the source is [127.0.0.1]:7001, but the inherited socket listens on ");
    assert!(!host.run(&format!("systemctl restart {RECEIVE}")).status.success());
}

#[test]
fn a_file_is_refused_where_systemd_takes_none_of_it() {
    if !hosts_can_be("files that systemd takes for empty") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let good = fs::read(host.etc("redis.conf")).unwrap();
    let before = |line: &[u8]| host.write_etc("redis.conf", [line, &good].concat(), 0o644);
    let restarts = || host.run(&format!("systemctl restart {RECEIVE}")).status.success();
    let checked = || host.run("spiped config-check spiped-receive@redis");
    // A letter of Latin-1, in a comment and in a value.
    before(b"# \xe4\n");
    assert!(checked().status.success() && restarts(), "{}", said(&checked()));
    for line in [&b"SPIPED_LOG=\xe4\n"[..], b"# \0\n", b"SPIPED_LOG=\0\n"] {
        before(line);
        let text = said(&checked());
        assert_eq!(checked().status.code(), Some(65), "{text}");
        assert!(text.starts_with("spiped: /etc/spiped/redis.conf is refused: "), "{text}");
        assert!(!restarts());
        assert!(host.status(RECEIVE).contains("/etc/spiped/redis.conf is refused: "));
    }
    before(b"CREDENTIALS_DIRECTORY=/etc\n");
    assert_eq!(checked().status.code(), Some(65));
    before(b"");
    assert!(restarts());
    // The name of the unit is not the file's.
    before(b"SPIPED_UNIT=\n");
    assert!(checked().status.success(), "{}", said(&checked()));
    // As the running systemd reads it.
    before(b"# the source:\\\n");
    let (is_good, text) = (checked().status.success(), said(&checked()));
    assert_eq!(is_good, restarts(), "{text}");
    // A reload refuses what the next start would.
    before(b"");
    host.must(&format!("systemctl restart {RECEIVE}"));
    host.must("chmod 666 /etc/spiped/redis.conf");
    is_refused(host, "users other than root can write to /etc/spiped/redis.conf");
    host.must("chmod 700 /etc/spiped");
    let nobody =
        host.run("setpriv --reuid=65534 --clear-groups spiped config-check spiped-receive@redis");
    assert_eq!(nobody.status.code(), Some(77));
    assert!(said(&nobody).contains("\nhint: try it with sudo"), "{}", said(&nobody));
}
