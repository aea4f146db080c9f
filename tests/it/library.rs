//! The protocol as a library: `examples/client.rs` before a real receiver.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::hop::{Act, Hop, Way};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, SPIPED, Server, nobody, with_input};

/// Runs the client, which is built with the tests.
fn client(address: impl ToString, key: &Path, input: &[u8]) -> Output {
    let program = Path::new(SPIPED).with_file_name("examples/client");
    with_input(Command::new(program).arg(address.to_string()).arg(key), input)
}

/// The error of a client that fails, and that has printed nothing else.
fn failure(ran: &Output) -> String {
    assert!(!ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
    String::from_utf8(ran.stderr.clone()).unwrap()
}

#[test]
fn a_client_of_the_library_speaks_with_redis() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let receiver = Daemon::receiver(&folder.shared_key(), redis.address, &[]);
    let ran = client(receiver.address, &folder.shared_key(), b"PING\r\n");
    assert!(ran.status.success() && ran.stdout == b"+PONG\r\n", "{ran:?}");
    receiver.log.wait_for(" closed ");
}

#[test]
fn a_client_of_the_library_says_why_it_fails() {
    let folder = Folder::new();
    let echo = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), echo.address, &[]);
    let said = failure(&client(receiver.address, &folder.key("other.key"), b"line\n"));
    assert!(said.contains("is the key the same?"), "{said}");

    let before_nobody = Daemon::receiver(&folder.shared_key(), nobody(), &[]);
    let said = failure(&client(before_nobody.address, &folder.shared_key(), b"line\n"));
    assert!(said.contains("the server behind the receiver refused the connection"), "{said}");

    // Message 2 and OPENED pass; then somebody on the wire ends the connection with a
    // plain FIN.
    let hop = Hop::tampering(receiver.address, |_| {
        Box::new(|unit| match (unit.way, unit.number) {
            (Way::ToSender, 2..) => vec![Act::End],
            _ => vec![Act::Forward(unit.bytes)],
        })
    });
    let said = failure(&client(hop.address, &folder.shared_key(), b"line\n"));
    assert!(said.contains("the stream was cut"), "{said}");
}
