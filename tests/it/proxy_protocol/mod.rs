//! `--proxy-protocol`: what the target is told of each connection.

mod header;
mod servers;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use rand::rngs::SysRng;
use spiped::protocol::{Extensions, Initiator, KEY_SECRETS, PREFIX, SUFFIX, SharedKey};

use self::header::{Header, LOCAL, PROXY};
use crate::support::peer::{initiate, is_installed};
use crate::support::{
    Daemon, End, Folder, PATIENCE, SUITE, Server, connect, read_to_end, reset, round_trip,
};

/// A server that sends everything back but the headers.
fn server() -> (Server, Receiver<Header>) {
    let (told, headers) = channel();
    let told = Mutex::new(told);
    let server = Server::start(move |mut stream| {
        told.lock().unwrap().send(Header::read(&mut stream)).unwrap();
        let mut back = stream.try_clone().unwrap();
        if std::io::copy(&mut stream, &mut back).is_ok() {
            let _gone = back.shutdown(Shutdown::Write);
        }
    });
    (server, headers)
}

/// The value of a field of a log line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap()
}

fn next(headers: &Receiver<Header>) -> Header {
    headers.recv_timeout(PATIENCE).unwrap()
}

/// Says something and ends well; returns the client's address.
fn finish(mut client: TcpStream) -> SocketAddr {
    let address = client.local_addr().unwrap();
    round_trip(&mut client, b"who is it");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (vec![], End::Clean));
    address
}

#[test]
fn the_server_is_told_the_client_the_session_and_the_key_as_the_logs_have_them() {
    let folder = Folder::new();
    let (server, headers) = server();
    for (option, kex, cipher) in [
        ("--proxy-protocol", "x25519mlkem768", "aes-256-gcm"),
        ("--proxy-protocol", "x25519", "chacha20-poly1305"),
        ("--proxy-protocol-address", "x25519", "aes-256-gcm"),
    ] {
        for more in [&[][..], &["--prewarm", "1"]] {
            let key = folder.key(&format!("alice-{cipher}{kex}{}{option}.key", more.len()));
            let receiver = Daemon::receiver(&key, server.address, &[option]);
            let suite = ["--tell-client", "--kex", kex, "--cipher", cipher];
            let sender = Daemon::sender(&key, receiver.address, &[&suite, more].concat());
            let client = finish(sender.connect());
            let header = next(&headers);
            assert_eq!((header.command, header.from), (PROXY, Some(client)));
            assert_eq!(header.to, Some(receiver.address));
            let line = receiver.log.wait_for(" reason=finished ");
            // The header is no part of the stream.
            assert_eq!((field(&line, "sent"), field(&line, "received")), ("9", "9"), "{line}");
            if option == "--proxy-protocol-address" {
                assert!(header.types.is_empty(), "{header:?}");
                continue;
            }
            assert_eq!(header.text(0x05), field(&line, "conn"));
            assert_eq!(header.text(0xe5), field(&line, "key_id"));
            let name = key.file_stem().unwrap().to_str().unwrap();
            let told: Vec<_> = [0x21, 0x22, 0x23, 0x26].map(|kind| header.of_ssl(kind)).into();
            assert_eq!(told, ["spiped-2", name, cipher, kex]);
            // Encrypted, and proved on this connection.
            assert_eq!(header.types[&0x20][..5], [7, 0, 0, 0, 0]);
        }
    }
}

#[test]
fn the_key_that_was_proved_is_named_among_many() {
    let folder = Folder::new();
    let (server, headers) = server();
    let [alice, bob] = ["alice", "bob"].map(|name| folder.key(&format!("{name}.key")));
    let more = ["--proxy-protocol", "-k", bob.to_str().unwrap()];
    let receiver = Daemon::receiver(&alice, server.address, &more);
    for (key, name) in [(&bob, "bob"), (&alice, "alice")] {
        let sender = Daemon::sender(key, receiver.address, &[]);
        finish(sender.connect());
        let header = next(&headers);
        assert_eq!(header.of_ssl(0x22), name);
        let line = receiver.log.wait_for(&format!(" conn={} ", header.text(0x05)));
        assert_eq!((field(&line, "key"), field(&line, "key_id")), (name, header.text(0xe5)));
    }
}

/// A source for clients: the address after -s, or the path of a unix socket.
fn source(folder: &Folder, name: &str) -> (String, Option<PathBuf>) {
    if name.contains(':') {
        return (name.into(), None);
    }
    let path = folder.path(name);
    (path.to_str().unwrap().into(), Some(path))
}

/// Sends something through a sender, which may listen at a path; returns the client's port.
fn ask(sender: &Daemon, path: Option<PathBuf>) -> u16 {
    let Some(path) = path else {
        return finish(sender.connect()).port();
    };
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"who is it").unwrap();
    client.read_exact(&mut [0; 9]).unwrap();
    0
}

/// The sender comes from another address than its client.
#[test]
fn the_client_is_where_its_sender_says_or_else_at_the_senders_host() {
    const SIX: &str = "[::1]:0";
    const FOUR: &str = "127.0.0.1:0";
    let four = |last| Ipv4Addr::new(127, 0, 0, last);
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let (server, headers) = server();
    let target = server.address.to_string();
    let cases: [(&str, &str, &[&str], Option<std::net::IpAddr>); 10] = [
        (FOUR, FOUR, &["--tell-client", "-b", "127.0.0.9"], Some(four(1).into())),
        (FOUR, FOUR, &["-b", "127.0.0.9"], Some(four(9).into())),
        (SIX, SIX, &["--tell-client"], Some(Ipv6Addr::LOCALHOST.into())),
        (SIX, SIX, &[], Some(Ipv6Addr::LOCALHOST.into())),
        // Two families are both written as IPv6.
        (FOUR, SIX, &["--tell-client"], Some(four(1).to_ipv6_mapped().into())),
        (SIX, FOUR, &["--tell-client"], Some(Ipv6Addr::LOCALHOST.into())),
        ("a", FOUR, &["--tell-client", "-b", "127.0.0.9"], Some(four(9).into())),
        ("b", SIX, &["--tell-client"], Some(Ipv6Addr::LOCALHOST.into())),
        // A receiver on a unix socket.
        (FOUR, "c", &["--tell-client"], Some(four(1).into())),
        (FOUR, "d", &[], None),
    ];
    for (from, through, more, expected) in cases {
        let case = format!("{from} {through} {more:?}");
        let (through, path) = source(&folder, through);
        let options = ["-d", "-s", &through, "-t", &target, "-k", key, "--proxy-protocol"];
        let receiver = Daemon::start(&options);
        let to =
            path.map_or_else(|| receiver.address.to_string(), |path| path.display().to_string());
        let (from, path) = source(&folder, from);
        let sender = Daemon::start(&[&["-e", "-s", &from, "-t", &to, "-k", key], more].concat());
        let port = ask(&sender, path);
        let header = next(&headers);
        let Some(expected) = expected else {
            assert_eq!((header.command, header.family, header.length), (LOCAL, 0, 0), "{case}");
            continue;
        };
        let from = header.from.unwrap();
        assert_eq!((header.command, from.ip()), (PROXY, expected), "{case}");
        if more.contains(&"--tell-client") {
            assert_eq!(from.port(), port, "{case}");
        } else {
            let line = receiver.log.wait_for(" reason=finished ");
            assert!(line.contains(&format!(" peer={from} ")), "{case}: {line}");
        }
        let to = header.to.unwrap();
        if receiver.address.port() == 0 {
            assert_eq!(to.to_string(), "0.0.0.0:0", "{case}");
        } else {
            assert_eq!(to.ip().to_canonical(), receiver.address.ip(), "{case}");
            assert_eq!(to.port(), receiver.address.port(), "{case}");
        }
    }
}

#[test]
fn a_server_that_speaks_first_has_the_header_before_the_client_speaks() {
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        let header = Header::read(&mut stream);
        writeln!(stream, "hello {}", header.from.unwrap()).unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--proxy-protocol"]);
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &["--tell-client"]);
    let mut client = sender.connect();
    let hello = format!("hello {}\n", client.local_addr().unwrap());
    assert_eq!(read_to_end(&mut client), (hello.into_bytes(), End::Clean));
}

/// A target that has no room for the header or does not want it is as any that fails.
#[test]
fn a_target_that_is_gone_before_it_has_the_header_ends_its_connection_alone() {
    let folder = Folder::new();
    let server = Server::start(reset);
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--proxy-protocol"]);
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    for _ in 0..3 {
        assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    }
    // By the reset, or by the end of the write.
    let line = receiver.log.wait_for("-reset id=3 ");
    assert!(line.contains(" sent=0 received=0 "), "{line}");
    sender.log.wait_for(" reason=aborted-peer-reset id=3 ");
}

/// What a client sends at once, up to many records, stands behind the header.
#[test]
fn the_stream_stands_whole_behind_the_header() {
    let folder = Folder::new();
    let (server, headers) = server();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--proxy-protocol"]);
    for more in [&[][..], &["--prewarm", "1"], &["--pad", "16384"]] {
        let sender = Daemon::sender(&folder.shared_key(), receiver.address, more);
        for size in [1, 1000, 16_384, 100_000] {
            round_trip(&mut sender.connect(), &crate::support::noise(3, size));
            assert_eq!(next(&headers).command, PROXY);
        }
    }
}

/// The first write of a sender has OPEN and the client's first bytes. The server gets all
/// that was written at once by one read.
#[test]
fn the_clients_first_bytes_come_in_one_write_with_the_header() {
    let folder = Folder::new();
    let (told, reads) = channel();
    let told = Mutex::new(told);
    let server = Server::start(move |mut stream| {
        let mut room = [0; 1000];
        let count = stream.read(&mut room).unwrap();
        told.lock().unwrap().send(room[..count].to_vec()).unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--proxy-protocol"]);
    let content = std::fs::read(folder.shared_key()).unwrap();
    let key = SharedKey::from_key_file(&content, Box::new([0; KEY_SECRETS])).unwrap();
    for _ in 0..20 {
        let (initiator, message_1) = Initiator::start(SUITE, &key, &mut SysRng).unwrap();
        let mut tunnel = connect(receiver.address);
        tunnel.write_all(&message_1).unwrap();
        let mut message_2 = vec![0; SUITE.message_2()];
        tunnel.read_exact(&mut message_2).unwrap();
        let mut session = initiator.finish(&message_2).unwrap();
        let open = session.sealer.seal_open(Extensions::default()).unwrap();
        let mut data = [[0; PREFIX].as_slice(), b"at once", &[0; SUFFIX]].concat();
        session.sealer.seal_data(&mut data).unwrap();
        tunnel.write_all(&[open, data].concat()).unwrap();
        let read = reads.recv_timeout(PATIENCE).unwrap();
        let mut rest = &read[..];
        assert_eq!(Header::read(&mut rest).command, PROXY);
        assert_eq!(rest, b"at once");
    }
}

/// A header would make the server wait for the rest.
#[test]
fn a_server_has_no_header_of_a_connection_that_nobody_is_behind() {
    if !is_installed("a connection of nobody, by the independent peer") {
        return;
    }
    let folder = Folder::new();
    let (server, headers) = server();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--proxy-protocol"]);
    // Behind an address, it counts more.
    for more in [&["--extension", "2:"][..], &["--extension", "1:00", "--extension", "2:"]] {
        let done = initiate(&folder.shared_key(), receiver.address, more, b"");
        assert_eq!((done.end(), &done.output[..]), ("clean", &b""[..]));
    }
    receiver.log.wait_for(" client=nobody ");
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    finish(sender.connect());
    assert_eq!((next(&headers).command, server.accepted()), (PROXY, 1));
}
