//! The status over HTTP of a unit, by its configuration and by a socket unit.

use std::net::SocketAddr;

use crate::status_http::get;
use crate::support::hosts::{Hosts, commands_of, hosts_can_be};
use crate::support::{Server, wait_until};

const UNIT: &str = "spiped-receive@redis";

#[test]
fn a_unit_tells_its_status_over_http() {
    if !hosts_can_be("the status over HTTP of a unit") {
        return;
    }
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let target = host.net().enter(Server::echo).address;
    let line = &commands_of("STATUS OVER HTTP")[0];
    let config = format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={target}\n");
    host.write_etc("redis.conf", format!("{config}{line}"), 0o644);
    host.write_etc("redis.key", [3; 32], 0o600);
    host.start("start", UNIT);
    let at = SocketAddr::from(([127, 0, 0, 1], 9101));
    let body = |path: &str| host.net().enter(|| get(at, path).body);
    let process =
        || body("/status").split("\"pid\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    wait_until("it answers", || host.log(UNIT).contains("status over HTTP at "));
    assert!(body("/metrics").contains("\nprocess_open_fds "));
    assert_eq!(body("/readyz"), "ok\n");
    // The next process has the address at once.
    let before = process();
    host.start("restart", UNIT);
    assert!(process() != before && !host.log(UNIT).contains("no status over HTTP"));

    // As the manual shows it.
    host.write_etc("redis.conf", &config, 0o644);
    let [_, unit, commands] = &commands_of("STATUS OVER HTTP")[..] else { panic!("three blocks") };
    let file = host.root.join("etc/systemd/system/spiped-status@.socket");
    std::fs::write(file, unit).unwrap();
    host.must("systemctl daemon-reload");
    host.sh(commands);
    let ask = "curl -sf --unix-socket /run/spiped-status-redis.socket http://localhost/readyz";
    assert_eq!(host.must(ask), "ok");
    host.start("restart", UNIT);
    assert_eq!(host.must(ask), "ok");
    assert_eq!(host.must("stat --format %a:%G /run/spiped-status-redis.socket"), "660:adm");
}
