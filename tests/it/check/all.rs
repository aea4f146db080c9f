//! `spiped check --all`: the pipes of a host, as an auditor finds them.

use std::fs;

use serde_json::Value;

use super::host::{HYBRID, Host, open, redis_for_all, write_days_ago};
use crate::support::redis::Redis;
use crate::support::{Daemon, nobody};

#[test]
fn a_host_without_a_fault_has_no_finding() {
    Host::with(|host| {
        let none = host.check("");
        assert_eq!(none.code, 0);
        let redis = Redis::start(&host.0, "redis", &[]);
        let port = redis.address.port();
        // On the port of its target, as the recipes have it.
        let source = format!("[192.0.2.1]:{port}");
        let receiver = host.receiver(&source, redis.address, &HYBRID);
        let sender = host.sender("[127.0.0.1]:8000", &source, &[]);
        let _open = open(&sender);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let text = &found.text;
        for part in [
            &format!(
                "in (receiver): serving, spiped-receive@in.service, process {}\n",
                receiver.child.id()
            ),
            &format!("  listens    {source}: encrypted only, plaintext was tried and refused in "),
            "  target     [127.0.0.1]:",
            ": on this host, redis-server (process ",
            "  kex        x25519mlkem768: accepts x25519mlkem768; 0 of 1 open connections with ",
            "  key        in ",
            ": /etc/spiped/in.key, written ",
            &format!(
                "out (sender): serving, spiped-send@out.service, process {}\n",
                sender.child.id()
            ),
            "  listens    [127.0.0.1]:8000: takes plaintext of this host, on loopback\n",
            ": what goes there is encrypted\n",
            "  proof      works, connect ",
            " ms, x25519mlkem768 ",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        receiver.log.wait_for("looks like plaintext redis");
        receiver.log.wait_for(" client=nobody ");
        let (pipe, out) = (found.pipe("in"), found.pipe("out"));
        assert_eq!(
            (&pipe["listening"][0]["plaintext"], &pipe["proof"]),
            (&"refused".into(), &Value::Null)
        );
        assert_eq!(
            (&pipe["target"]["place"], &out["target"]["place"]),
            (&"this-host".into(), &"receiver".into())
        );
        assert_eq!(pipe["target"]["listeners"][0]["program"], "redis-server");
        assert_eq!(
            (&pipe["keys"][0]["is_in_force"], &out["proof"]["result"]),
            (&true.into(), &"works".into())
        );
    });
}

#[test]
fn a_target_that_other_hosts_reach_is_found() {
    Host::with(|host| {
        let redis = redis_for_all(host);
        let port = redis.address.port();
        let _receiver = host.receiver("[192.0.2.1]:7000", redis.address, &HYBRID);
        let found = host.check("");
        assert_eq!(found.code, 1, "{}", found.text);
        let exposed = [
            format!("plaintext-target-exposed 0.0.0.0:{port}"),
            format!("plaintext-target-exposed [::]:{port}"),
        ];
        assert_eq!(found.of("in"), exposed);
        assert!(found.text.contains(": redis-server (process "), "{}", found.text);
        for (bind, is_found) in [("127.0.0.1 ::1", false), ("127.0.0.1 2001:db8::1", true)] {
            redis.cli(&["CONFIG", "SET", "bind", bind]);
            let wanted = if is_found {
                vec![format!("plaintext-target-exposed [2001:db8::1]:{port}")]
            } else {
                vec![]
            };
            let found = host.check("");
            assert_eq!(
                (found.of("in"), found.code),
                (wanted, i32::from(is_found)),
                "{}",
                found.text
            );
        }
    });
}

#[test]
fn a_target_on_another_host_or_of_an_unknown_name_is_found() {
    Host::with(|host| {
        for (target, kind) in [
            ("[192.0.2.2]:6379", "plaintext-target-remote"),
            ("nothing.invalid:6379", "plaintext-target-unknown"),
        ] {
            let _receiver = host.receiver("[127.0.0.1]:0", target, &HYBRID);
            let found = host.check("");
            assert_eq!((found.code, found.of("in")), (1, vec![format!("{kind} {target}")]));
            fs::remove_dir_all(host.path("run/spiped-receive@in")).unwrap();
        }
    });
}

#[test]
fn unix_sockets_are_told_with_their_mode() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &["--unixsocketperm", "770"]);
        let at = |name: &str| host.path(name).display().to_string();
        let _receiver = host.receiver(&at("in"), redis.socket.display(), &HYBRID);
        let _sender = host.sender(&at("out"), at("in"), &["--socket-mode", "0660"]);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let (pipe, out) = (found.pipe("in"), found.pipe("out"));
        assert_eq!(
            (&pipe["target"]["place"], &pipe["target"]["mode"]),
            (&"unix-socket".into(), &"0770".into())
        );
        assert_eq!(pipe["listening"][0]["plaintext"], "refused");
        let source = &out["listening"][0];
        assert_eq!(
            (&source["plaintext"], &source["mode"], &source["owner"]),
            (&"unix-socket".into(), &"0660".into(), &0.into())
        );
        assert!(
            found.text.contains("on a unix socket, mode 0660, user 0, group 0\n"),
            "{}",
            found.text
        );
    });
}

#[test]
fn a_source_and_a_status_that_other_hosts_reach_are_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[0.0.0.0]:7000", redis.address, &HYBRID);
        let exposed = ["--expose-status", "--status", "[192.0.2.1]:9100"];
        let _sender = host.sender("[0.0.0.0]:8000", receiver.address, &exposed);
        let found = host.check("");
        assert_eq!(found.code, 1, "{}", found.text);
        assert!(found.of("in").is_empty(), "{}", found.text);
        let wanted = ["plaintext-source-exposed [0.0.0.0]:8000", "status-exposed 192.0.2.1:9100"];
        assert_eq!(found.of("out"), wanted, "{}", found.text);
    });
}

#[test]
fn old_keys_and_files_of_other_keys_are_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let file = host.path("etc/spiped/in.key");
        let folder = host.path("etc/spiped/in.keys");
        fs::create_dir(&folder).unwrap();
        host.0.key("etc/spiped/in.keys/bob.key");
        let more = ["-k", folder.to_str().unwrap()];
        let receiver =
            host.receiver("[127.0.0.1]:0", redis.address, &[&HYBRID[..], &more].concat());
        write_days_ago(&file, 300);
        write_days_ago(&folder.join("bob.key"), 400);
        let found = host.check("");
        let id = |name: &str| {
            let keys = found.pipe("in")["keys"].as_array().unwrap();
            keys.iter().find(|key| key["key"] == name).unwrap()["key_id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            (found.code, found.of("in")),
            (1, vec![format!("key-old key bob {}", id("bob"))])
        );
        let what = "/etc/spiped/in.keys/bob.key was written 400 days ago, more than 365; hint: ";
        assert!(found.text.contains(what), "{}", found.text);
        assert_eq!(host.check("--key-age 299").of("in").len(), 2);
        assert_eq!(host.check("--key-age 400").code, 1);
        assert_eq!(host.check("--key-age 401").code, 0);

        // The file's time is not that of the key in force.
        fs::remove_file(&file).unwrap();
        host.0.key("etc/spiped/in.key");
        let found = host.check("--key-age 999");
        assert_eq!(found.of("in"), [format!("key-file-differs key in {}", id("in"))]);
        receiver.signal("HUP");
        receiver.log.wait_for("added");
    });
}

#[test]
fn the_classical_exchange_is_found_where_it_is_accepted_and_used() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &[]);
        let accepted = "classical-accepted kex auto";
        assert_eq!(host.check("").of("in"), [accepted]);
        let sender = host.sender("[127.0.0.1]:0", receiver.address, &["--kex", "x25519"]);
        let client = open(&sender);
        let found = host.check("");
        assert_eq!(found.code, 1);
        assert_eq!(found.of("in"), [accepted, "classical-used kex auto"]);
        assert_eq!(found.of("out"), ["classical-accepted kex x25519", "classical-used kex x25519"]);
        let used =
            "1 of 1 open connections use x25519 alone; the latest handshake of in was with it";
        assert!(found.text.contains(used), "{}", found.text);
        assert_eq!(found.pipe("out")["proof"]["kex"], "x25519");
        drop(client);
    });
}

#[test]
fn a_sender_whose_pipe_is_broken_is_found() {
    Host::with(|host| {
        let receiver = Daemon::receiver(&host.path("etc/spiped/in.key"), nobody(), &HYBRID);
        let _sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        let found = host.check("");
        let broken = format!("pipe-broken [127.0.0.1]:{}", receiver.address.port());
        assert_eq!(found.of("out"), [&*broken]);
        let why = ": the pipe works, but the server behind the receiver refused the connection; ";
        assert!(found.text.contains(why), "{}", found.text);
        // A spiped that nobody can ask is worse than a finding.
        let told =
            format!("process {}, a spiped, listens at {}, ", receiver.child.id(), receiver.address);
        assert_eq!(found.code, 69, "{}", found.text);
        assert!(found.text.contains(&format!("  not asked  {told}")), "{}", found.text);
        drop(receiver);
        let found = host.check("");
        assert_eq!((found.code, found.of("out")), (1, vec![broken]));
        assert!(found.text.contains(": cannot reach the receiver: "), "{}", found.text);
    });
}

#[test]
fn a_pipe_that_hangs_is_not_asked_and_one_that_drains_is_not_judged() {
    Host::with(|host| {
        let redis = redis_for_all(host);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &["--drain-timeout", "600"]);
        let sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        let client = open(&sender);
        assert_eq!(host.check("").of("in").len(), 3);
        receiver.signal("TERM");
        receiver.log.wait_for("draining open connections");
        let found = host.check("");
        assert!(found.of("in").is_empty(), "{}", found.text);
        assert!(found.text.contains("\nin (receiver): draining, "), "{}", found.text);
        // The sender has no receiver any more.
        assert_eq!((found.code, found.of("out").len()), (1, 1), "{}", found.text);
        drop(client);
    });
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        receiver.signal("STOP");
        let found = host.check("");
        assert_eq!((found.code, &found.json["not_asked"]), (69, &1.into()), "{}", found.text);
        receiver.signal("CONT");
        assert_eq!(host.check("").code, 0);
    });
}

#[test]
fn a_program_in_the_place_of_a_receiver_is_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let at = host.path("in");
        let source = at.display().to_string();
        let _receiver = host.receiver(&source, redis.address, &HYBRID);
        assert_eq!(host.check("").code, 0);
        fs::remove_file(&at).unwrap();
        assert_eq!(host.check("").of("in"), [format!("plaintext-unproved {source}")]);
        fs::rename(&redis.socket, &at).unwrap();
        let found = host.check("");
        assert_eq!((found.code, found.of("in")), (1, vec![format!("plaintext-served {source}")]));
        let said = "plaintext redis is served there, to anybody: \"+PONG\"; hint: ";
        assert!(found.text.contains(said), "{}", found.text);
    });
}

#[test]
fn of_a_sender_that_is_no_unit_the_key_file_is_not_known() {
    Host::with(|host| {
        let run = host.path("run/spiped-send@out");
        fs::create_dir(&run).unwrap();
        let control = run.join("control").display().to_string();
        let key = host.path("etc/spiped/out.key");
        write_days_ago(&key, 4000);
        let _sender = Daemon::sender(&key, nobody(), &["--control", &control]);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let out = found.pipe("out");
        assert_eq!((&out["unit"], &out["proof"]["result"]), (&Value::Null, &"not-tried".into()));
        assert_eq!(out["keys"][0]["written"], Value::Null);
        assert!(found.text.contains(": its file is not known\n"), "{}", found.text);
    });
}
