//! `spiped check --all`, where a process does not tell the truth at its control socket: it hides
//! nothing of other pipes, and has root touch nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use serde_json::{Value, json};

use super::host::{HYBRID, Host, redis_for_all};
use crate::support::redis::Redis;
use crate::support::{Daemon, Server, nobody};

/// Answers at the control socket of a unit like a spiped, with these fields in place of its own.
fn lie(host: &Host, unit: &str, lie: &Value) {
    let mut told = honest_answer(host);
    for (name, value) in lie.as_object().unwrap() {
        told[name] = value.clone();
    }
    let told = format!("{told}\n");
    let folder = host.path(&format!("run/{unit}"));
    fs::create_dir(&folder).unwrap();
    let listener = UnixListener::bind(folder.join("control")).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            BufReader::new(&client).read_line(&mut String::new()).unwrap();
            let _gone = write!(client, "ok status {}\n{told}", told.len());
        }
    });
}

/// What a receiver tells of itself.
fn honest_answer(host: &Host) -> Value {
    let control = host.path("honest.control");
    let more = ["--control", control.to_str().unwrap()];
    let _honest = Daemon::receiver(&host.0.shared_key(), nobody(), &more);
    let mut asks = UnixStream::connect(&control).unwrap();
    asks.write_all(b"spiped/1 status 11\nconnections").unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    fs::remove_file(control).unwrap();
    serde_json::from_str(answer.split_once('\n').unwrap().1).unwrap()
}

#[test]
fn no_process_hides_the_listeners_of_others() {
    Host::with(|host| {
        let redis = redis_for_all(host);
        let port = redis.address.port();
        let receiver = host.receiver("[192.0.2.1]:7000", redis.address, &HYBRID);
        let exposed = [
            format!("plaintext-target-exposed 0.0.0.0:{port}"),
            format!("plaintext-target-exposed [::]:{port}"),
        ];
        assert_eq!(host.check("").of("in"), exposed);
        let socket = redis.socket.display().to_string();
        let before: u64 = redis.info("total_connections_received").parse().unwrap();
        let listening = [format!("[0.0.0.0]:{port}"), format!("[::]:{port}"), socket.clone()];
        let told = json!({ "listening": listening, "pid": receiver.child.id() });
        lie(host, "spiped-receive@evil", &told);
        let found = host.check("");
        assert_eq!(found.of("in"), exposed, "{}", found.text);
        let unproved: Vec<_> =
            listening.iter().map(|at| format!("plaintext-unproved {at}")).collect();
        assert_eq!(found.of("evil")[..3], unproved, "{}", found.text);
        assert_eq!(found.pipe("evil")["pid"], std::process::id());
        // What it only says that it has was not touched.
        let now: u64 = redis.info("total_connections_received").parse().unwrap();
        assert_eq!(now, before + 1);
    });
}

#[test]
fn no_process_has_the_files_of_another_unit_read() {
    Host::with(|host| {
        let attacker = Server::echo();
        for (number, (unit, mut told)) in [
            ("spiped-send@evil", json!({ "unit": "spiped-send@out.service", "role": "sender" })),
            (
                "spiped-receive@evil",
                json!({ "unit": "spiped-receive@../../tmp/evil.service", "role": "receiver" }),
            ),
            (
                "spiped-receive@worse",
                json!({ "unit": "spiped-receive@worse.service", "role": "sender" }),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            told["target"] = json!({ "address": attacker.address.to_string(), "reachable": null,
                                    "tried": null, "error": null });
            lie(host, unit, &told);
            let found = host.check("");
            assert_eq!((found.code, &found.json["not_asked"]), (69, &(number + 1).into()));
            assert!(found.text.contains("  not asked  it says that it is the "), "{}", found.text);
        }
        assert_eq!(attacker.accepted(), 0);
    });
}

#[test]
fn a_sender_is_proved_by_its_own_files_and_not_by_what_it_tells() {
    Host::with(|host| {
        let (attacker, own) = (Server::echo(), Server::echo());
        let key = json!({ "address": null, "cipher": null, "connection_limit": null,
            "connections": 0, "in_force": true, "key": host.path("etc/spiped/in").display().to_string(),
            "key_id": "1", "kex": null, "last_used": null,
            "totals": { "connections": 0, "sent_bytes": 0, "received_bytes": 0, "closed": {} } });
        let target = json!({ "address": attacker.address.to_string(), "reachable": null,
                             "tried": null, "error": null });
        let unit = "spiped-send@out.service";
        let told = json!({ "unit": unit, "role": "sender", "target": target, "keys": [key] });
        let conf = format!("SPIPED_TARGET={}\n", own.address);
        fs::write(host.path("etc/spiped/out.conf"), conf).unwrap();
        lie(host, "spiped-send@out", &told);
        let found = host.check("");
        let out = found.pipe("out");
        assert_eq!(out["proof"]["result"], "failed", "{}", found.text);
        assert_eq!(out["keys"][0]["file"], Value::Null, "{}", found.text);
        assert_eq!((attacker.accepted(), own.accepted() > 0), (0, true));
    });
}

#[test]
fn many_addresses_of_one_process_share_one_limit() {
    Host::with(|host| {
        // The kernel takes connections, and nobody answers.
        let silent: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |it: &TcpListener| format!("[127.0.0.1]:{}", it.local_addr().unwrap().port());
        let listening: Vec<_> = silent.iter().map(address).collect();
        lie(host, "spiped-receive@evil", &json!({ "listening": listening }));
        let found = host.check("");
        assert_eq!(found.of("evil").iter().filter(|it| it.starts_with("plaintext-")).count(), 100);
        let late = ": it was not tried: its other addresses have taken all the time; ";
        // Sixteen are tried at once, for 2 s each.
        assert!(found.text.matches(late).count() >= 50, "{}", found.text);
    });
}

/// Sockets of a spiped, whatever it is called and says.
#[test]
fn each_spiped_that_listens_is_shown() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        let key = host.0.shared_key();
        let unix = host.path("unix").display().to_string();
        let key = key.to_str().unwrap();
        let target = nobody().to_string();
        let on_unix = Daemon::start(&["-d", "-s", &unix, "-t", &target, "-k", key]);
        // By another name, with the variable of a unit.
        let link = host.path("other");
        std::os::unix::fs::symlink(crate::support::SPIPED, &link).unwrap();
        let mut command = std::process::Command::new(link);
        command.args(["-F", "-d", "-s", "[127.0.0.1]:0", "-t", &target, "-k", key]);
        command.env("SPIPED_UNIT", "spiped-receive@in.service");
        let by_other_name = Daemon::spawn(command);
        let found = host.check("");
        assert_eq!((found.code, &found.json["not_asked"]), (69, &2.into()), "{}", found.text);
        for (daemon, at) in [(&on_unix, unix), (&by_other_name, by_other_name.address.to_string())]
        {
            let told = format!("process {}, a spiped, listens at {at}, ", daemon.child.id());
            assert!(found.text.contains(&told), "{told}: {}", found.text);
        }
        // One that hangs was asked.
        drop((on_unix, by_other_name));
        receiver.signal("STOP");
        let found = host.check("");
        assert_eq!((found.code, &found.json["not_asked"]), (69, &1.into()), "{}", found.text);
        receiver.signal("CONT");
    });
}
