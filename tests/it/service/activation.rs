//! Sockets that systemd hands over.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::said;
use crate::support::net::{Net, namespaces_can_be};
use crate::support::{
    Daemon, End, Folder, PATIENCE, SPIPED, Server, connect, read_to_end, round_trip, wait_until,
};

/// Runs a spiped with these sockets as its descriptors 3, 4, …, as systemd would.
fn activated(sockets: &[BorrowedFd<'_>], arguments: &[&str]) -> Command {
    let mut command = activated_as("", sockets, arguments);
    command.env_remove("LISTEN_FDNAMES");
    command
}

/// Like `activated`, with names for the sockets.
pub fn activated_as<S: AsRef<OsStr>>(
    names: &str,
    sockets: &[BorrowedFd<'_>],
    arguments: &[S],
) -> Command {
    let mut script = String::from("export LISTEN_PID=$$\n");
    for (number, socket) in sockets.iter().enumerate() {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        // The sockets first move out of the way of the final numbers.
        let given = socket.as_raw_fd();
        let _never_fails = writeln!(script, "exec {}<&{given} {given}<&-", 50 + number);
    }
    for number in 0..sockets.len() {
        let (last, first) = (3 + number, 50 + number);
        let _never_fails = writeln!(script, "exec {last}<&{first} {first}<&-");
    }
    script += "exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", SPIPED, "-F"]).args(arguments);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    command
}

#[test]
fn inherited_sockets_are_served_all_at_once_and_left_as_they_were() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, target.address, &[]);
    let to = receiver.address.to_string();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("[::1]:0").unwrap();
    let path = folder.path("source");
    let unix = UnixListener::bind(&path).unwrap();
    let sockets = [tcp.as_fd(), other.as_fd(), unix.as_fd()];
    let arguments = ["-e", "-t", &to, "-k", key.to_str().unwrap()];
    let mut sender = Daemon::spawn(activated(&sockets, &arguments));
    for name in [tcp.local_addr(), other.local_addr()] {
        let name = name.unwrap();
        sender.log.wait_for(&format!("sender listening on [{}]:{}", name.ip(), name.port()));
        round_trip(&mut connect(name), b"over tcp");
    }
    sender.log.wait_for(&format!("sender listening on {} ", path.display()));
    let over_unix = || {
        let client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    echo_over_unix(&mut over_unix());
    let inode = fs::metadata(&path).unwrap().ino();

    // A client that connects while the process ends, or afterwards, waits for the next
    // process.
    let held = connect(tcp.local_addr().unwrap());
    wait_until("it is served", || receiver.log.count("closed") + 1 == target.accepted());
    sender.signal("TERM");
    sender.log.wait_for("TERM received");
    let mut waiting: Vec<_> = (0..50).map(|_| connect(tcp.local_addr().unwrap())).collect();
    let mut waiting_on_unix = over_unix();
    drop(held);
    assert!(sender.wait().success());
    waiting.extend((0..50).map(|_| connect(tcp.local_addr().unwrap())));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "the socket's file is not ours");

    let _next = Daemon::spawn(activated(&sockets, &arguments));
    for client in &mut waiting {
        round_trip(client, b"late");
    }
    echo_over_unix(&mut waiting_on_unix);
}

fn echo_over_unix(client: &mut UnixStream) {
    client.write_all(b"over unix").unwrap();
    let mut back = [0; 9];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"over unix");
}

#[test]
fn sockets_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    let there = format!("[127.0.0.1]:{port}");
    let not_listening = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let not_listening = not_listening.unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = fs::File::open(key).unwrap();
    let no_socket = "is not a listening TCP or unix socket";
    let mismatch = |source: &str| {
        format!("the source is {source}, but the inherited socket listens on {there}")
    };
    let cases: [(&[BorrowedFd<'_>], &[&str], String); 6] = [
        (&[not_listening.as_fd()], &[], format!("descriptor 3 {no_socket}")),
        (&[listening.as_fd(), datagrams.as_fd()], &[], format!("descriptor 4 {no_socket}")),
        (&[file.as_fd()], &[], format!("descriptor 3 {no_socket}")),
        (&[listening.as_fd()], &["-s", "/run/other"], mismatch("/run/other")),
        (&[listening.as_fd()], &["-s", "127.0.0.1:2"], mismatch("[127.0.0.1]:2")),
        // The name could resolve to any address.
        (&[listening.as_fd()], &["-s", "localhost:2"], mismatch("localhost:2")),
    ];
    for (sockets, more, reason) in cases {
        let fixed = ["-d", "-t", "127.0.0.1:1", "-k", key];
        let output = activated(sockets, &[&fixed, more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(
            said(&output).contains(&reason) && said(&output).contains("\nhint: "),
            "{output:?}"
        );
    }
    // These sockets fit.
    let arguments = ["-d", "-t", "127.0.0.1:1", "-k", key, "-s", &*there];
    let daemon = Daemon::spawn(activated(&[listening.as_fd()], &arguments));
    assert_eq!(daemon.address.port(), port);
    // A socket that has a name and no file.
    let name = format!("spiped-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listening = UnixListener::bind_addr(&address).unwrap();
    let daemon =
        Daemon::launch(activated(&[listening.as_fd()], &["-d", "-t", "127.0.0.1:1", "-k", key]));
    daemon.log.wait_for(&format!("receiver listening on @{name} "));
    // Sockets that are meant for another process do not count.
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-t", "127.0.0.1:1", "-k", key]);
    let output = command.envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]).output().unwrap();
    assert!(said(&output).contains("-s is not given"), "{output:?}");
}

/// What `--allow-uid` and its like do with sockets that this process has not made.
#[test]
fn only_allowed_users_use_inherited_sockets() {
    if !namespaces_can_be("users at inherited sockets") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, Server::echo().address, &[]);
    let to = receiver.address.to_string();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = folder.path("source");
    let unix = UnixListener::bind(&path).unwrap();
    let both = [tcp.as_fd(), unix.as_fd()];
    let end = ["-e", "-t", &to, "-k", key.to_str().unwrap()];
    let start =
        |sockets: &[BorrowedFd<'_>], more: &[&str]| activated(sockets, &[&end[..], more].concat());
    let connect_to_both = || {
        let unix = UnixStream::connect(&path).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        (connect(tcp.local_addr().unwrap()), unix)
    };
    let sender = Daemon::spawn(start(&both, &["--allow-uid", "0"]));
    let (mut over_tcp, mut over_unix) = connect_to_both();
    round_trip(&mut over_tcp, b"hello");
    over_unix.write_all(b"hello").unwrap();
    over_unix.read_exact(&mut [0; 5]).unwrap();
    drop(sender);
    let sender = Daemon::spawn(start(&both, &["--allow-uid", "65533"]));
    let (mut over_tcp, mut over_unix) = connect_to_both();
    assert_eq!(read_to_end(&mut over_tcp), (vec![], End::Reset));
    assert_eq!(over_unix.read(&mut [0; 5]).unwrap(), 0);
    assert!(sender.log.wait_for("reason=not-allowed").contains(" uid=0 "));
    drop(sender);

    let elsewhere = Net::new().enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let cases: [(&[BorrowedFd<'_>], &[&str], i32, &str); 4] = [
        (&[elsewhere.as_fd()], &["--allow-uid", "0"], 77, "which users connect to"),
        (&[everywhere.as_fd()], &["--allow-uid", "0"], 64, "other hosts can connect to"),
        (&both, &["--allow-gid", "0"], 64, "the groups of clients of [127.0.0.1]:"),
        (&both, &["--socket-mode", "600"], 64, "--socket-mode: the socket is not made here"),
    ];
    for (sockets, more, code, text) in cases {
        let output = start(sockets, more).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(said(&output).contains(text), "{output:?}");
    }
    // The path may be given, and the socket is systemd's nevertheless.
    let at = path.to_str().unwrap();
    let output = start(&[unix.as_fd()], &["-s", at, "--socket-mode", "600"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(said(&output).contains("--socket-mode: the socket is not made here"), "{output:?}");
}
