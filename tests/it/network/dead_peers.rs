//! A peer that vanished without a word is noticed in about a minute; a peer that is there
//! and only does not read is not mistaken for one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::net::{Cable, namespaces_can_be};
use crate::support::redis::Redis;
use crate::support::{
    Daemon, Folder, Pipe, Server, noise, round_trip, wait_until, wait_until_within,
};

/// A dead peer is noticed after about a minute; this limit is long enough for a machine
/// under other load.
const NOTICED: Duration = Duration::from_mins(2);
const MIB: usize = 1024 * 1024;
/// More bytes than all buffers on the way hold.
const MORE_THAN_BUFFERS: usize = 64 * MIB;

/// A near sender and a far receiver, before a server that does what the first byte of a
/// client tells it.
struct Line {
    sender: Daemon,
    receiver: Daemon,
    _server: Server,
}

impl Line {
    fn over(cable: &Cable, folder: &Folder, more: &[&str]) -> Self {
        let key = folder.shared_key();
        let key = ["-k", key.to_str().unwrap()];
        let (server, receiver) = cable.far.enter(|| {
            let server = Server::start(serve);
            let target = server.address.to_string();
            let ends = ["-d", "-s", "[192.0.2.2]:0", "-t", &target];
            (server, Daemon::start(&[ends.as_slice(), &key, more].concat()))
        });
        let sender = cable.near.enter(|| {
            let target = receiver.address.to_string();
            let ends = ["-e", "-s", "[127.0.0.1]:0", "-t", &target];
            Daemon::start(&[ends.as_slice(), &key, more].concat())
        });
        Self { sender, receiver, _server: server }
    }

    /// A client whose first byte has been answered.
    fn client(&self, cable: &Cable, what: u8) -> TcpStream {
        let mut client = cable.near.enter(|| self.sender.connect());
        client.set_read_timeout(Some(NOTICED)).unwrap();
        client.set_write_timeout(Some(NOTICED)).unwrap();
        round_trip(&mut client, &[what]);
        client
    }
}

/// The requests that a client may send to the server.
mod ask {
    pub(super) const ECHO: u8 = b'e';
    pub(super) const SEND: u8 = b's';
    pub(super) const DISCARD: u8 = b'd';
    pub(super) const NOT_READ: u8 = b'n';
}

fn serve(mut stream: TcpStream) {
    stream.set_read_timeout(None).unwrap();
    stream.set_write_timeout(None).unwrap();
    let mut what = [0];
    stream.read_exact(&mut what).unwrap();
    stream.write_all(&what).unwrap();
    let _gone = match what[0] {
        ask::ECHO => std::io::copy(&mut stream.try_clone().unwrap(), &mut stream),
        ask::SEND => std::io::copy(&mut std::io::repeat(1), &mut stream),
        ask::DISCARD => std::io::copy(&mut stream, &mut std::io::sink()),
        _ => {
            thread::sleep(2 * NOTICED);
            Ok(0)
        }
    };
}

/// Reads, or writes, until the connection is reset.
fn until_reset(mut client: TcpStream, what: u8) {
    let error = match what {
        ask::DISCARD | ask::NOT_READ => std::io::copy(&mut std::io::repeat(1), &mut client),
        _ => std::io::copy(&mut client, &mut std::io::sink()),
    };
    let error = error.expect_err("a clean end");
    // A writer first learns what was not sent.
    let is_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    assert!(is_reset, "{error}");
}

#[test]
fn a_link_that_is_cut_is_noticed_in_about_a_minute() {
    if !namespaces_can_be("dead peers") {
        return;
    }
    let folder = Folder::new();
    let cable = Cable::new();
    let line = Line::over(&cable, &folder, &[]);
    let line_without = Line::over(&cable, &folder, &["-j"]);
    let mut unaware = line_without.client(&cable, ask::ECHO);
    let all = [ask::ECHO, ask::SEND, ask::DISCARD, ask::NOT_READ];
    let clients = all.map(|what| (what, line.client(&cable, what)));
    thread::scope(|scope| {
        let ends = clients.map(|(what, client)| scope.spawn(move || until_reset(client, what)));
        // Data is in flight, and the buffers of the side that does not read fill up.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(line.sender.log.count("truncated"), 0);
        cable.cut();
        let cut = Instant::now();
        for end in ends {
            end.join().unwrap();
            println!("a client is reset {:?} after the cut", cut.elapsed());
        }
        while line.receiver.log.count("truncated") < all.len() && cut.elapsed() < NOTICED {
            thread::sleep(Duration::from_millis(100));
        }
        println!("the receiver knows of all {:?} after the cut", cut.elapsed());
        assert!(cut.elapsed() < NOTICED);
    });
    wait_until("it is in the log", || line.sender.log.count("truncated") == all.len());
    assert_eq!(line.receiver.log.count("truncated"), all.len());

    // Without keepalives, neither end has noticed.
    for end in [&line_without.sender, &line_without.receiver] {
        assert_eq!(end.log.count(" id=1 "), 0);
    }
    cable.mend();
    round_trip(&mut unaware, b"still there?");
}

/// The death is noticed even when the rest fits into the kernel's buffers, so that
/// nothing waits to be written.
#[test]
fn a_client_that_pauses_for_longer_than_a_minute_gets_the_rest() {
    const ANSWER: usize = 800_000;
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        stream.write_all(&noise(6, ANSWER)).unwrap();
        drop(stream);
    });
    let pipe = Pipe::to(&folder, server.address);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&pipe.sender.address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(NOTICED)).unwrap();
    let mut got = vec![0; 10_000];
    client.read_exact(&mut got).unwrap();
    thread::sleep(Duration::from_secs(75));
    client.read_to_end(&mut got).unwrap();
    assert!(got == noise(6, ANSWER), "{} bytes came", got.len());
}

/// Linux counts a peer's full buffers against `TCP_USER_TIMEOUT`, a minute.
#[test]
fn a_target_that_does_not_read_for_longer_than_a_minute_is_not_cut() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let value = noise(5, MORE_THAN_BUFFERS);
    let written = AtomicUsize::new(0);
    let mut client = pipe.connect();
    client.set_read_timeout(Some(NOTICED)).unwrap();
    client.set_write_timeout(Some(NOTICED)).unwrap();
    client.write_all(b"PING\r\n").unwrap();
    expect(&mut client, b"+PONG\r\n");

    redis.signal("STOP");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = &client;
            let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len());
            client.write_all(head.as_bytes()).unwrap();
            for chunk in value.chunks(64 * 1024) {
                client.write_all(chunk).unwrap();
                written.fetch_add(chunk.len(), Ordering::Relaxed);
            }
            client.write_all(b"\r\n").unwrap();
        });
        wait_until("all buffers are full", || {
            let before = written.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
            before > 0 && before == written.load(Ordering::Relaxed)
        });
        assert!(written.load(Ordering::Relaxed) < value.len());
        thread::sleep(Duration::from_secs(75));
        redis.signal("CONT");
    });
    expect(&mut client, b"+OK\r\n");
    client.write_all(b"GET k\r\n").unwrap();
    expect(&mut client, format!("${}\r\n", value.len()).as_bytes());
    expect(&mut client, &value);
}

/// A peer on a unix socket, at either end, gives up while the other side sends nothing: a
/// server that hangs, a client that keeps its connection.
#[test]
fn a_peer_gone_from_a_unix_socket_is_noticed_in_about_a_minute() {
    const CLIENTS: usize = 10;
    let folder = Folder::new();
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let key = path("redis.key");
    let (target, source) = (path("target.sock"), path("source.sock"));
    let server = UnixListener::bind(&target).unwrap();
    let receiver = Daemon::receiver(&folder.shared_key(), &target, &[]);
    let tunnel = receiver.address.to_string();
    let sender = Daemon::start(&["-e", "-s", &source, "-t", &tunnel, "-k", &key]);

    let ends = [&sender, &receiver];
    let free = ends.map(Daemon::descriptors);
    let mut hanging = Vec::new();
    let mut clients = Vec::new();
    for number in 0..2 * CLIENTS {
        let mut client = UnixStream::connect(&source).unwrap();
        client.write_all(b"PING\r\n").unwrap();
        let mut accepted = server.accept().unwrap().0;
        if number < CLIENTS {
            hanging.push(accepted);
        } else {
            accepted.read_exact(&mut [0; 6]).unwrap();
            clients.push(client);
        }
    }
    let gone = Instant::now();
    // Their bytes have arrived, and the end of their stream, although they waited for
    // nothing.
    for connection in &mut hanging {
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = Vec::new();
        connection.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"PING\r\n");
    }
    wait_until_within(NOTICED, "all is given back", || ends.map(Daemon::descriptors) == free);
    println!("all is given back after {:?}", gone.elapsed());
    assert!(gone.elapsed() > Duration::from_secs(45), "too soon for a server that is only slow");
    for reason in ["reason=peer-reset", "reason=aborted-peer-reset"] {
        wait_until("it is in the log", || ends.map(|end| end.log.count(reason)) == [CLIENTS; 2]);
    }
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == bytes, "other bytes came");
}
