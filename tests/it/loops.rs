//! A target that leads back to the source turns one connection into many, until nothing
//! is left for others.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::support::{Daemon, End, Folder, SPIPED, nobody, wait_until, write_and_read_to_end};

#[test]
fn what_can_be_seen_at_the_start_is_refused() {
    let folder = Folder::new();
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let socket = path("source.sock");
    symlink(&socket, folder.path("link.sock")).unwrap();
    let port = nobody().port();
    let at = |ip: &str| format!("{ip}:{port}");
    let cases = [
        (at("127.0.0.1"), at("[127.0.0.1]")),
        (at("[::1]"), at("[::1]")),
        (at("localhost"), at("localhost")),
        (at("localhost"), at("127.0.0.1")),
        (at("0.0.0.0"), at("127.0.0.3")),
        (at("127.0.0.1"), at("0.0.0.0")),
        (at("[::]"), at("[::1]")),
        (at("[::]"), at("127.0.0.1")),
        (at("[::]"), at("[::ffff:127.0.0.1]")),
        (socket.clone(), socket.clone()),
        (socket.clone(), path("./source.sock")),
        (socket.clone(), path("link.sock")),
    ];
    for role in ["-e", "-d"] {
        for (source, target) in &cases {
            for more in [None, Some("-D")] {
                let output = Command::new(SPIPED)
                    .args(["-F", role, "-s", source, "-t", target, "-k"])
                    .arg(folder.shared_key())
                    .args(more)
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(64), "{source} {target}: {said}");
                let lines: Vec<_> = said.lines().collect();
                let [.., error, hint] = lines[..] else { panic!("not two lines: {said}") };
                assert!(
                    error.starts_with("spiped: -t: ") && error.contains("leads back"),
                    "{said}"
                );
                assert!(hint.starts_with("hint: with -e name the receiver"), "{said}");
                assert!(!folder.path("source.sock").exists());
            }
        }
    }
}

/// None of these is a loop: other ports, addresses and families.
#[test]
fn what_only_looks_like_a_loop_is_served() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let port = nobody().port();
    let other = path_of(&folder, "other.sock");
    let cases = [
        (format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")),
        (format!("[0.0.0.0]:{port}"), format!("[::1]:{port}")),
        (format!("[0.0.0.0]:{port}"), format!("192.0.2.1:{port}")),
        (path_of(&folder, "source.sock"), other),
    ];
    for (source, target) in cases {
        drop(Daemon::start(&["-e", "-s", &source, "-t", &target, "-k", key]));
    }
}

fn path_of(folder: &Folder, name: &str) -> String {
    folder.path(name).to_str().unwrap().to_owned()
}

const LOOP: &str = "reason=loop";

/// The loop goes through a name, which is not resolved at the start.
#[test]
fn a_loop_of_one_process_ends_with_its_first_round() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let port = nobody().port();
    let (source, target) = (format!("127.0.0.1:{port}"), format!("localhost:{port}"));
    let start = |role| {
        let key = key.to_str().unwrap();
        Daemon::start(&[role, "-s", &source, "-t", &target, "-k", key, "--threads", "2"])
    };
    let sender = start("-e");
    assert_loops_are_short(&sender, || {
        let mut client = sender.connect();
        assert_eq!(write_and_read_to_end(&mut client, b"PING\r\n"), (vec![], End::Reset));
    });
    drop(sender);

    // A receiver connects only after the key is proved.
    let receiver = start("-d");
    let sender = Daemon::sender(&key, receiver.address, &[]);
    assert_loops_are_short(&receiver, || {
        let mut client = sender.connect();
        assert_eq!(write_and_read_to_end(&mut client, b"PING\r\n"), (vec![], End::Reset));
    });
}

/// The loop goes through a link that is made later.
#[test]
fn a_loop_through_a_unix_socket_ends_with_its_first_round() {
    let folder = Folder::new();
    let (source, target) = (path_of(&folder, "source.sock"), path_of(&folder, "target.sock"));
    let key = path_of(&folder, "redis.key");
    let sender = Daemon::start(&["-e", "-s", &source, "-t", &target, "-k", &key]);
    symlink(&source, &target).unwrap();
    assert_loops_are_short(&sender, || {
        let mut client = UnixStream::connect(&source).unwrap();
        let mut rest = Vec::new();
        // A unix socket resets a connection only if bytes were left unread.
        let _end = std::io::Read::read_to_end(&mut client, &mut rest);
        assert!(rest.is_empty());
    });
}

fn assert_loops_are_short(daemon: &Daemon, mut connect: impl FnMut()) {
    const CLIENTS: usize = 10;
    for _ in 0..CLIENTS {
        connect();
    }
    let line = daemon.log.wait_for(LOOP);
    // The other end of the loop logs nothing else.
    assert_eq!(daemon.log.count("keys differ"), 0, "{}", daemon.log.all().join("\n"));
    assert!(line.contains("warn") && line.contains("-t must name the other end"), "{line}");
    wait_until("all have ended", || daemon.descriptors() < 40);
    // There are two for each client, and more only where an accept was quicker than a
    // connect.
    let id = |line: &String| line.split(" id=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
    let last = daemon.log.all().iter().filter_map(id).max().unwrap();
    assert!(last <= 3 * CLIENTS, "{last} connections of {CLIENTS}");
}
