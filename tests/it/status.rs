//! What a running process tells of itself at its control socket, held to real traffic.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Daemon, Folder, SPIPED, Server, nobody, noise, read_to_end, round_trip, wait_until,
    wait_until_within,
};

/// Both ends of a pipe to a server, each with a control socket.
struct Observed {
    folder: Folder,
    server: Server,
    receiver: Daemon,
    sender: Daemon,
}

impl Observed {
    fn to(server: Server, more: &[&str]) -> Self {
        let folder = Folder::new();
        let key = folder.key("alice");
        let control = |name: &str| folder.path(name).to_str().unwrap().to_owned();
        let at = control("receiver");
        let of_receiver = [&["--control", &at], more].concat();
        let receiver = Daemon::receiver(&key, server.address, &of_receiver);
        let at = control("sender");
        let sender = Daemon::sender(&key, receiver.address, &["--control", &at, "--tell-client"]);
        Self { folder, server, receiver, sender }
    }

    fn of_receiver(&self) -> Value {
        status(&self.folder.path("receiver"), "connections")
    }

    fn of_sender(&self) -> Value {
        status(&self.folder.path("sender"), "connections")
    }

    fn open(&self) -> TcpStream {
        let mut client = self.sender.connect();
        round_trip(&mut client, b"open");
        client
    }
}

/// Asks for the status; the request's body says how much of it.
fn status(control: &Path, body: &str) -> Value {
    let (line, json) = ask(control, body);
    assert!(line.starts_with("ok status "), "{line}: {json}");
    serde_json::from_str(&json).unwrap()
}

fn ask(control: &Path, body: &str) -> (String, String) {
    let mut stream = UnixStream::connect(control).unwrap();
    write!(stream, "spiped/1 status {}\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (line, json) = answer.split_once('\n').unwrap();
    (line.to_owned(), json.to_owned())
}

/// The numbers of a status at these paths.
fn numbers(status: &Value, paths: &[&str]) -> Vec<u64> {
    let number = |path: &&str| status.pointer(path).and_then(Value::as_u64);
    paths.iter().map(|path| number(path).unwrap_or_else(|| panic!("{path}: {status:#}"))).collect()
}

#[test]
fn the_bytes_that_went_through_are_the_bytes_that_are_told() {
    // Answers each byte by three.
    let server = Server::start(|mut client| {
        let mut part = [0; 1 << 14];
        while let Ok(count @ 1..) = client.read(&mut part) {
            client.write_all(&part[..count].repeat(3)).unwrap();
        }
    });
    let pipe = Observed::to(server, &["--per-key", "7"]);
    let [receiver, sender] = [pipe.of_receiver(), pipe.of_sender()];
    assert_eq!((&receiver["role"], &sender["role"]), (&"receiver".into(), &"sender".into()));
    assert_eq!(receiver["target"]["reachable"], Value::Null);
    assert_eq!(
        receiver["listening"],
        serde_json::json!([pipe.receiver.address.to_string().replace("127.0.0.1", "[127.0.0.1]")])
    );

    let mut clients: Vec<_> = (0..3).map(|_| pipe.sender.connect()).collect();
    for (client, count) in clients.iter_mut().zip([1, 100, 10_000]) {
        client.write_all(&noise(1, count)).unwrap();
        client.read_exact(&mut vec![0; count * 3]).unwrap();
    }
    let (up, down) = (10_101, 30_303);
    let paths = ["/totals/sent_bytes", "/totals/received_bytes"];
    // The last bytes are counted just after they are written.
    wait_until("all is counted", || numbers(&pipe.of_sender(), &paths) == [up, down]);
    wait_until("all is counted", || numbers(&pipe.of_receiver(), &paths) == [down, up]);
    let receiver = pipe.of_receiver();
    let of_key = ["/keys/0/totals/sent_bytes", "/keys/0/totals/received_bytes"];
    assert_eq!(numbers(&receiver, &of_key), [down, up]);
    let counts = ["/connections", "/keys/0/connections", "/keys/0/connection_limit"];
    assert_eq!(numbers(&receiver, &counts), [3, 3, 7]);
    let key = &receiver["keys"][0];
    assert_eq!((&key["key"], &key["in_force"]), (&"alice".into(), &true.into()));
    assert_eq!(key["kex"], "x25519mlkem768");
    assert!(key["last_used"].as_u64() >= receiver["since"].as_u64(), "{receiver:#}");
    assert_eq!(receiver["handshakes"], serde_json::json!({"ok": 3}));
    assert_eq!(numbers(&receiver, &["/handshake_seconds/count"]), [3]);
    assert_eq!(receiver["target"]["reachable"], true);

    // Each connection is told at both ends under one id, and the receiver knows the client.
    let open = receiver["open"].as_array().unwrap();
    assert_eq!(open.len(), 3);
    let sender = pipe.of_sender();
    for one in open {
        let same = |other: &&Value| other["conn"] == one["conn"];
        let other = sender["open"].as_array().unwrap().iter().find(same).unwrap();
        assert_eq!(one["client"], other["peer"]);
        assert_eq!((&one["sent_bytes"], &one["key"]), (&other["received_bytes"], &"alice".into()));
    }

    drop(clients);
    wait_until("they are closed", || numbers(&pipe.of_receiver(), &["/connections"]) == [0]);
    let receiver = status(&pipe.folder.path("receiver"), "");
    assert_eq!(receiver["open"], Value::Null);
    assert_eq!(numbers(&receiver, &paths), [down, up]);
    assert_eq!(receiver["totals"]["closed"], serde_json::json!({"finished": 3}));
}

#[test]
fn a_failure_is_told_with_its_reason_its_hint_and_how_often() {
    let folder = Folder::new();
    let (key, gone) = (folder.key("alice"), nobody());
    let control = folder.path("control");
    let more = ["--control", control.to_str().unwrap()];
    let receiver = Daemon::receiver(&key, gone, &more);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    for _ in 0..3 {
        assert!(read_to_end(&mut sender.connect()).0.is_empty());
    }
    wait_until("all have failed", || numbers(&status(&control, ""), &["/failures/0/count"]) == [3]);
    let told = status(&control, "");
    let failure = &told["failures"][0];
    assert_eq!(failure["reason"], "target-refused");
    assert_eq!(failure["key"], "alice");
    assert!(failure["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{failure}");
    assert_eq!(told["target"]["reachable"], false);
    assert!(told["target"]["error"].as_str().unwrap().contains("refused"), "{told:#}");

    let _server = Server::start_at(&gone.to_string(), |mut client| {
        let _sent = client.write_all(b"here");
    });
    let mut client = sender.connect();
    client.read_exact(&mut [0; 4]).unwrap();
    let told = status(&control, "");
    assert_eq!(
        (&told["target"]["reachable"], &told["target"]["error"]),
        (&true.into(), &Value::Null)
    );

    let stranger = Daemon::sender(&folder.key("mallory"), receiver.address, &[]);
    assert!(read_to_end(&mut stranger.connect()).0.is_empty());
    wait_until("the stranger is counted", || {
        status(&control, "")["failures"][0]["reason"] == "wrong-key"
    });
    let told = status(&control, "");
    assert_eq!(told["failures"][0]["key"], Value::Null);
    assert_eq!(told["handshakes"]["wrong-key"], 1);
    assert_eq!(numbers(&told, &["/recent/handshakes_failed"]), [1]);
}

#[test]
fn a_key_is_told_as_long_as_it_has_connections() {
    let folder = Folder::new();
    let keys = folder.path("keys");
    fs::create_dir(&keys).unwrap();
    for name in ["alice", "bob"] {
        let path = keys.join(format!("{name}.key"));
        assert!(Command::new(SPIPED).arg("keygen").arg(path).output().unwrap().status.success());
    }
    let server = Server::echo();
    let control = folder.path("control");
    let mut receiver =
        Daemon::receiver(&keys, server.address, &["--control", control.to_str().unwrap()]);
    let sender = Daemon::sender(&keys.join("bob.key"), receiver.address, &[]);
    let mut open = sender.connect();
    round_trip(&mut open, b"open");
    fs::remove_file(keys.join("bob.key")).unwrap();
    receiver.signal("HUP");
    receiver.log.wait_for("keys reloaded");
    let names = |told: &Value| {
        let keys = told["keys"].as_array().unwrap().iter();
        keys.map(|key| format!("{} {} {}", key["key"], key["in_force"], key["connections"]))
            .collect::<Vec<_>>()
    };
    let told = status(&control, "");
    assert_eq!(names(&told), ["\"alice\" true 0", "\"bob\" false 1"]);
    assert_eq!(told["keys_reloaded"]["last_successful"], true);
    fs::write(keys.join("nonsense"), "").unwrap();
    receiver.signal("HUP");
    receiver.log.wait_for("keys not reloaded");
    wait_until("it is told", || status(&control, "")["keys_reloaded"]["last_successful"] == false);
    drop(open);
    wait_until("the key is gone", || names(&status(&control, "")) == ["\"alice\" true 0"]);
    assert_eq!(numbers(&status(&control, ""), &["/totals/connections"]), [1]);

    // A process that only lets its connections end is still asked.
    let sender = Daemon::sender(&keys.join("alice.key"), receiver.address, &[]);
    let mut open = sender.connect();
    round_trip(&mut open, b"open");
    receiver.signal("TERM");
    receiver.log.wait_for("draining open connections");
    let told = status(&control, "");
    assert_eq!((&told["state"], &told["listening"]), (&"draining".into(), &Value::Array(vec![])));
    drop(open);
    receiver.wait();
    assert!(!control.exists());
}

/// Whose program reads nothing any more, while everything else goes on.
#[test]
fn a_reader_that_stands_still_is_found_on_either_side() {
    // Sends for ever what the client does not read, and reads nothing.
    let server = Server::start(|mut client| {
        let part = noise(2, 1 << 16);
        while client.write_all(&part).is_ok() {}
    });
    let pipe = Observed::to(server, &[]);
    let stalled = pipe.sender.connect();
    let waits = |told: &Value, side: &str| {
        let more_than_none = |name: &str| told["open"][0][name].as_u64().is_some_and(|it| it > 0);
        more_than_none(side) && more_than_none("waiting_seconds")
    };
    // A check comes every 15 seconds, and two of them see that nothing moves.
    wait_until_within(Duration::from_mins(1), "the stalled client is found", || {
        waits(&pipe.of_sender(), "waiting_for_local_bytes")
            && waits(&pipe.of_receiver(), "waiting_for_tunnel_bytes")
    });
    assert_eq!(pipe.server.accepted(), 1);
    drop(stalled);
}

#[test]
fn many_open_connections_are_told_while_bytes_move() {
    let pipe = Observed::to(Server::echo(), &[]);
    let mut clients: Vec<_> = (0..400).map(|_| pipe.open()).collect();
    for round in 0..3 {
        for client in clients.iter_mut().skip(round).step_by(50) {
            round_trip(client, b"goes on");
        }
        for told in [pipe.of_receiver(), pipe.of_sender()] {
            assert_eq!(told["open"].as_array().unwrap().len(), 400);
        }
    }
}

#[test]
fn a_status_that_cannot_be_understood_is_refused() {
    let pipe = Observed::to(Server::echo(), &[]);
    let (line, reason) = ask(&pipe.folder.path("sender"), "secrets");
    assert!(line.starts_with("refused status "), "{line}");
    assert!(reason.contains("something unknown"), "{reason}");
    let key = fs::read(pipe.folder.path("alice")).unwrap();
    let told: PathBuf = pipe.folder.path("sender");
    let json = ask(&told, "connections").1;
    assert!(!json.as_bytes().windows(8).any(|part| part == &key[..8]));
    drop(pipe.receiver);
}
