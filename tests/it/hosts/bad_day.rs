//! An operator's bad day: a file that is missing, a port that is taken, a client to be
//! shut out.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be, said};
use crate::support::{Server, connect, noise, read_to_end, round_trip, wait_until};

const RECEIVE: &str = "spiped-receive@in.service";
const SEND: &str = "spiped-send@out.service";

/// A host with both ends of a pipe to a server of the test's own.
fn boot() -> (Hosts, Server) {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let server = host.net().enter(Server::echo);
    conf(host, "in", &format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={}\n", server.address));
    conf(host, "out", "SPIPED_SOURCE=127.0.0.1:8000\nSPIPED_TARGET=127.0.0.1:7000\n");
    for key in ["in.key", "out.key"] {
        host.write_etc(key, [3; 32], 0o600);
    }
    (hosts, server)
}

fn conf(host: &Host, name: &str, lines: &str) {
    host.write_etc(&format!("{name}.conf"), lines, 0o644);
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn show(host: &Host, unit: &str, property: &str) -> String {
    host.must(&format!("systemctl show -P {property} {unit}"))
}

fn fails_to(host: &Host, command: &str, unit: &str) {
    assert!(!host.run(&format!("systemctl {command} {unit}")).status.success(), "{unit}");
}

/// All lines that a unit, or systemd about the unit, has logged since the boot.
fn journal(host: &Host, unit: &str) -> String {
    host.must("journalctl --sync");
    host.must(&format!("journalctl --quiet --boot --output cat --unit {unit}"))
}

/// The unit stays failed after a reboot, until somebody starts it.
#[test]
fn a_missing_file_is_a_failed_unit_until_it_is_there() {
    if !hosts_can_be("units without their files") {
        return;
    }
    let (mut hosts, _server) = boot();
    hosts["one"].must(&format!("systemctl enable --quiet {RECEIVE} {SEND} spiped-send"));
    let missing = [
        (RECEIVE, "in.key", "cannot read the key file /etc/spiped/in.key: No such file"),
        (SEND, "out.conf", "cannot read /etc/spiped/out.conf: No such file or directory"),
        ("spiped-send.service", "redis.addr", "cannot read /etc/spiped/redis.addr: No such file"),
    ];
    for (unit, file, reason) in missing {
        let host = &hosts["one"];
        let there = host.etc(file);
        if there.exists() {
            std::fs::rename(&there, host.etc(&format!("{file}.away"))).unwrap();
        }
        fails_to(host, "start", unit);
        is_failed(host, unit, reason);
    }
    hosts.reboot("one");
    let host = &hosts["one"];
    for (unit, file, reason) in missing {
        is_failed(host, unit, reason);
        let away = host.etc(&format!("{file}.away"));
        if away.exists() {
            std::fs::rename(away, host.etc(file)).unwrap();
            host.start("start", unit);
        }
    }
}

fn is_failed(host: &Host, unit: &str, reason: &str) {
    let failed = host.must("systemctl --failed --no-legend --plain");
    assert!(failed.contains(unit), "{unit} is not among them:\n{failed}");
    let status = host.must(&format!("systemctl is-failed {unit}"));
    assert_eq!(status, "failed");
    let status = host.status(unit);
    assert!(status.contains(&format!("Status: \"{reason}")), "{status}");
    let journal = journal(host, unit);
    assert_eq!(journal.matches(&format!("spiped: {reason}")).count(), 1, "{journal}");
    assert_eq!(show(host, unit, "NRestarts"), "0");
}

/// The file exists but names an unknown variable.
#[test]
fn a_mistyped_variable_stops_the_start_of_a_unit() {
    if !hosts_can_be("mistyped variables") {
        return;
    }
    let (hosts, server) = boot();
    let host = &hosts["one"];
    let addresses = format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={}\n", server.address);
    for (line, reason) in [
        ("SPIPED_CIPHR=auto", "SPIPED_CIPHR is no variable of spiped"),
        ("SPIPED_LOG=trace", "SPIPED_LOG: 'trace' is not a level of the log"),
    ] {
        conf(host, "in", &format!("{addresses}{line}\n"));
        fails_to(host, "start", RECEIVE);
        is_failed(host, RECEIVE, reason);
        assert_eq!(show(host, RECEIVE, "ExecMainStatus"), "64");
    }
    conf(host, "in", &addresses);
    host.start("start", RECEIVE);
}

/// The first start fails at once; then the unit waits, and logs that once.
#[test]
fn a_unit_whose_port_is_taken_waits_for_it_without_a_word() {
    if !hosts_can_be("ports that are taken") {
        return;
    }
    let (hosts, server) = boot();
    let host = &hosts["one"];
    host.net().enter(|| {
        let taken = TcpListener::bind(local(7000)).unwrap();
        fails_and_waits(host, "start");
        let lines = journal(host, RECEIVE);
        assert_eq!(lines.matches("cannot listen on").count(), 2, "{lines}");
        // The waiting process tries several times.
        thread::sleep(Duration::from_secs(7));
        assert_eq!(journal(host, RECEIVE), lines);
        assert_eq!(show(host, RECEIVE, "NRestarts"), "1");
        // Another start by hand gets the error at once again.
        fails_and_waits(host, "restart");
        let setup = "spiped setup receive in -s 127.0.0.1:7000 -t";
        let setup = host.run(&format!("{setup} {}", server.address));
        assert_eq!(setup.status.code(), Some(69), "{}", said(&setup));
        assert!(said(&setup).contains("does not start: cannot listen on"), "{}", said(&setup));
        // Restarted just before systemd would start it again, the unit still fails and
        // waits.
        fails_to(host, "restart", RECEIVE);
        fails_and_waits(host, "restart");
        drop(taken);
        wait_until("it listens", || {
            journal(host, RECEIVE).contains("the source is available tries=")
        });
        assert_eq!(show(host, RECEIVE, "ActiveState"), "active");
        host.start("start", SEND);
        round_trip(&mut connect(local(8000)), b"served");

        // A waiting unit keeps nothing that a stop would not end.
        host.must(&format!("systemctl stop {RECEIVE}"));
        let _taken = TcpListener::bind(local(7000)).unwrap();
        fails_and_waits(host, "start");
        host.must(&format!("systemctl stop {RECEIVE}"));
        fails_and_waits(host, "start");
    });
}

fn fails_and_waits(host: &Host, command: &str) {
    fails_to(host, command, RECEIVE);
    assert_eq!(show(host, RECEIVE, "ExecMainStatus"), "69");
    wait_until("it waits", || {
        let status = show(host, RECEIVE, "StatusText");
        status == "waiting: cannot listen on [127.0.0.1]:7000: Address already in use (os error 98)"
    });
    assert_eq!(show(host, RECEIVE, "ActiveState"), "activating");
}

/// The exit code of the previous start does not count.
#[test]
fn a_file_that_goes_while_a_unit_is_started_again_stops_that() {
    if !hosts_can_be("files that go") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    host.net().enter(|| {
        let _taken = TcpListener::bind(local(7000)).unwrap();
        fails_to(host, "start", RECEIVE);
        std::fs::remove_file(host.etc("in.key")).unwrap();
        wait_until("it is failed", || show(host, RECEIVE, "ActiveState") == "failed");
        thread::sleep(Duration::from_secs(5));
        let log = journal(host, RECEIVE);
        assert_eq!(log.matches("cannot read the key file").count(), 1, "{log}");
    });
}

/// The host gets the address later, for example from a slow DHCP server.
#[test]
fn a_unit_waits_for_an_address_that_is_not_there_yet() {
    if !hosts_can_be("addresses that are not there") {
        return;
    }
    let (hosts, server) = boot();
    let host = &hosts["one"];
    let lines = format!("SPIPED_SOURCE=192.0.2.77:7000\nSPIPED_TARGET={}\n", server.address);
    conf(host, "in", &lines);
    fails_to(host, "start", RECEIVE);
    wait_until("it waits", || show(host, RECEIVE, "StatusText").starts_with("waiting: "));
    host.must("ip address add 192.0.2.77/24 dev host0");
    wait_until("it is there", || show(host, RECEIVE, "ActiveState") == "active");
}

/// While the journal is stopped, lines are counted; once it runs again, new lines reach
/// it.
#[test]
fn lines_that_the_journal_has_lost_are_counted() {
    if !hosts_can_be("a journal that goes") {
        return;
    }
    let (hosts, server) = boot();
    let host = &hosts["one"];
    let more = format!("SPIPED_TARGET={}\nSPIPED_LOG=debug\n", server.address);
    conf(host, "in", &format!("SPIPED_SOURCE=127.0.0.1:7000\n{more}"));
    host.start("start", RECEIVE);
    host.net().enter(|| {
        let units = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald";
        host.must(&format!("systemctl stop {units}"));
        let probes = 20;
        for _ in 0..probes {
            drop(connect(local(7000)));
        }
        host.must(&format!("systemctl start {units}"));
        let lost = || {
            drop(connect(local(7000)));
            let log = journal(host, RECEIVE);
            let (_, count) = log.split_once("log lines were suppressed")?;
            count.split("suppressed=").nth(1)?.lines().next()?.parse::<usize>().ok()
        };
        wait_until("they are counted", || lost().is_some());
        assert!(lost() >= Some(probes), "{:?}", lost());
        assert_eq!(show(host, RECEIVE, "NRestarts"), "0");
    });
}

/// The command of the manual leaves no connection of the old key.
#[test]
fn a_client_is_shut_out_at_once_by_the_signal_kill() {
    if !hosts_can_be("systemctl kill") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    host.start("start", RECEIVE);
    host.start("start", SEND);
    host.net().enter(|| {
        let mut before = connect(local(8000));
        round_trip(&mut before, b"before a restart");
        host.must(&format!("systemctl restart {RECEIVE}"));
        let mut open = connect(local(8000));
        round_trip(&mut open, b"with the old key");
        round_trip(&mut before, b"after a restart");
        host.write_etc("in.key", noise(9, 32), 0o600);
        host.sh(&commands_of("KEYS")[0].replace("redis", "in"));
        read_to_end(&mut before);
        read_to_end(&mut open);
        let id = host.must("spiped keyid /etc/spiped/in.key");
        wait_until("it is started again with the new key", || {
            show(host, RECEIVE, "StatusText").contains(&format!(" {id}: "))
        });
        assert_eq!(show(host, RECEIVE, "NRestarts"), "1");
        host.write_etc("out.key", noise(9, 32), 0o600);
        host.must(&format!("systemctl reload {SEND}"));
        round_trip(&mut connect(local(8000)), b"with the new key");
    });
}
