//! `spiped check --all` on hosts whose pipes are units, set up by `spiped setup`.

use std::process::Output;

use serde_json::Value;

use crate::support::hosts::{Host, Hosts, hosts_can_be, said};

const RECEIVE: &str = "spiped setup receive redis --source 192.0.2.1:6379 --target 127.0.0.1:6379";
const SEND: &str = "spiped setup send redis --source 127.0.0.1:8000 --target 192.0.2.1:6379 --key";

/// The names of all findings, and the exit code; both forms say the same.
fn found(host: &Host, more: &str) -> (Vec<String>, Option<i32>) {
    let text = host.run(&format!("spiped check --all{more}"));
    let json = host.run(&format!("spiped check --all --json{more}"));
    assert_eq!(text.status.code(), json.status.code(), "{}", said(&text));
    let names = names_in(&json);
    let text = said(&text);
    let lines = text.lines().filter_map(|line| line.strip_prefix("  FINDING    "));
    assert_eq!(lines.map(|it| it.split(':').next().unwrap()).collect::<Vec<_>>(), names, "{text}");
    (names, json.status.code())
}

fn names_in(json: &Output) -> Vec<String> {
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let pipes = json["pipes"].as_array().unwrap();
    let all = pipes.iter().flat_map(|pipe| pipe["findings"].as_array().unwrap());
    all.map(|it| it["finding"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_auditor_finds_what_is_open_on_hosts_that_setup_has_made() {
    if !hosts_can_be("spiped check --all on hosts with units") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b"]);
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.has_redis();
    a.must(RECEIVE);
    b.write_etc("brought", std::fs::read(a.etc("redis.key")).unwrap(), 0o600);
    b.must(&format!("{SEND} /etc/spiped/brought"));

    // As setup leaves it, senders may still use the classical exchange.
    assert_eq!(found(a, ""), (vec!["classical-accepted".to_owned()], Some(1)));
    assert_eq!(found(a, " --accept classical-accepted,key-old"), (vec![], Some(0)));
    let refused = a.run("spiped check --all --accept classical");
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    a.sh("echo SPIPED_KEX=x25519mlkem768 >> /etc/spiped/redis.conf; systemctl restart spiped-receive@redis");
    assert_eq!(found(a, ""), (vec![], Some(0)));
    assert_eq!(found(b, ""), (vec![], Some(0)));
    let text = a.must("spiped check --all");
    for part in [
        "redis (receiver): serving, spiped-receive@redis.service, process ",
        "  listens    [192.0.2.1]:6379: encrypted only, plaintext was tried and refused in ",
        ": on this host, redis-server (process ",
        ": /etc/spiped/redis.key, written ",
        "\n\n1 pipe, 0 findings",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = b.must("spiped check --all");
    assert!(text.contains("  proof      works, connect "), "{text}");

    // The receiver has the port of the host's first address.
    a.must("ip address add 198.51.100.1/24 dev host0");
    a.sh("redis-cli config set bind '127.0.0.1 198.51.100.1'");
    a.sh("touch -d '400 days ago' /etc/spiped/redis.key");
    let both = ["key-old", "plaintext-target-exposed"].map(str::to_owned);
    let (mut names, code) = found(a, "");
    names.sort();
    assert_eq!((&*names, code), (&both[..], Some(1)));
    assert_eq!(found(a, " --key-age 500").0, both[1..]);

    // On b, only the proof shows that the server is gone.
    a.must("systemctl stop redis-server");
    assert_eq!(found(b, ""), (vec!["pipe-broken".to_owned()], Some(1)));

    let down = "target-down".to_owned();
    assert!(found(a, "").0.contains(&down));

    // A file that is open to others, and a unit that has failed.
    a.sh("chmod 644 /etc/spiped/redis.key");
    assert!(found(a, "").0.contains(&"start-refused".to_owned()));
    assert!(!a.run("systemctl restart spiped-receive@redis").status.success());
    for command in ["spiped check --all", "spiped status"] {
        let told = a.run(command);
        let text = said(&told);
        assert_eq!(told.status.code(), Some(69), "{text}");
        assert!(text.contains("the unit spiped-receive@redis.service is failed"), "{text}");
    }

    // Another user learns what it may not see.
    let other = b.run("setpriv --reuid=65534 --clear-groups spiped check --all");
    let text = said(&other);
    assert_eq!(other.status.code(), Some(69), "{text}");
    assert!(text.contains("\nnot seen: which programs have "), "{text}");
    assert!(text.contains("  not asked  ") && text.ends_with(", 1 not asked"), "{text}");
}

/// Both commands show this of a unit.
fn shows(host: &Host, line: &str) {
    for command in ["spiped check --all", "spiped status"] {
        let told = host.run(command);
        let text = said(&told);
        assert_eq!(told.status.code(), Some(69), "{command}: {text}");
        assert!(text.contains(line), "{command}: {text}");
    }
}

fn shows_nothing(host: &Host) {
    assert_eq!(host.run("spiped check --all").status.code(), Some(0));
    assert!(host.must("spiped status").starts_with("no pipe runs here as a unit\n"));
}

#[test]
fn units_that_do_not_serve_are_seen_as_systemd_has_them() {
    if !hosts_can_be("spiped check --all on a host whose units do not serve") {
        return;
    }
    let hosts = Hosts::boot(&["a"]);
    let a = &hosts["a"];
    a.has_redis();
    shows_nothing(a);
    a.write_etc(
        "redis.conf",
        "SPIPED_SOURCE=192.0.2.1:6379\nSPIPED_TARGET=127.0.0.1:6379\n",
        0o644,
    );
    a.write_etc("redis.key", [7; 32], 0o600);

    // A start that hangs, and a socket whose service fails at each client.
    let unit = "spiped-receive@redis.service";
    a.drop_in(unit, "[Service]\nExecStartPre=sleep 1000\n");
    a.must(&format!("systemctl start --no-block {unit}"));
    shows(a, &format!("the unit {unit} is still starting"));
    a.must(&format!("systemctl stop {unit}"));
    a.must("systemctl reset-failed");
    a.must(&format!("rm -r /etc/systemd/system/{unit}.d"));
    a.must("systemctl daemon-reload");
    a.must(&format!("systemctl enable --quiet --runtime {unit}"));
    shows(a, &format!("the unit {unit} is enabled, and does not run"));
    a.must(&format!("systemctl disable --quiet --runtime {unit}"));
    shows_nothing(a);

    // Killed, then stopped: the socket is left.
    a.start("start", unit);
    a.must(&format!("systemctl kill --signal KILL --kill-whom all {unit}"));
    a.must(&format!("systemctl stop {unit}"));
    assert!(a.outside("/run/spiped-receive@redis/control").exists());
    shows_nothing(a);

    // What the file lacks, a drop-in may have.
    a.start("start", unit);
    a.write_etc("redis.conf", "SPIPED_SOURCE=192.0.2.1:6379\n", 0o644);
    assert_eq!(found(a, " --accept classical-accepted").0, ["start-refused"]);
    a.drop_in(unit, "[Service]\nEnvironment=SPIPED_TARGET=127.0.0.1:6379\n");
    assert_eq!(found(a, " --accept classical-accepted"), (vec![], Some(0)));
    let text = a.must("spiped check --all --accept classical-accepted");
    assert!(
        text.contains("  start      not judged, as its unit has drop-ins: -t is not given\n"),
        "{text}"
    );
    a.must(&format!("systemctl stop {unit}"));

    // A socket that only waits.
    a.write_etc("sk.conf", "SPIPED_TARGET=192.0.2.1:6379\n", 0o644);
    a.write_etc("sk.key", [7; 32], 0o600);
    let socket = "spiped-send@sk.socket";
    a.drop_in(socket, "[Socket]\nListenStream=\nListenStream=0.0.0.0:8700\n");
    a.must(&format!("systemctl start {socket}"));
    assert_eq!(found(a, "").0, ["plaintext-source-exposed"]);
    a.drop_in(socket, "[Socket]\nListenStream=\nListenStream=127.0.0.1:8700\n");
    a.must(&format!("systemctl restart {socket}"));
    assert_eq!(found(a, ""), (vec![], Some(0)));
    assert!(a.must("spiped check --all").contains("sk (sender): idle, spiped-send@sk.socket"));
}
