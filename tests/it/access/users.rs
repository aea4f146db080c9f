//! Clients that a sender serves, and clients that it refuses.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::{ALLOWED, Ends, OTHER, PERL, ROOT, User, open_folder, said};
use crate::support::{End, Folder, is_root, read_to_end, round_trip};

#[test]
fn only_allowed_users_use_a_sender_on_loopback() {
    if !is_root("users at a sender on loopback") {
        return;
    }
    let folder = open_folder();
    // daemon is user 1 on every Debian.
    let from_environment = |command: &mut Command| {
        command.env("SPIPED_ALLOW_UID", "65533,daemon");
    };
    let pipes = [
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "65533,1"]),
        Ends::on(&folder, "[::1]:0", &["--allow-uid", "daemon", "--allow-uid", "65533"]),
        Ends::with(&folder, "127.64.0.7:0", &[], from_environment),
    ];
    for Ends { server, _receiver, sender } in pipes {
        let at = sender.address.to_string();
        assert!(ALLOWED.is_served(&at) && User(1, &[1]).is_served(&at));
        assert!(!OTHER.is_served(&at));
        let line = sender.log.wait_for("reason=not-allowed");
        assert!(line.contains(" warn ") && line.contains(" uid=65532 "), "{line}");
        // A group, or a user in a group of that number, is not a user.
        assert!(!User(65532, &[65533, 1]).is_served(&at) && !ROOT.is_served(&at));
        if sender.address.is_ipv4() {
            // The socket is one for IPv6, and the connection is not.
            let inside = format!("[::ffff:{}]:{}", sender.address.ip(), sender.address.port());
            assert!(ALLOWED.is_served(&inside) && !OTHER.is_served(&inside));
        }
        assert_eq!(server.accepted(), if sender.address.is_ipv4() { 3 } else { 2 });
    }
}

#[test]
fn only_allowed_users_and_groups_use_a_sender_on_a_unix_socket() {
    if !is_root("users and groups at a unix socket") {
        return;
    }
    let folder = open_folder();
    let path = folder.path("source");
    let at = path.to_str().unwrap();
    let more = ["--socket-mode", "666", "--allow-uid", "65533", "--allow-gid", "daemon,4242"];
    let Ends { server, _receiver, sender } = Ends::on(&folder, at, &more);
    assert!(ALLOWED.is_served(at), "its user");
    assert!(User(65532, &[4242]).is_served(at), "its main group");
    assert!(User(65532, &[65532, 7, 1]).is_served(at), "a supplementary group");
    let many: &[u32] = &(1000..1200).chain([4242]).collect::<Vec<_>>();
    let many: &'static [u32] = Box::leak(many.into());
    assert!(User(65532, many).is_served(at), "one of many groups");
    let (client, answer) = OTHER.connects(at);
    assert_eq!(answer, "refused");
    let line = sender.log.wait_for("reason=not-allowed");
    assert!(line.contains(&format!(" uid=65532 pid={client} ")), "{line}");
    // The number of an allowed group is no user.
    assert!(!User(4242, &[65532]).is_served(at) && !User(65532, &[65533]).is_served(at));
    assert!(!ROOT.is_served(at));
    assert_eq!(server.accepted(), 4);
}

#[test]
fn a_client_that_is_refused_takes_no_place() {
    if !is_root("places of clients that are refused") {
        return;
    }
    let folder = open_folder();
    let more = ["--allow-uid", "0", "-n", "1"];
    let Ends { _receiver, sender, .. } = Ends::on(&folder, "127.0.0.1:0", &more);
    let mut only = sender.connect();
    round_trip(&mut only, b"the only one");
    assert!(!OTHER.is_served(&sender.address.to_string()));
    sender.log.wait_for("reason=not-allowed");
    assert_eq!(sender.log.count("reason=connection-limit"), 0);
    round_trip(&mut only, b"still served");
}

/// A reset at once, and not a wait for the receiver.
#[test]
fn a_client_that_is_refused_is_reset() {
    if !is_root("the reset of a client") {
        return;
    }
    let folder = Folder::new();
    let Ends { _receiver, sender, .. } =
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "65533"]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
}

/// The kernel shows a socket without a process as one of root.
#[test]
fn a_client_that_has_closed_already_is_refused() {
    if !is_root("clients that close at once") {
        return;
    }
    let folder = open_folder();
    let Ends { server, _receiver, mut sender } =
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "0"]);
    let (host, port) = (sender.address.ip().to_string(), sender.address.port().to_string());
    sender.signal("STOP");
    let goes = "my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1],
                    LocalPort => $ARGV[2], ReuseAddr => 1);
                print $s 'FLUSHALL'; $s->flush;
                setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $ARGV[3];
                print $s->sockport; close $s;";
    let go = |from: &str, reset: &str| {
        let mut other = OTHER.runs(&PERL);
        let output = other.args(["-MSocket", "-e", goes, &host, &port, from, reset]).output();
        said(&output.unwrap())
    };
    let _closed = go("0", "");
    // After a reset, the port is free for a client of root, which is a connection of its own.
    let port: u16 = go("0", "1").parse().unwrap();
    let again = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    again.set_reuse_address(true).unwrap();
    again.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    again.connect(&sender.address.into()).unwrap();
    sender.signal("CONT");
    round_trip(&mut TcpStream::from(again), b"of root");
    let line = sender.log.wait_for("reason=not-allowed");
    assert!(line.contains("has closed its socket already") && !line.contains("uid="), "{line}");
    assert_eq!(server.accepted(), 1);
    // The client that was reset is not taken for the one that has its port now.
    sender.signal("TERM");
    sender.wait();
    let second: Vec<_> =
        sender.log.all().into_iter().filter(|line| line.contains(" id=2 ")).collect();
    assert!(second.iter().all(|line| line.contains("reason=not-allowed")), "{second:?}");
}
