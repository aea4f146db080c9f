//! spiped in special surroundings: as PID 1, with an address of its own for outgoing
//! connections, and with idle connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::net::{Net, namespaces_can_be};
use crate::support::{
    Daemon, End, Folder, PATIENCE, Pipe, SPIPED, Server, read_to_end, round_trip, wait_until,
};

/// A sender that is the first process of its namespace, as in a container.
fn first_process(key: &str, target: &str) -> Daemon {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", SPIPED, "-F"]);
    command.args(["-e", "-s", "[127.0.0.1]:0", "-t", target, "-k", key]);
    Daemon::spawn(command)
}

/// The one child of a process.
fn child_of(daemon: &Daemon) -> String {
    let id = daemon.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    children.trim().to_owned()
}

#[test]
fn as_the_first_process_it_drains_and_ends() {
    if !namespaces_can_be("spiped as PID 1") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let echo = Server::echo();
    let receiver = Daemon::receiver(&key, echo.address, &[]);
    let target = receiver.address.to_string();
    for signal in ["TERM", "INT"] {
        let mut sender = first_process(key.to_str().unwrap(), &target);
        let process = child_of(&sender);
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        assert!(status.contains(&format!("NSpid:\t{process}\t1\n")), "{status}");

        let mut client = sender.connect();
        round_trip(&mut client, b"before");
        // The signal comes from inside, where the process is number 1.
        let kill = ["--pid", "--target", &process, "kill", "-s", signal, "1"];
        assert!(Command::new("nsenter").args(kill).status().unwrap().success());
        wait_until("it listens no more", || TcpStream::connect(sender.address).is_err());
        round_trip(&mut client, b"after");
        assert!(sender.is_running());
        drop(client);
        assert_eq!(sender.wait().code(), Some(0), "{signal}");
    }
}

/// A source, or a target, of IPv6 where IPv6 is turned off.
#[test]
fn a_host_without_ipv6_is_named_as_the_cause() {
    if !namespaces_can_be("a host without IPv6") {
        return;
    }
    Net::new().enter(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let folder = Folder::new();
        let key = folder.shared_key();
        let end = ["-F", "-d", "-s", "[::1]:0", "-t", "127.0.0.1:1", "-k"];
        let output = Command::new(SPIPED).args(end).arg(&key).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(
            said.contains("hint: no interface of this host has that address, or IPv6 is off"),
            "{said}"
        );

        let sender = Daemon::sender(&key, "[::1]:1", &[]);
        assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
        let line = sender.log.wait_for("target cannot be reached: Cannot assign");
        assert!(line.contains("or IPv6 is off here"), "{line}");
    });
}

/// `-b` with and without a port, at both ends.
#[test]
fn connections_come_from_the_address_that_was_asked_for() {
    let folder = Folder::new();
    for bind in ["127.0.0.2", "[127.0.0.2]:0"] {
        let (reported, reports) = channel();
        let server = Server::start(move |mut stream| {
            reported.send(stream.peer_addr().unwrap().ip().to_string()).unwrap();
            let _gone = stream.write_all(b"x");
        });
        let pipe = Pipe::with(&folder, server.address, &["-b", bind]);
        pipe.connect().read_exact(&mut [0]).unwrap();
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), "127.0.0.2");
        let line = pipe.receiver.log.wait_for(" id=1 ");
        assert!(line.contains("peer=127.0.0.2:"), "{line}");
    }
}

/// A subscriber that hears nothing for a long time (`TEST_IDLE_SECONDS`) gets the next
/// message: no time limit ends its connection.
#[test]
fn a_connection_may_be_idle_beyond_every_time_limit() {
    let rest = std::env::var("TEST_IDLE_SECONDS")
        .map_or(Duration::from_secs(3), |text| Duration::from_secs(text.parse().unwrap()));
    let folder = Folder::new();
    let (publish, messages) = channel::<&[u8]>();
    let messages = Mutex::new(messages);
    let server = Server::start(move |mut stream| {
        round_trip_back(&mut stream, b"subscribe");
        let message = messages.lock().unwrap().recv().unwrap();
        stream.write_all(message).unwrap();
        round_trip_back(&mut stream, b"unsubscribe");
    });
    let pipe = Pipe::with(&folder, server.address, &["-o", "0.5"]);
    let mut client = pipe.connect();
    round_trip(&mut client, b"subscribe");
    thread::sleep(rest);
    publish.send(b"news").unwrap();
    let mut message = [0; 4];
    client.read_exact(&mut message).unwrap();
    assert_eq!(&message, b"news");
    round_trip(&mut client, b"unsubscribe");
}

/// Expects these bytes and sends them back.
fn round_trip_back(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
    stream.write_all(&got).unwrap();
}
