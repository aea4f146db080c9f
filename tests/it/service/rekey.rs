//! New keys by `spiped rekey`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{key_id, said};
use crate::support::net::namespaces_can_be;
use crate::support::{Daemon, Folder, SPIPED, Server, need, nobody, noise, round_trip, wait_until};

const UNKNOWN_VERB: &str = "refused: the request's verb is not known to this version of spiped\n";
const OTHER_VERSION: &str =
    "refused: the request is of another version of spiped; this one speaks spiped/1\n";

/// A receiver and a sender that take new keys.
struct Rekeyed {
    folder: Folder,
    receiver: Daemon,
    sender: Daemon,
    target: Server,
}

impl Rekeyed {
    fn start() -> Self {
        let folder = Folder::new();
        let target = Server::echo();
        let key = folder.shared_key();
        let [of_receiver, of_sender] = ["receiver", "sender"].map(|name| folder.path(name));
        let receiver = ["--control", of_receiver.to_str().unwrap()];
        let receiver = Daemon::receiver(&key, target.address, &receiver);
        let sender = ["--control", of_sender.to_str().unwrap()];
        let sender = Daemon::sender(&key, receiver.address, &sender);
        Self { folder, receiver, sender, target }
    }

    fn rekey(&self, end: &str, key: &Path) -> Output {
        let mut command = Command::new(SPIPED);
        command.arg("rekey").arg(self.folder.path(end)).arg(key).output().unwrap()
    }
}

#[test]
fn a_new_key_by_rekey_is_for_new_connections() {
    let pipe = Rekeyed::start();
    let mode = fs::metadata(pipe.folder.path("sender")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut before = pipe.sender.connect();
    round_trip(&mut before, b"with the old key");
    let new = pipe.folder.key("new.key");
    for (end, daemon) in [("receiver", &pipe.receiver), ("sender", &pipe.sender)] {
        let output = pipe.rekey(end, &new);
        assert!(output.status.success(), "{output:?}");
        let (id, old) = (key_id(&new), key_id(&pipe.folder.shared_key()));
        let open = format!("removed redis {old} (1 connection open)");
        assert_eq!(said(&output), format!("added new {id}\n{open}\n"));
        let line = daemon.log.wait_for("key added");
        assert!(line.contains(&format!("key=new key_id={id}")), "{line}");
        let line = daemon.log.wait_for("key removed");
        assert!(line.contains(&format!("key=redis key_id={old} open=1")), "{line}");
        daemon.log.wait_for("keys reloaded added=1 removed=1 kept=0");
    }
    round_trip(&mut pipe.sender.connect(), b"with the new key");
    round_trip(&mut before, b"as before");
    assert_eq!(pipe.target.accepted(), 2);

    // This key comes from standard input and is as long as a key may be.
    let long = pipe.folder.path("long.key");
    fs::write(&long, noise(7, 65_536)).unwrap();
    fs::set_permissions(&long, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(SPIPED);
    command.arg("rekey").arg(pipe.folder.path("sender")).arg("-");
    let output = command.stdin(fs::File::open(&long).unwrap()).output().unwrap();
    assert!(said(&output).contains(&format!("added stdin {}\n", key_id(&long))), "{output:?}");
}

#[test]
fn a_silent_control_client_keeps_no_other_waiting() {
    let pipe = Rekeyed::start();
    let connect = || UnixStream::connect(pipe.folder.path("receiver")).unwrap();
    let mut slow: Vec<_> = (0..3).map(|_| connect()).collect();
    let new = pipe.folder.key("new.key");
    let output = pipe.rekey("receiver", &new);
    assert!(said(&output).starts_with(&format!("added new {}\n", key_id(&new))), "{output:?}");
    // No connection was cut for it.
    assert_eq!(pipe.receiver.log.count("control request"), 0);
    let key = fs::read(&new).unwrap();
    let first = slow.first_mut().unwrap();
    first.write_all(&[b"spiped/1 rekey 41\nnew 32 0\n", &key[..]].concat()).unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("ok rekey 31\nkept new {} 0\n", key_id(&new)));

    // The number of others is limited, too.
    slow.extend((0..10).map(|_| connect()));
    pipe.receiver.log.wait_for("control request refused: too many requests at once");
}

#[test]
fn a_key_that_rekey_refuses_changes_nothing() {
    let mut pipe = Rekeyed::start();
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = pipe.folder.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let cases = [
        (file("short", b"short", 0o600), 65, "the key has 5 bytes, fewer than 32"),
        (file("open", &[7; 32], 0o644), 77, "is open to others"),
        (pipe.folder.path("none"), 66, "cannot read the key file"),
    ];
    for (key, code, reason) in cases {
        let output = pipe.rekey("receiver", &key);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(said(&output).contains(reason) && said(&output).contains("\nhint: "), "{output:?}");
    }
    let nowhere = pipe.rekey("nowhere", &pipe.folder.shared_key());
    assert_eq!(nowhere.status.code(), Some(69), "{nowhere:?}");
    assert!(said(&nowhere).contains("cannot reach a spiped at"), "{nowhere:?}");

    // Anything else on the socket changes nothing, and each attempt is logged.
    let cases: [(&[u8], &str); 7] = [
        (
            b"spiped/1 rekey 9000000\nof which nothing is read",
            "refused rekey 24\nthe request is too long\n",
        ),
        (
            b"spiped/1 rekey 10\na 3 0\nabc.",
            "refused rekey 47\nthe request has no keys that can be understood\n",
        ),
        (b"spiped/1 rekey 64\nonly a part of it", ""),
        (b"spiped/1 rekey many\n", "refused: the length of the request is not a number\n"),
        (b"spiped/1 5ec2e7 0\n", UNKNOWN_VERB),
        // A client of another version sends more than the daemon reads.
        (b"spiped/9 rekey 4\nabcd", OTHER_VERSION),
        (b"\0\0\0\x20 and 32 bytes of a key, as before", OTHER_VERSION),
    ];
    for (sent, answer) in cases {
        let mut socket = UnixStream::connect(pipe.folder.path("receiver")).unwrap();
        socket.write_all(sent).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answered = String::new();
        socket.read_to_string(&mut answered).unwrap();
        assert_eq!(answered, answer);
    }
    let failed = || pipe.receiver.log.count("control request failed");
    wait_until("all but a refused key are told of", || failed() == 6);
    assert_eq!(pipe.receiver.log.count("keys reloaded"), 0);
    assert_eq!(pipe.receiver.log.count("5ec2e7"), 0, "it may be a part of a key");
    wait_until("many failures are counted", || {
        let _refused = UnixStream::connect(pipe.folder.path("receiver")).unwrap().write(b"\n");
        pipe.receiver.log.count("control request failed") > 10
            && pipe.receiver.log.count(" suppressed=") > 0
    });

    // A silent client delays the next one only for a moment.
    let _silent = UnixStream::connect(pipe.folder.path("receiver")).unwrap();
    let output = pipe.rekey("receiver", &pipe.folder.shared_key());
    assert!(output.status.success(), "{output:?}");
    round_trip(&mut pipe.sender.connect(), b"with the key it had");

    pipe.receiver.signal("TERM");
    pipe.receiver.wait();
    assert!(!pipe.folder.path("receiver").exists(), "its file is left behind");
}

#[test]
fn the_control_socket_has_a_whole_path() {
    // The daemon's own option takes no such path, either.
    for words in [["rekey", "./control", "key"], ["revoke", "control", "alice"]] {
        let refused = Command::new(SPIPED).args(words).output().unwrap();
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        let reason = format!("'{}' is not the path of a unix socket", words[1]);
        assert!(said(&refused).contains(&reason), "{refused:?}");
    }
}

/// The rule holds even if the mode of the file would let them connect.
#[test]
fn nobody_but_root_and_its_own_user_may_rekey() {
    need("setpriv", "util-linux");
    if !namespaces_can_be("who may rekey") {
        return;
    }
    let pipe = Rekeyed::start();
    let open = |name: &str, mode: u32| {
        fs::set_permissions(pipe.folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    open(".", 0o755);
    open("receiver", 0o666);
    let program = pipe.folder.path("spiped");
    fs::copy(SPIPED, &program).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(&program).arg("rekey").arg(pipe.folder.path("receiver")).arg("-");
        command.stdin(fs::File::open(pipe.folder.shared_key()).unwrap()).stderr(Stdio::piped());
        command.output().unwrap()
    };
    let output = as_nobody();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    pipe.receiver.log.wait_for("control request refused: user 65534 may not change anything");
    assert_eq!(pipe.receiver.log.count("keys reloaded"), 0);
}

/// The folder may belong to the daemon: a link there must not lead root to another
/// socket, nor may the answer write to root's terminal.
#[test]
fn the_control_socket_is_no_link_and_its_answer_is_one_line() {
    let pipe = Rekeyed::start();
    let link = pipe.folder.path("link");
    std::os::unix::fs::symlink(pipe.folder.path("receiver"), &link).unwrap();
    let refused = pipe.rekey("link", &pipe.folder.key("new.key"));
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    let reason = "the file there is a symbolic link, which is not followed";
    assert!(said(&refused).contains(reason), "{refused:?}");
    // The daemon does not listen at it, either.
    let key = pipe.folder.shared_key();
    let daemon = Command::new(SPIPED)
        .args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"])
        .arg(&key)
        .arg("--control")
        .arg(&link)
        .output()
        .unwrap();
    assert_eq!(daemon.status.code(), Some(69), "{daemon:?}");
    assert!(said(&daemon).contains(reason), "{daemon:?}");

    let listener = UnixListener::bind(pipe.folder.path("other")).unwrap();
    let other = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; 50]).unwrap();
        socket.write_all(b"ok rekey 17\n\x1b[31mhint: do so\n").unwrap();
    });
    let refused = pipe.rekey("other", &pipe.folder.shared_key());
    other.join().unwrap();
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(!said(&refused).contains('\x1b'), "{refused:?}");
    assert_eq!(pipe.receiver.log.count("keys reloaded"), 0);
}

/// A daemon that is stuck, or was taken over, must not keep root waiting.
#[test]
fn an_answer_that_drips_is_not_waited_for() {
    let pipe = Rekeyed::start();
    let listener = UnixListener::bind(pipe.folder.path("drips")).unwrap();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let a_while = std::time::Duration::from_millis(500);
        while is_done.recv_timeout(a_while).is_err() && socket.write_all(b"o").is_ok() {}
    });
    let refused = pipe.rekey("drips", &pipe.folder.shared_key());
    let _ended = done.send(());
    other.join().unwrap();
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(said(&refused).contains("timed out"), "{refused:?}");
}

/// The socket of a killed daemon is replaced; a socket that is listened on is not.
#[test]
fn a_stale_control_socket_is_replaced() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let control = folder.path("control");
    let more = ["--control", control.to_str().unwrap()];
    let mut first = Daemon::receiver(&key, nobody(), &more);
    let second = Command::new(SPIPED)
        .args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"])
        .arg(&key)
        .args(more)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(69), "{second:?}");
    assert!(said(&second).contains("cannot listen on"), "{second:?}");
    first.signal("KILL");
    first.wait();
    let _third = Daemon::receiver(&key, nobody(), &more);
    let output = Command::new(SPIPED).arg("rekey").arg(&control).arg(&key).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
