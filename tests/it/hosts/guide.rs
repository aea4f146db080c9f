//! A walk through the guide: one host with Redis, one with its clients.

use std::process::{Child, Stdio};

use crate::support::hosts::{Cable, Host, Hosts, hosts_can_be};
use crate::support::{Lines, need, signal, wait_until};

#[test]
fn two_hosts_come_up_again_whatever_happens_to_either() {
    if !hosts_can_be("the guide's two hosts") {
        return;
    }
    let mut hosts = Hosts::boot(&["server", "client"]);
    for host in ["server", "client"] {
        hosts[host].write_etc("redis.key", [3; 32], 0o600);
        hosts[host].write_etc("redis.addr", "ADDR=192.0.2.1\n", 0o644);
    }
    hosts["server"].has_redis();
    hosts["server"].must("systemctl enable --quiet --now spiped-receive");
    hosts["client"].must("systemctl enable --quiet --now spiped-send");
    answers(&hosts["client"]);

    let capture = Capture::start(&hosts);
    let secret = "a-word-that-must-not-be-seen";
    assert_eq!(hosts["client"].redis(&format!("set unseen-name {secret}")), "OK");
    assert_eq!(hosts["client"].redis("get unseen-name"), secret);
    let seen = capture.stop();
    assert!(seen.contains("192.0.2.1.6379"), "nothing was captured:\n{seen}");
    for word in [secret, "unseen-name"] {
        assert!(!seen.contains(word), "{word} crossed the cable:\n{seen}");
    }

    // The saved data is there after the boot, too.
    assert_eq!(hosts["client"].redis("save"), "OK");
    for host in ["server", "client"] {
        hosts.reboot(host);
        answers(&hosts["client"]);
        hosts.power_off(host);
        hosts.power_on(host);
        answers(&hosts["client"]);
    }
    assert_eq!(hosts["client"].redis("get unseen-name"), secret);

    hosts.set_cable("server", Cable::Out);
    hosts.set_cable("server", Cable::In);
    answers(&hosts["client"]);
}

fn answers(client: &Host) {
    wait_until("redis answers", || client.redis("ping") == "PONG");
}

/// All packets that cross the switch, with their content.
struct Capture {
    tcpdump: Child,
    packets: Lines,
}

impl Capture {
    fn start(hosts: &Hosts) -> Self {
        need("tcpdump", "tcpdump");
        let mut tcpdump = hosts
            .on_the_switch("tcpdump")
            .args(["-i", "switch", "-n", "-A", "-l", "--immediate-mode", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Lines::collect(tcpdump.stderr.take().unwrap()).wait_for("listening on switch");
        let packets = Lines::collect(tcpdump.stdout.take().unwrap());
        Self { tcpdump, packets }
    }

    fn stop(mut self) -> String {
        self.packets.wait_for("192.0.2.1.6379 > ");
        signal(&self.tcpdump, "INT");
        self.tcpdump.wait().unwrap();
        self.packets.all().join("\n")
    }
}
