//! What the logs of both ends say of one connection: its id, what the ends have agreed on,
//! and with `--tell-client` whose it is.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::{
    Daemon, End, Folder, PATIENCE, Pipe, Server, nobody, noise, read_to_end, round_trip,
    wait_until, with_input,
};

/// The value of a field in a line of the log.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let name = format!(" {name}=");
    line.split_once(&name)?.1.split(' ').next()
}

/// The value of a field in each line about a connection that has ended well.
fn closed(end: &Daemon, name: &str) -> Vec<String> {
    let lines = end.log.all();
    let lines = lines.iter().filter(|line| line.contains(" reason=finished "));
    lines.map(|line| field(line, name).unwrap_or("none").to_owned()).collect()
}

/// A connection that ends well, once both logs have it.
fn ends_well(pipe: &Pipe) {
    let before = closed(&pipe.receiver, "id").len();
    let mut client = pipe.connect();
    round_trip(&mut client, b"one connection");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (vec![], End::Clean));
    wait_until("both logs have it", || {
        [&pipe.receiver, &pipe.sender].iter().all(|end| closed(end, "id").len() > before)
    });
}

#[test]
fn both_logs_have_the_same_id_of_a_connection_and_each_connection_its_own() {
    let folder = Folder::new();
    let server = Server::echo();
    for more in [&[][..], &["--kex", "x25519"], &["--carriers", "on"]] {
        let pipe = Pipe::with(&folder, server.address, more);
        for _ in 0..3 {
            ends_well(&pipe);
        }
        let ids = [&pipe.receiver, &pipe.sender].map(|end| closed(end, "conn"));
        assert_eq!(ids[0], ids[1]);
        let is_id = |id: &String| {
            // Of a stream, its carrier's id and its number.
            let (id, stream) = id.split_once('/').unwrap_or((id, "1"));
            assert!(stream.parse::<u32>().is_ok_and(|number| number > 0), "{stream}");
            let groups: Vec<_> = id.split('-').collect();
            let is_hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
            groups.len() == 4 && groups.iter().all(|group| group.len() == 4 && is_hex(group))
        };
        assert!(ids[0].iter().all(is_id), "{ids:?}");
        assert_eq!(ids[0].iter().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
    }
}

#[test]
fn both_logs_name_the_key_exchange_and_the_cipher() {
    let folder = Folder::new();
    let server = Server::echo();
    for (of_sender, kex) in
        [("auto", "x25519mlkem768"), ("x25519mlkem768", "x25519mlkem768"), ("x25519", "x25519")]
    {
        for cipher in ["aes-256-gcm", "chacha20-poly1305"] {
            let key = folder.shared_key();
            // The receiver accepts all.
            let receiver = Daemon::receiver(&key, server.address, &[]);
            let options = ["--kex", of_sender, "--cipher", cipher];
            let sender = Daemon::sender(&key, receiver.address, &options);
            let pipe = Pipe { receiver, sender };
            ends_well(&pipe);
            for end in [&pipe.receiver, &pipe.sender] {
                assert_eq!(closed(end, "kex"), [kex]);
                assert_eq!(closed(end, "cipher"), [cipher]);
            }
        }
    }
}

#[test]
fn spipe_chooses_the_key_exchange_as_a_sender_does() {
    let folder = Folder::new();
    let server = Server::echo();
    for (more, kex) in [(&[][..], "x25519mlkem768"), (&["--kex", "x25519"], "x25519")] {
        let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
        let mut spipe = Command::new(folder.spipe());
        spipe.args(["-t", &receiver.address.to_string(), "-k"]).arg(folder.shared_key());
        let ran = with_input(spipe.args(more), b"by hand");
        assert!(ran.status.success() && ran.stdout == b"by hand", "{ran:?}");
        receiver.log.wait_for(" reason=finished ");
        assert_eq!(closed(&receiver, "kex"), [kex]);
    }
}

/// Also of a session that was ready before the client came.
/// What a client has sent before its connection is open goes behind OPEN, in one write.
#[test]
fn a_client_that_is_told_of_may_send_much_at_once() {
    let folder = Folder::new();
    let (key, server) = (folder.shared_key(), Server::echo());
    for pad in ["no", "2", "256", "16384"] {
        let receiver = Daemon::receiver(&key, server.address, &[]);
        let target = receiver.address.to_string();
        for source in ["127.0.0.1:0", "[::1]:0"] {
            let key = key.to_str().unwrap();
            let options =
                ["-e", "-s", source, "-t", &target, "-k", key, "--tell-client", "--pad", pad];
            let sender = Daemon::start(&options);
            for size in [1, 15_900, 16_376, 16_384, 100_000] {
                round_trip(&mut sender.connect(), &noise(7, size));
            }
        }
    }
}

#[test]
fn the_receivers_log_names_the_client_where_the_sender_tells_it() {
    let folder = Folder::new();
    let (key, server) = (folder.shared_key(), Server::echo());
    for (more, is_told) in [
        (&[][..], false),
        (&["--prewarm", "1"], false),
        (&["--tell-client"], true),
        (&["--tell-client", "--prewarm", "1"], true),
    ] {
        let receiver = Daemon::receiver(&key, server.address, &[]);
        let sender = Daemon::sender(&key, receiver.address, more);
        let mut client: TcpStream = sender.connect();
        round_trip(&mut client, b"who is it");
        let told = if is_told { client.local_addr().unwrap().to_string() } else { "none".into() };
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), (vec![], End::Clean));
        receiver.log.wait_for(" reason=finished ");
        assert_eq!(closed(&receiver, "client"), [told], "{more:?}");
        // The sender's own log has the client as the peer.
        sender.log.wait_for(" reason=finished ");
        assert_eq!(closed(&sender, "client"), ["none"]);
    }
}

#[test]
fn a_client_on_a_unix_socket_is_named_unix() {
    let folder = Folder::new();
    let (key, server) = (folder.shared_key(), Server::echo());
    let receiver = Daemon::receiver(&key, server.address, &[]);
    let source = folder.path("source.sock");
    let (from, to) = (source.to_str().unwrap(), receiver.address.to_string());
    let key = key.to_str().unwrap();
    let _sender = Daemon::start(&["-e", "-s", from, "-t", &to, "-k", key, "--tell-client"]);
    let mut client = UnixStream::connect(&source).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"who is it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"who is it");
    receiver.log.wait_for(" reason=finished ");
    assert_eq!(closed(&receiver, "client"), ["unix"]);
}

#[test]
fn a_connection_that_fails_has_its_client_in_the_log_too() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, nobody(), &[]);
    let sender = Daemon::sender(&key, receiver.address, &["--tell-client"]);
    let mut client = sender.connect();
    let address = client.local_addr().unwrap().to_string();
    assert_eq!(read_to_end(&mut client), (vec![], End::Reset));
    let line = receiver.log.wait_for(" reason=target-refused ");
    assert_eq!(field(&line, "client"), Some(&*address), "{line}");
    let other = sender.log.wait_for(" reason=aborted-target-refused ");
    assert_eq!(field(&line, "conn"), field(&other, "conn"));
    assert!(field(&line, "conn").is_some(), "{line}");
}
