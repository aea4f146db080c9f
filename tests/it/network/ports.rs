//! The effect of the system's choice of local ports on a pipe, where ports are scarce.
//! All other connections use unix sockets, so that they take no ports.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::support::net::{Net, namespaces_can_be};
use crate::support::{Daemon, Folder, PATIENCE, Server, wait_until};

/// The number of ports for outgoing connections.
const PORTS: u16 = 10;
const FIRST: u16 = 40_000;
/// One of these ports, on which nothing listens.
const DOWN: &str = "127.0.0.1:40004";
/// How often a test makes a connection that may be given that very port.
const TRIES: usize = 40;

/// Runs a test in a network with few ports for outgoing connections.
fn with_few_ports(tested: &str, test: impl FnOnce(&Folder) + Send) {
    with_ports(PORTS, tested, test);
}

fn with_ports(count: u16, tested: &str, test: impl FnOnce(&Folder) + Send) {
    if namespaces_can_be(tested) {
        Net::new().enter(|| {
            let range = format!("{FIRST} {}", FIRST + count - 1);
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).unwrap();
            test(&Folder::new());
        });
    }
}

/// An end whose source is a unix socket.
struct UnixEnd {
    source: String,
    daemon: Daemon,
}

impl UnixEnd {
    fn start(folder: &Folder, (role, name): (&str, &str), target: &str, more: &[&str]) -> Self {
        let source = folder.path(name).to_str().unwrap().to_owned();
        let key = folder.shared_key();
        let ends = [role, "-s", &source, "-t", target, "-k", key.to_str().unwrap()];
        let daemon = Daemon::start(&[&ends, more].concat());
        Self { source, daemon }
    }

    /// A client; returns how much of its text comes back.
    fn client(&self, says: &[u8]) -> (UnixStream, Vec<u8>) {
        let mut client = UnixStream::connect(&self.source).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // The read shows the result, whether the write succeeds or not.
        let _reset = client.write_all(says);
        let mut back = vec![0; says.len()];
        let count = client.read(&mut back).unwrap_or(0);
        back.truncate(count);
        (client, back)
    }
}

fn is_down_and_can_start(clients_of: &UnixEnd, log_of: &UnixEnd, reason: &str) {
    for _ in 0..TRIES {
        assert_eq!(clients_of.client(b"AUTH secret\r\n").1, b"");
    }
    log_of.daemon.log.wait_for(reason);
    let lines = log_of.daemon.log.all();
    assert!(lines.iter().all(|line| line.contains(reason) || !line.contains("warn")), "{lines:?}");
    drop(TcpListener::bind(DOWN).expect("the server cannot start any more"));
}

#[test]
fn a_server_that_is_down_is_never_the_receiver_itself() {
    with_few_ports("connections to themselves", |folder| {
        let receiver = UnixEnd::start(folder, ("-d", "receiver"), DOWN, &[]);
        let sender = UnixEnd::start(folder, ("-e", "sender"), &receiver.source, &[]);
        is_down_and_can_start(&sender, &receiver, "target refused the connection");
    });
}

#[test]
fn a_receiver_that_is_down_is_never_the_sender_itself() {
    with_few_ports("connections to themselves", |folder| {
        let reason = "cannot reach the receiver: target refused the connection";
        let sender = UnixEnd::start(folder, ("-e", "sender"), DOWN, &[]);
        is_down_and_can_start(&sender, &sender, reason);
        for _ in 0..TRIES {
            let mut spipe = Command::new(folder.spipe());
            spipe.args(["-t", DOWN, "-k"]).arg(folder.shared_key()).stdin(Stdio::null());
            let output = spipe.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), said.contains(reason)), (Some(69), true), "{said}");
        }
    });
}

/// Where the receiver's port is the only local port, each session would be a connection
/// to itself.
#[test]
fn a_receiver_that_is_down_is_never_a_session_that_is_kept_ready() {
    with_ports(1, "connections to themselves", |folder| {
        let down = format!("127.0.0.1:{FIRST}");
        // There is one thread, so that no two connections want the port at once.
        let more = ["--prewarm", "16", "--threads", "1"];
        let ready = UnixEnd::start(folder, ("-e", "sender"), &down, &more);
        let outage = ready.daemon.log.wait_for("cannot prewarm sessions");
        assert!(outage.contains("target refused the connection"), "{outage}");
        wait_until("the receiver can start", || TcpListener::bind(&down).is_ok());
    });
}

fn echo_at(address: &str) -> Server {
    Server::start_at(address, |mut stream| {
        let _gone = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    })
}

/// A sender and a receiver before a server.
fn pipe(folder: &Folder, name: &str, server: &Server, more: &[&str]) -> [UnixEnd; 2] {
    let target = server.address.to_string();
    let receiver = UnixEnd::start(folder, ("-d", &format!("{name}-receiver")), &target, more);
    let sender = UnixEnd::start(folder, ("-e", &format!("{name}-sender")), &receiver.source, &[]);
    [sender, receiver]
}

/// Each port serves one connection to each target, not one connection in all.
#[test]
fn an_address_after_b_has_all_ports_for_each_target() {
    const EACH: u16 = PORTS - 2;
    with_few_ports("ports of -b", |folder| {
        for (ip, bind) in [("127.0.0.1", "127.0.0.9"), ("[::1]", "::1")] {
            let servers = [7001, 7002].map(|port| echo_at(&format!("{ip}:{port}")));
            let pipes = servers.each_ref().map(|server| {
                pipe(folder, &server.address.port().to_string(), server, &["-b", bind])
            });
            let clients = pipes
                .each_ref()
                .map(|[sender, _]| (0..EACH).map(|_| sender.client(b"there")).collect::<Vec<_>>());
            for (_client, back) in clients.iter().flatten() {
                assert_eq!(back, b"there", "{bind}");
            }
        }
    });
}

/// A failure that -b causes is reported as one of -b, at both ends.
#[test]
fn an_address_after_b_that_cannot_be_used_is_named() {
    with_few_ports("addresses of -b", |folder| {
        let server = echo_at("127.0.0.1:7001");
        for bind in ["192.0.2.9", "::1"] {
            let reason = format!("the address after -b, {bind}, cannot be used: ");
            let [sender, receiver] = pipe(folder, "bound", &server, &["-b", bind]);
            assert_eq!(sender.client(b"there").1, b"");
            let line = receiver.daemon.log.wait_for(&reason);
            assert!(line.contains("-b must be an address of this host"), "{line}");
            let line =
                sender.daemon.log.wait_for("the server behind the receiver cannot be reached");
            assert!(line.contains("check the receiver's -t and -b"), "{line}");

            let sender = UnixEnd::start(folder, ("-e", "sender"), DOWN, &["-b", bind]);
            assert_eq!(sender.client(b"there").1, b"");
            let line = sender.daemon.log.wait_for(&format!("cannot reach the receiver: {reason}"));
            assert!(line.contains("-b must be an address of this host"), "{line}");
        }
    });
}

/// An address after -b has no more ports for one target than there are.
#[test]
fn a_lack_of_local_ports_is_named() {
    with_few_ports("local ports", |folder| {
        let server = echo_at("127.0.0.1:7001");
        let [sender, receiver] = pipe(folder, "narrow", &server, &["-b", "127.0.0.9"]);
        let mut clients: Vec<_> = (0..PORTS).map(|_| sender.client(b"there")).collect();
        assert!(clients.iter().all(|(_, back)| back == b"there"));
        assert_eq!(sender.client(b"there").1, b"");
        let line = receiver.daemon.log.wait_for("target cannot be reached: Cannot assign");
        assert!(line.contains("ip_local_port_range") && line.contains("after -b"), "{line}");
        // Another address has ports of its own.
        let other = pipe(folder, "other", &server, &["-b", "127.0.0.8"]);
        clients.extend((0..PORTS).map(|_| other[0].client(b"there")));
        assert!(clients.iter().all(|(_, back)| back == b"there"));
    });
}

/// Two connections may have the same local port: one from the process to another server
/// of this host, and one from a client to the process.
#[test]
fn a_client_with_the_port_of_a_connection_to_elsewhere_is_no_loop() {
    with_ports(1, "loops", |folder| {
        let (key, server) = (folder.shared_key(), echo_at("127.0.0.1:7001"));
        let key = key.to_str().unwrap();
        let target = server.address.to_string();
        let (receiver, sender) = ("127.0.0.1:7002", "127.0.0.1:7003");
        let _receiver = Daemon::start(&["-d", "-s", receiver, "-t", &target, "-k", key]);
        let sender =
            Daemon::start(&["-e", "-s", sender, "-t", receiver, "-k", key, "--prewarm", "1"]);
        // The connection has the only port there is, 40000, and goes to 7002.
        let is_ready = || {
            let connections = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            connections.contains(" 0100007F:9C40 0100007F:1B5A 01 ")
        };
        wait_until("a session is connected", is_ready);
        // Ready a little later; a client before gets no port, and is reset.
        wait_until("a session is ready", || {
            let mut client = sender.connect();
            client.write_all(b"there").is_ok() && client.read_exact(&mut [0; 5]).is_ok()
        });
        assert_eq!(sender.log.count("a loop"), 0);
    });
}
