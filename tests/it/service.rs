//! The program as a service of systemd, whose part the test plays: what it is
//! told, the sockets it hands over; and new keys by `spiped rekey`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, need, nobody, round_trip, wait_until,
};

/// The socket that systemd would listen on.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(folder: &Folder) -> Self {
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// The next message, without its last end of line.
    fn next(&self) -> String {
        let mut message = [0; 4096];
        let count = self.socket.recv(&mut message).expect("nothing is told");
        String::from_utf8(message[..count].to_vec()).unwrap().trim_end().to_owned()
    }

    /// The next messages up to one that has this in it; all of them.
    fn until(&self, text: &str) -> Vec<String> {
        let mut told = Vec::new();
        while !told.last().is_some_and(|last: &String| last.contains(text)) {
            told.push(self.next());
        }
        told
    }

    /// Whether nothing comes for that long.
    fn is_silent_for(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let is_silent = self.socket.recv(&mut [0; 4096]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        is_silent
    }

    /// A spiped in the foreground that tells it.
    fn command(&self, role: &str, key: &Path, target: impl ToString) -> Command {
        let mut command = Command::new(SPIPED);
        command.args(["-F", role, "-t", &target.to_string(), "-k"]).arg(key);
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }
}

fn key_id(key: &Path) -> String {
    let output = Command::new(SPIPED).arg("keyid").arg(key).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

#[test]
fn systemd_is_told_what_it_does_from_its_start_to_its_end() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let key = folder.shared_key();
    let target = Server::echo();
    let receiver = Daemon::receiver(&key, target.address, &[]);
    let mut command = manager.command("-e", &key, receiver.address);
    command.args(["-s", "127.0.0.1:0", "--drain-timeout", "30"]);
    let mut sender = Daemon::launch(command);

    // It listens before it says so.
    assert_eq!(manager.next(), "READY=1");
    sender.wait_until_listening();
    let connections = |count: &str| {
        let (from, to) = (sender.address.port(), receiver.address.port());
        let pipe = format!("sender on [127.0.0.1]:{from} to [127.0.0.1]:{to}");
        format!("STATUS={pipe}, key id {}: {count}", key_id(&key))
    };
    assert_eq!(manager.next(), connections("0 connections"));
    let mut clients: Vec<_> = (0..3).map(|_| sender.connect()).collect();
    for client in &mut clients {
        round_trip(client, b"active");
    }
    manager.until(&connections("3 connections"));
    // As long as nothing changes there is nothing to tell.
    assert!(manager.is_silent_for(Duration::from_millis(2500)));
    clients.truncate(1);
    manager.until(&connections("1 connection"));

    // At most once a second, however much changes.
    let (mut told, started) = (0, Instant::now());
    manager.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    while started.elapsed() < Duration::from_secs(3) {
        round_trip(&mut sender.connect(), b"short");
        told += usize::from(manager.socket.recv(&mut [0; 4096]).is_ok());
    }
    assert!((2..=4).contains(&told), "{told} in three seconds");
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();

    sender.signal("HUP");
    let told = manager.until("RELOADING=1");
    let told = told.last().unwrap();
    let since_boot = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(told);
    assert!(since_boot.parse::<u64>().is_ok(), "{told}");
    assert_eq!(manager.next(), "READY=1");

    sender.signal("TERM");
    let told = manager.until("STOPPING=1");
    let stopping =
        "STOPPING=1\nSTATUS=ending: 1 connection still open\nEXTEND_TIMEOUT_USEC=33000000";
    assert_eq!(told.last().unwrap(), stopping);
    drop(clients);
    assert!(sender.wait().success());
}

/// Who may become ready in the background is not whom systemd has started.
#[test]
fn in_the_background_the_parent_names_its_successor() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let output = Command::new(SPIPED)
        .args(["-d", "-s", "127.0.0.1:0", "-t", &nobody().to_string(), "-p", "pid", "-k"])
        .arg(folder.shared_key())
        .current_dir(folder.path("."))
        .env("NOTIFY_SOCKET", &manager.path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let id = fs::read_to_string(folder.path("pid")).unwrap();
    let told = manager.until("READY=1");
    let ended = Command::new("kill").arg(id.trim()).status().unwrap();
    assert!(ended.success());
    assert_eq!(told.last().unwrap(), &format!("MAINPID={}\nREADY=1", id.trim()));
    assert_eq!(told.iter().filter(|told| told.contains("READY=1")).count(), 1, "{told:?}");
    manager.until("STOPPING=1");
}

/// Each of its threads, stopped alone, ends the feed; released, it goes on.
#[test]
fn one_stuck_thread_starves_the_watchdog() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let mut command = manager.command("-d", &folder.shared_key(), nobody());
    command.args(["-s", "127.0.0.1:0", "--threads", "3"]).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::spawn(command);
    manager.until("WATCHDOG=1");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
    let threads: Vec<i32> =
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    assert_eq!(threads.len(), 3);
    for thread in threads.into_iter().map(Pid::from_raw) {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        // What was on its way.
        while !manager.is_silent_for(Duration::from_millis(600)) {}
        ptrace::detach(thread, None).unwrap();
        manager.until("WATCHDOG=1");
        manager.until("WATCHDOG=1");
    }
}

#[test]
fn somebody_elses_watchdog_is_not_fed() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let mut command = manager.command("-d", &folder.shared_key(), nobody());
    command.args(["-s", "127.0.0.1:0"]).envs([("WATCHDOG_USEC", "40000"), ("WATCHDOG_PID", "1")]);
    let _daemon = Daemon::spawn(command);
    manager.until("STATUS=");
    assert!(manager.is_silent_for(Duration::from_millis(300)));
}

/// Runs a spiped with these sockets as its descriptors 3, 4, ..., as systemd
/// would.
fn activated(sockets: &[BorrowedFd<'_>], arguments: &[&str]) -> Command {
    let mut script = String::from("export LISTEN_PID=$$\n");
    for (number, socket) in sockets.iter().enumerate() {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        // First out of the way of those that are to come.
        script += &format!("exec {}<&{}\n", 50 + number, socket.as_raw_fd());
    }
    for number in 0..sockets.len() {
        script += &format!("exec {}<&{}\n", 3 + number, 50 + number);
    }
    script += "exec \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", SPIPED, "-F"]).args(arguments);
    command.env("LISTEN_FDS", sockets.len().to_string());
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

    // Who comes while it ends, or after, waits for the next one.
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
    let no_socket = "is not a TCP or unix socket that listens";
    let mismatch =
        |source: &str| format!("-s says {source}, but the inherited socket listens on {there}");
    let cases: [(&[BorrowedFd<'_>], &[&str], String); 5] = [
        (&[not_listening.as_fd()], &[], format!("descriptor 3 {no_socket}")),
        (&[listening.as_fd(), datagrams.as_fd()], &[], format!("descriptor 4 {no_socket}")),
        (&[file.as_fd()], &[], format!("descriptor 3 {no_socket}")),
        (&[listening.as_fd()], &["-s", "/run/other"], mismatch("/run/other")),
        (&[listening.as_fd()], &["-s", "127.0.0.1:1"], mismatch("[127.0.0.1]:1")),
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
    // What fits, and a name, which is not compared.
    for source in [&*there, "no-such-host.invalid:1"] {
        let arguments = ["-d", "-t", "127.0.0.1:1", "-k", key, "-s", source];
        let daemon = Daemon::spawn(activated(&[listening.as_fd()], &arguments));
        assert_eq!(daemon.address.port(), port);
    }
    // Those of another process are none.
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-t", "127.0.0.1:1", "-k", key]);
    let output = command.envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]).output().unwrap();
    assert!(said(&output).contains("-s is not given"), "{output:?}");
}

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
        assert_eq!(said(&output).trim(), key_id(&new));
        let line = daemon.log.wait_for("the key is read again");
        assert!(line.contains(&format!("key_id={}", key_id(&new))), "{line}");
        assert!(line.contains(&key_id(&pipe.folder.shared_key())), "{line}");
    }
    round_trip(&mut pipe.sender.connect(), b"with the new key");
    round_trip(&mut before, b"as before");
    assert_eq!(pipe.target.accepted(), 2);

    // From standard input, as long as a key can be.
    let long = pipe.folder.path("long.key");
    fs::write(&long, vec![7; 65_536]).unwrap();
    fs::set_permissions(&long, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(SPIPED);
    command.arg("rekey").arg(pipe.folder.path("sender")).arg("-");
    let output = command.stdin(fs::File::open(&long).unwrap()).output().unwrap();
    assert_eq!(said(&output).trim(), key_id(&long), "{output:?}");
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

    // Whatever else comes there, it is no key: too long, too short, cut off.
    let long = 65_537_u32.to_be_bytes();
    let cases: [(Vec<u8>, &str); 3] = [
        (long.to_vec(), ""),
        (
            [&3_u32.to_be_bytes()[..], b"abc"].concat(),
            "refused: the key has 3 bytes, fewer than 32\n",
        ),
        ([&64_u32.to_be_bytes()[..], &[7; 40]].concat(), ""),
    ];
    for (sent, answer) in cases {
        let mut socket = UnixStream::connect(pipe.folder.path("receiver")).unwrap();
        socket.write_all(&sent).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answered = String::new();
        socket.read_to_string(&mut answered).unwrap();
        assert_eq!(answered, answer);
    }
    assert_eq!(pipe.receiver.log.count("a new key did not arrive"), 2);
    assert_eq!(pipe.receiver.log.count("the key is read again"), 0);

    // Somebody who says nothing holds the next one up for a moment only.
    let _silent = UnixStream::connect(pipe.folder.path("receiver")).unwrap();
    let output = pipe.rekey("receiver", &pipe.folder.shared_key());
    assert!(output.status.success(), "{output:?}");
    round_trip(&mut pipe.sender.connect(), b"with the key it had");

    pipe.receiver.signal("TERM");
    pipe.receiver.wait();
    assert!(!pipe.folder.path("receiver").exists(), "its file is left behind");
}

/// Not even where the mode of the file would let them.
#[test]
fn nobody_but_root_and_its_own_user_may_rekey() {
    need("setpriv", "util-linux");
    if !nix::unistd::geteuid().is_root() {
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
    pipe.receiver.log.wait_for("a new key did not arrive: user 65534 may not change it");
    assert_eq!(pipe.receiver.log.count("the key is read again"), 0);
}

/// What a killed one leaves behind is replaced; what is listened on is not.
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

#[test]
fn without_systemd_nothing_is_missed() {
    let folder = Folder::new();
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]);
    command.arg(folder.shared_key()).env("NOTIFY_SOCKET", folder.path("nobody-listens"));
    let daemon = Daemon::spawn(command);
    daemon.log.wait_for("systemd cannot be told of us");
    assert!(TcpStream::connect(daemon.address).is_ok());
}
