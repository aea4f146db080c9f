//! `spiped status` on a host whose pipes are units.

use std::net::SocketAddr;

use super::restarts::Client;
use crate::support::hosts::{Hosts, hosts_can_be, said};
use crate::support::wait_until;

#[test]
fn status_shows_all_units_and_what_drains_after_a_restart() {
    if !hosts_can_be("the status of units") {
        return;
    }
    let hosts = Hosts::boot(&["a"]);
    let a = &hosts["a"];
    assert!(a.must("spiped status").starts_with("no pipe runs here as a unit\nhint: "));
    a.has_redis();
    for (pipe, source, target, unit) in [
        ("in", "192.0.2.1:7000", "127.0.0.1:6379", "spiped-receive@in.service"),
        ("out", "127.0.0.1:8000", "192.0.2.1:7000", "spiped-send@out.service"),
    ] {
        let conf =
            format!("SPIPED_SOURCE={source}\nSPIPED_TARGET={target}\nSPIPED_DRAIN_TIMEOUT=3600\n");
        a.write_etc(&format!("{pipe}.conf"), conf, 0o644);
        a.write_etc(&format!("{pipe}.key"), [3; 32], 0o600);
        a.start("enable --quiet --now", unit);
    }
    let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
    let mut client = a.net().enter(|| Client::connect(address).unwrap());
    client.ping().unwrap();
    a.must("systemctl restart spiped-receive@in.service");
    client.ping().unwrap();

    // The names, roles and states.
    let shown = || {
        let text = a.must("spiped status");
        let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let mut lines: Vec<_> = text.lines().skip(1).map(words).collect();
        lines.sort();
        lines
    };
    let both = ["in receiver serving", "out sender serving"];
    assert_eq!(shown(), ["in receiver draining", both[0], both[1]]);
    let full = a.must("spiped status in");
    assert!(full.contains("in (receiver): draining, started "), "{full}");
    assert!(full.contains("unit          spiped-receive@in.service"), "{full}");
    let open = a.must("spiped status --connections");
    assert_eq!(open.lines().count(), 3, "{open}");

    drop(client);
    wait_until("nothing drains", || shown() == both);
    a.must("systemctl stop spiped-send@out.service");
    let stopped = a.run("spiped status");
    let text = said(&stopped);
    assert_eq!(stopped.status.code(), Some(69), "{text}");
    let line = "\nout: the unit spiped-send@out.service is enabled, and does not run\n";
    assert!(text.contains(line), "{text}");
    a.must("systemctl disable --quiet spiped-send@out.service");
    assert_eq!(shown(), both[..1]);
}
