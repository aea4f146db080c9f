//! `--bind-per-key`: Redis tells clients apart by addresses, one for each key.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::process::Command;

use super::resp::ask;
use crate::support::redis::Redis;
use crate::support::{Daemon, End, Folder, SPIPED, connect, patient, read_to_end};

const RANGE: &str = "127.64.0.0/10";

fn keys(folder: &Folder, count: usize) {
    fs::create_dir(folder.path("keys")).unwrap();
    for number in 0..count {
        folder.key(&format!("keys/web{number}.key"));
    }
}

/// The addresses by the names of keys, as the command shows them.
fn shown(folder: &Folder) -> BTreeMap<String, String> {
    let mut command = Command::new(SPIPED);
    command.args(["keyid", "--bind-per-key", RANGE]).arg(folder.path("keys"));
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        (words[0].to_owned(), words[2].to_owned())
    };
    output.lines().map(line).collect()
}

/// A client of a sender, with the name that Redis knows it by.
fn client(sender: &Daemon, name: &str) -> TcpStream {
    let mut client = sender.connect();
    ask(&mut client, &["CLIENT", "SETNAME", name], b"+OK\r\n");
    client
}

#[test]
fn redis_names_each_of_ten_clients_and_can_kill_one() {
    let folder = Folder::new();
    keys(&folder, 10);
    fs::write(folder.path("keys/web3.conf"), "ADDRESS=127.64.3.3\n").unwrap();
    // Protected mode lets 127.0.0.1 in, and no other address of loopback.
    let more = ["--slowlog-log-slower-than", "0", "--protected-mode", "no"];
    let redis = Redis::start(&folder, "redis", &more);
    let more = ["--bind-per-key", RANGE];
    let receiver = Daemon::receiver(&folder.path("keys"), redis.address, &more);
    let addresses = shown(&folder);
    assert_eq!(addresses["web3"], "127.64.3.3");
    let senders: Vec<_> = addresses
        .keys()
        .map(|name| {
            let key = folder.path(&format!("keys/{name}.key"));
            (name, Daemon::sender(&key, receiver.address, &[]))
        })
        .collect();
    let mut clients: Vec<_> =
        senders.iter().flat_map(|(name, sender)| [(); 2].map(|()| client(sender, name))).collect();
    let list = redis.cli(&["CLIENT", "LIST"]);
    for (name, address) in &addresses {
        let of_name = list.lines().filter(|line| line.contains(&format!(" name={name} ")));
        let of_name: Vec<_> = of_name.collect();
        assert_eq!(of_name.len(), 2, "{list}");
        assert!(of_name.iter().all(|line| line.contains(&format!(" addr={address}:"))), "{list}");
    }
    assert!(redis.cli(&["SLOWLOG", "GET", "100"]).contains(&addresses["web7"]));

    let line = list.lines().find(|line| line.contains(" name=web0 ")).unwrap();
    let first = line.split(" addr=").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(redis.cli(&["CLIENT", "KILL", "ADDR", first]), "1");
    assert!(matches!(read_to_end(&mut clients[0]).1, End::Clean | End::Reset));
    for client in &mut clients[1..] {
        ask(client, &["PING"], b"+PONG\r\n");
    }
    // Whoever connects on the host itself still comes from 127.0.0.1.
    let mut local = patient(connect(redis.address));
    ask(&mut local, &["CLIENT", "SETNAME", "local"], b"+OK\r\n");
    assert!(redis.cli(&["CLIENT", "LIST"]).contains(" addr=127.0.0.1:"));
}

#[test]
fn two_keys_of_one_address_are_refused_with_both_names() {
    let folder = Folder::new();
    keys(&folder, 2);
    for name in ["web0", "web1"] {
        fs::write(folder.path(&format!("keys/{name}.conf")), "ADDRESS=127.64.3.3\n").unwrap();
    }
    let start = |more: &[&str]| {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-k"]).arg(folder.path("keys")).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = start(&["-t", "127.0.0.1:1", "--bind-per-key", RANGE]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("the keys web0 and web1 have the same address, 127.64.3.3"), "{said}");
    let (code, said) = start(&["-t", "127.0.0.1:1"]);
    assert_eq!(code, Some(65), "{said}");
    assert!(
        said.contains("the key web0 has an address") && said.contains("--bind-per-key"),
        "{said}"
    );
    for (target, range, reason) in [
        ("10.0.0.1:1", RANGE, "10.0.0.1"),
        ("/run/redis.socket", RANGE, "/run/redis.socket"),
        ("127.0.0.1:1", "127.0.0.0/9", "has 127.0.0.1 in it"),
        ("127.0.0.1:1", "10.0.0.0/9", "is not within 127.0.0.0/8"),
    ] {
        let (code, said) = start(&["-t", target, "--bind-per-key", range]);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(reason) && said.contains("hint: "), "{said}");
    }
}
