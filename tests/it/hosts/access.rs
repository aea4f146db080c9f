//! Who may use a sender that is a unit: the recipe of spiped.conf(5), word for word.

use crate::support::Server;
use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be, said};

const SEND: &str = "spiped-send@redis";

/// Whether the pipe serves a user of the host, at an address or path as socat has it.
fn serves(host: &Host, user: &str, at: &str) -> bool {
    let line = format!(
        "setpriv --reuid {user} --regid {user} --init-groups \
         bash -c '(echo hello; sleep 0.5) | socat -t 10 - {at}'"
    );
    said(&host.shell(&line).output().unwrap()).starts_with("hello")
}

/// Starts the sender, which must fail, and returns its status and log.
fn fails(host: &Host) -> (String, String) {
    assert!(!host.run(&format!("systemctl restart {SEND}")).status.success());
    let status = host.must(&format!("systemctl show -P ExecMainStatus {SEND}"));
    (status, host.log(SEND))
}

#[test]
fn a_unit_lets_only_the_users_in_that_it_names() {
    if !hosts_can_be("the users of a unit") {
        return;
    }
    crate::support::need("socat", "socat");
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let server = host.net().enter(Server::echo);
    let receive = format!("SPIPED_SOURCE=127.0.0.1:7000\nSPIPED_TARGET={}\n", server.address);
    let send = "SPIPED_SOURCE=127.0.0.1:8000\nSPIPED_TARGET=127.0.0.1:7000\n";
    let allow = "SPIPED_ALLOW_UID=www-data\n";
    for (name, conf) in [("in", &*receive), ("redis", &format!("{send}{allow}"))] {
        host.write_etc(&format!("{name}.key"), [3; 32], 0o600);
        host.write_etc(&format!("{name}.conf"), conf, 0o644);
    }
    host.start("start", "spiped-receive@in");

    // In the sandbox, all users of the host look alike, and TCP tells no user.
    let (status, log) = fails(host);
    assert_eq!(status, "67", "{log}");
    assert!(log.contains("user 'www-data' cannot be told from others"), "{log}");
    assert!(log.contains("PrivateUsers=no"), "{log}");
    let unit = format!("{SEND}.service");
    host.drop_in(&unit, "[Service]\nPrivateUsers=no\n");
    let (status, log) = fails(host);
    assert_eq!(status, "77", "{log}");
    assert!(log.contains("cannot find out which users connect to [127.0.0.1]:8000"), "{log}");
    assert!(log.contains("RestrictAddressFamilies=AF_NETLINK"), "{log}");

    std::fs::remove_dir_all(host.root.join(format!("etc/systemd/system/{unit}.d"))).unwrap();
    host.write_etc("redis.conf", send, 0o644);
    host.sh(&commands_of("WHO MAY USE THE SENDER")[0]);
    assert!(host.log(SEND).contains("listening on [127.0.0.1]:8000"));
    let at = "TCP:127.0.0.1:8000";
    assert!(serves(host, "www-data", at));
    assert!(!serves(host, "daemon", at));
    assert!(host.log(SEND).contains("reason=not-allowed") && host.log(SEND).contains(" uid=1 "));
    assert!(!serves(host, "root", at));
    let process = host.must(&format!("systemctl show -P MainPID {SEND}"));
    let process = host.must(&format!("cat /proc/{process}/status"));
    assert!(process.contains("CapEff:\t0000000000000000") && !process.contains("Uid:\t0"));

    // A socket unit, whose socket anybody can connect to.
    host.must(&format!("systemctl stop {SEND}"));
    let conf = "SPIPED_TARGET=127.0.0.1:7000\nSPIPED_ALLOW_GID=www-data\n";
    host.write_etc("redis.conf", conf, 0o644);
    host.drop_in(&format!("{SEND}.socket"), "[Socket]\nSocketMode=0666\n");
    host.must(&format!("systemctl start {SEND}.socket"));
    let at = "UNIX-CONNECT:/run/spiped/redis.socket";
    assert!(serves(host, "www-data", at));
    assert!(!serves(host, "daemon", at));
    assert!(host.log(SEND).contains(" uid=1 pid="), "{}", host.log(SEND));
}
