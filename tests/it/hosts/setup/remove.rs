//! `spiped setup remove`: what setup has made is gone, what others have made stays.

use super::{PAIR, PROVED, RECEIVE, key_id, listing, names, refused, state};
use crate::hosts::restarts::Client;
use crate::support::hosts::{Host, Hosts, hosts_can_be};
use crate::support::wait_until;

const GONE: &str = "ActiveState=inactive UnitFileState=disabled";
const SERVICE: &str = "spiped-receive@redis.service";
const SOCKET: &str = "spiped-receive@redis.socket";

fn is_heard(host: &Host, port: &str) -> bool {
    host.must("ss -lnt").contains(&format!(":{port} "))
}

#[test]
fn a_pipe_is_removed_with_its_key_only_where_that_is_asked_for() {
    if !hosts_can_be("spiped setup remove") {
        return;
    }
    let mut hosts = Hosts::boot(&["host"]);
    {
        let host = &hosts["host"];
        host.has_redis();
        let none = host.run("spiped setup remove redis --keys");
        let said = refused(&none, 66, "there is no pipe redis");
        assert!(said.ends_with("hint: no pipe is set up on this host"), "{said}");
        let fresh = names(host);
        host.must(RECEIVE);
        let key = key_id(host, "redis");

        let before = listing(host);
        let steps = "systemctl disable spiped-receive@redis.service\n\
                     RAN systemctl stop spiped-receive@redis.service\nREMOVED /etc/spiped/redis.conf";
        let left = "left /etc/spiped/redis.key: 'spiped setup remove redis --keys' removes it";
        let told = |run: &str, removed: &str| {
            format!("RAN {steps}\n{left}").replace("RAN", run).replace("REMOVED", removed)
        };
        let dry = host.must("spiped setup remove redis --dry-run");
        assert_eq!(dry, told("would run", "would remove"));
        assert_eq!((listing(host), is_heard(host, "6379")), (before, true));
        assert_eq!(host.must("spiped setup remove redis"), told("ran", "removed"));
        assert_eq!(state(host, SERVICE), GONE);
        assert!(!host.must("ss -lnt").contains("192.0.2.1:6379"));
        let nothing = "nothing to do: only what is named below is left of redis";
        assert_eq!(host.must("spiped setup remove redis"), format!("{nothing}\n{left}"));
        let other = refused(&host.run("spiped setup remove other"), 66, "there is no pipe other");
        assert!(other.ends_with("hint: these are on this host: redis"), "{other}");

        // The pipe is set up with the same key again, and this time the key is removed.
        assert!(host.must(RECEIVE).contains(PROVED));
        assert_eq!(key_id(host, "redis"), key);
        let said = host.must("spiped setup remove redis --keys");
        assert!(said.ends_with("\nremoved /etc/spiped/redis.key"), "{said}");
        host.must("rmdir /etc/spiped");
        assert_eq!(names(host), fresh);
    }
    hosts.reboot("host");
    assert!(!hosts["host"].must("ss -lnt").contains("192.0.2.1:6379"));
}

/// A socket would start a stopped service again, and a stopped socket leaves its service
/// listening.
#[test]
fn a_socket_goes_with_its_service_whoever_connects_meanwhile() {
    if !hosts_can_be("spiped setup remove with sockets") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    let fresh = names(host);
    for round in 0..3 {
        host.must(&format!("{RECEIVE} --socket"));
        host.sh("systemd-run --quiet --unit clients \
                 bash -c 'while :; do : < /dev/tcp/192.0.2.1/6379; done'");
        if round == 1 {
            // Only the socket runs then, until its clients make it start the service.
            host.must(&format!("systemctl stop {SERVICE}"));
        }
        let said = host.must("spiped setup remove redis --keys");
        assert!(said.contains(&format!("ran systemctl stop {SOCKET}\n")), "{said}");
        for unit in [SERVICE, SOCKET] {
            assert_eq!(state(host, unit), GONE);
        }
        assert!(!host.must("ss -lnt").contains("192.0.2.1:6379"));
        host.must("systemctl stop clients");
        host.must("rmdir /etc/spiped");
        assert_eq!(names(host), fresh);
    }
}

#[test]
fn what_setup_has_not_made_is_left_and_named() {
    if !hosts_can_be("what spiped setup remove leaves") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    let units = "/etc/systemd/system";
    host.must(&format!("{RECEIVE} --socket"));
    host.must("spiped setup receive other -s 192.0.2.1:6390 -t 127.0.0.1:6379");
    host.sh(&format!(
        "echo SPIPED_LOG=debug >> /etc/spiped/redis.conf
         mkdir {units}/{SERVICE}.d
         printf '[Service]\\nNice=5\\n' > {units}/{SERVICE}.d/nice.conf
         printf '[Socket]\\nBacklog=9\\n' > {units}/{SOCKET}.d/backlog.conf
         echo ADDR=192.0.2.1 > /etc/spiped/redis.addr
         systemctl daemon-reload"
    ));
    let said = host.must("spiped setup remove redis --keys");
    for (path, why) in [
        ("/etc/spiped/redis.conf", "it was edited; remove it by hand if nothing needs it"),
        (&format!("{units}/{SERVICE}.d/nice.conf"), "setup has not made it"),
        (&format!("{units}/{SOCKET}.d/backlog.conf"), "setup has not made it"),
        ("/etc/spiped/redis.key", "spiped-receive.service and spiped-send.service use it, too"),
    ] {
        assert!(said.contains(&format!("left {path}: {why}")), "{path}: {said}");
        host.must(&format!("test -e {path}"));
    }
    host.must(&format!("test ! -e {units}/{SOCKET}.d/listen.conf"));
    assert_eq!(state(host, SOCKET), GONE);
    // Another pipe goes on.
    assert!(is_heard(host, "6390"));

    // systemd does not remember a failed unit, either.
    host.must("systemctl disable --quiet --now spiped-receive@other");
    host.sh("sed -i s/6390/none/ /etc/spiped/other.conf");
    assert!(!host.run("systemctl start spiped-receive@other").status.success());
    assert!(state(host, "spiped-receive@other").contains("=failed"));
    host.must("spiped setup remove other --keys");
    assert_eq!(state(host, "spiped-receive@other"), GONE);
}

#[test]
fn a_pair_goes_as_a_whole_and_what_is_left_of_a_restart_goes_with_its_pipe() {
    if !hosts_can_be("spiped setup remove of a pair") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    host.must(RECEIVE);
    host.must("spiped keygen /root/key");
    // The peer does not exist, so the proof fails.
    let pair = host.run(&format!("{PAIR} -k /root/key"));
    assert_eq!(pair.status.code(), Some(69), "{pair:?}");
    for scope in ["redis-draining-1", "redis-in-draining-2"] {
        host.must(&format!(
            "systemd-run --quiet --unit run-{scope} systemd-run --scope \
             --unit spiped-receive-{scope}.scope sleep infinity"
        ));
    }
    let is_active = |unit: &str| host.run(&format!("systemctl --quiet is-active {unit}"));
    let runs = |unit: &str| is_active(unit).status.success();
    let scopes =
        ["spiped-receive-redis-draining-1.scope", "spiped-receive-redis-in-draining-2.scope"];
    wait_until("the scopes are there", || scopes.iter().all(|scope| runs(scope)));

    // The name may mean either; the command does not guess.
    let both = "redis is a pipe, and a pair as well: redis-in and redis-out";
    refused(&host.run("spiped setup remove redis"), 73, both);
    let said = host.must("spiped setup remove redis --keys --alone");
    assert!(said.contains(scopes[0]) && !said.contains("redis-in"), "{said}");
    assert!(!runs(scopes[0]) && runs(scopes[1]) && runs("spiped-receive@redis-in"));

    let said = host.must("spiped setup remove redis --keys");
    assert!(said.contains(scopes[1]), "{said}");
    for unit in [scopes[1], "spiped-receive@redis-in", "spiped-send@redis-out"] {
        assert!(!runs(unit), "{unit}");
    }
    assert_eq!(host.must("ls -A /etc/spiped"), "");
    refused(&host.run("spiped setup remove redis"), 66, "there is no pipe redis");
}

/// The drain timeout of the connections does not matter.
#[test]
fn a_client_whose_key_is_removed_is_out_at_once() {
    if !hosts_can_be("spiped setup remove --keys with an open connection") {
        return;
    }
    let hosts = Hosts::boot(&["host"]);
    let host = &hosts["host"];
    host.has_redis();
    host.must(RECEIVE);
    host.sh("echo SPIPED_DRAIN_TIMEOUT=3600 >> /etc/spiped/redis.conf
         systemctl restart spiped-receive@redis
         cp -p /etc/spiped/redis.key /root/key
         spiped setup send redis-in -s 127.0.0.1:8000 -t 192.0.2.1:6379 -k /root/key");
    host.net().enter(|| {
        let address = "127.0.0.1:8000".parse().unwrap();
        let mut before = Client::connect(address).unwrap();
        before.ping().unwrap();
        host.must("systemctl restart spiped-receive@redis");
        let mut open = Client::connect(address).unwrap();
        open.ping().unwrap();
        before.ping().unwrap();
        host.must("spiped setup remove redis --keys");
        assert!(open.ping().is_err());
        wait_until("the one of before the restart is out", || before.ping().is_err());
    });
    // A sender of that name is not half of a pair.
    host.must("rm /etc/spiped/redis.conf");
    let said = refused(&host.run("spiped setup remove redis"), 66, "there is no pipe redis");
    assert!(said.ends_with("hint: these are on this host: redis-in"), "{said}");
    assert!(is_heard(host, "8000"));
}
