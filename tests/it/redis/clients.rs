//! Single clients: what they send arrives, and so do the replies.

use std::io::Write;

use super::resp::{array, ask, expect};
use crate::support::redis::{Redis, cli, run};
use crate::support::{Daemon, Folder, Pipe, wait_until};

#[test]
fn redis_cli_talks_through_the_pipe() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let port = pipe.sender.address.port().to_string();
    let binary: Vec<u8> = (0..=255).chain(*b"\r\n\0+OK\r\n").collect();

    assert_eq!(cli(&["-p", &port, "PING"]), "PONG");
    let set = run("redis-cli", &["-p", &port, "-x", "SET", "binary"], &binary);
    assert_eq!(set.stdout, b"OK\n");
    let get = run("redis-cli", &["-p", &port, "GET", "binary"], b"");
    assert_eq!(get.stdout.strip_suffix(b"\n"), Some(&*binary));
}

#[test]
fn redis_cli_at_the_receiver_gets_nothing_and_the_log_names_it() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let mut pipe = Pipe::to(&folder, redis.address);
    let (sender, receiver) = (pipe.sender.address.port(), pipe.receiver.address.port());

    let astray = run("redis-cli", &["-e", "-p", &receiver.to_string(), "PING"], b"");
    assert!(!astray.status.success(), "{astray:?}");
    assert_eq!(astray.stdout, b"");
    let line = pipe.receiver.log.wait_for("looks like plaintext redis");
    assert!(line.contains("warn"), "{line}");
    assert!(line.contains(r#"hint="redis clients connect to a sender ('spiped -e')"#), "{line}");

    assert!(pipe.receiver.is_running());
    assert_eq!(cli(&["-p", &sender.to_string(), "PING"]), "PONG");
}

#[test]
fn unix_sockets_serve_at_both_plaintext_ends() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &["--port", "0"]);
    let key = folder.shared_key();
    let socket = folder.path("sender.socket").to_str().unwrap().to_owned();
    let receiver = Daemon::receiver(&key, redis.socket.display(), &[]);
    let target = receiver.address.to_string();
    let key = key.to_str().unwrap();
    let _sender = Daemon::start(&["-e", "-s", &socket, "-t", &target, "-k", key]);

    assert_eq!(cli(&["-s", &socket, "SET", "key", "value"]), "OK");
    assert_eq!(cli(&["-s", &socket, "GET", "key"]), "value");
    assert_eq!(redis.cli(&["GET", "key"]), "value");
}

#[test]
fn a_blocked_client_is_woken_by_the_push_of_another() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let (mut waits, mut pushes) = (pipe.connect(), pipe.connect());

    waits.write_all(&array(&["BLPOP", "queue", "0"])).unwrap();
    wait_until("the client is blocked", || redis.info("blocked_clients") == "1");
    ask(&mut pushes, &["RPUSH", "queue", "job"], ":1\r\n");
    expect(&mut waits, array(&["queue", "job"]));
}

#[test]
fn a_transaction_happens_at_its_end() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let (mut writes, mut reads) = (pipe.connect(), pipe.connect());

    ask(&mut writes, &["MULTI"], "+OK\r\n");
    ask(&mut writes, &["SET", "number", "41"], "+QUEUED\r\n");
    ask(&mut writes, &["INCR", "number"], "+QUEUED\r\n");
    ask(&mut reads, &["GET", "number"], "$-1\r\n");
    ask(&mut writes, &["EXEC"], "*2\r\n+OK\r\n:42\r\n");
    ask(&mut reads, &["GET", "number"], "$2\r\n42\r\n");
}

#[test]
fn ten_thousand_commands_in_one_write_are_answered_in_order() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let mut client = pipe.connect();

    let commands = array(&["INCR", "number"]).repeat(10_000);
    client.write_all(&commands).unwrap();
    for number in 1..=10_000 {
        expect(&mut client, format!(":{number}\r\n"));
    }
}
