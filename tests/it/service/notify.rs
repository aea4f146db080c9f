//! Messages to systemd, and that nothing is missing without systemd.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::key_id;
use crate::status_http::{get, status_of};
use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, nobody, read_to_end, round_trip, wait_until,
};

/// The socket on which systemd would listen.
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

    /// All messages up to one that contains this text.
    fn until(&self, text: &str) -> Vec<String> {
        let mut told = Vec::new();
        while !told.last().is_some_and(|last: &String| last.contains(text)) {
            told.push(self.next());
        }
        told
    }

    /// Whether nothing comes for this long.
    fn is_silent_for(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let is_silent = self.socket.recv(&mut [0; 4096]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        is_silent
    }

    /// A spiped in the foreground that notifies this socket.
    fn command(&self, role: &str, key: &Path, target: impl ToString) -> Command {
        let mut command = Command::new(SPIPED);
        command.args(["-F", role, "-t", &target.to_string(), "-k"]).arg(key);
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }
}

#[test]
fn systemd_is_told_what_it_does_from_its_start_to_its_end() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let key = folder.shared_key();
    let target = Server::echo();
    let receiver = Daemon::receiver(&key, target.address, &[]);
    let source = nobody();
    let mut command = manager.command("-e", &key, receiver.address);
    command.args(["-s", &source.to_string(), "--drain-timeout", "30"]);
    let mut sender = Daemon::launch(command);

    // Whoever gets the message is served.
    assert_eq!(manager.next(), "READY=1");
    drop(connect(source));
    sender.wait_until_listening();
    let connections = |count: &str| {
        let (from, to) = (sender.address.port(), receiver.address.port());
        let pipe = format!("sender on [127.0.0.1]:{from} to [127.0.0.1]:{to}");
        format!("STATUS={pipe}, kex x25519mlkem768, key redis {}: {count}", key_id(&key))
    };
    manager.until(&connections("0 connections"));
    let mut clients: Vec<_> = (0..3).map(|_| sender.connect()).collect();
    for client in &mut clients {
        round_trip(client, b"active");
    }
    manager.until(&connections("3 connections"));
    // As long as nothing changes, there is no message.
    assert!(manager.is_silent_for(Duration::from_millis(2500)));
    clients.truncate(1);
    manager.until(&connections("1 connection; last served 20"));

    // There is at most one message a second, however much changes.
    let (mut told, started) = (0, Instant::now());
    manager.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    while started.elapsed() < Duration::from_secs(3) {
        round_trip(&mut sender.connect(), b"short");
        told += usize::from(manager.socket.recv(&mut [0; 4096]).is_ok());
    }
    assert!((1..=4).contains(&told), "{told} in three seconds");
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();

    sender.signal("HUP");
    let told = manager.until("RELOADING=1");
    let told = told.last().unwrap();
    let since_boot = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(told);
    assert!(since_boot.parse::<u64>().is_ok(), "{told}");
    // The last of the short connections may end in between.
    manager.until("READY=1");

    sender.signal("TERM");
    let told = manager.until("STOPPING=1");
    let stopping = told.last().unwrap();
    // The last of the short connections may still be ending.
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=draining: "), "{stopping}");
    assert!(stopping.ends_with(" still open\nEXTEND_TIMEOUT_USEC=33000000"), "{stopping}");
    drop(clients);
    assert!(sender.wait().success());
}

/// The status distinguishes "all failed" from "nobody came".
#[test]
fn the_status_says_who_failed_last_and_when() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let source = nobody();
    let mut command = manager.command("-d", &folder.shared_key(), Server::echo().address);
    command.args(["-s", &source.to_string()]);
    let receiver = Daemon::spawn(command);
    let sender = Daemon::sender(&folder.key("other.key"), receiver.address, &[]);
    read_to_end(&mut sender.connect());
    let told = manager.until(": the key does not fit");
    let told = told.last().unwrap();
    assert!(
        told.contains(": 0 connections; last failed 20") && told.contains("Z: 127.0.0.1:"),
        "{told}"
    );
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    round_trip(&mut sender.connect(), b"served");
    let told = manager.until("; last served 20");
    assert!(told.last().unwrap().ends_with(": the key does not fit"), "{told:?}");
}

/// The process is not ready while another program listens there, either.
#[test]
fn a_start_that_fails_says_why_and_never_that_it_is_ready() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let taken = Server::echo().address;
    let mut command = manager.command("-d", &folder.shared_key(), nobody());
    let output = command.args(["-s", &taken.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(manager.next().starts_with("STATUS=cannot listen on [127.0.0.1]:"));
    assert_eq!(manager.next(), "BARRIER=1");
    let mut command = manager.command("-d", &folder.path("none\nMAINPID=1"), nobody());
    let output = command.args(["-s", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    let told = manager.next();
    assert!(told.starts_with("STATUS=cannot read the key file ") && !told.contains('\n'), "{told}");
    assert_eq!(manager.next(), "BARRIER=1");
    assert!(manager.is_silent_for(Duration::from_millis(100)));
}

/// systemd knows the process that it has started, not the one that becomes ready in the
/// background.
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

/// Stopping any single thread ends the feed, and `/livez` tells it; releasing the thread resumes it.
#[test]
fn one_stuck_thread_starves_the_watchdog() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let mut command = manager.command("-d", &folder.shared_key(), nobody());
    command.args(["-s", "127.0.0.1:0", "--threads", "3"]).env("WATCHDOG_USEC", "400000");
    command.args(["--status", "127.0.0.1:0"]);
    let daemon = Daemon::spawn(command);
    let at = status_of(&daemon);
    manager.until("WATCHDOG=1");
    assert_eq!(get(at, "/livez").code, 200);
    for thread in threads_named(&daemon, 3, |name| name.starts_with("spiped")) {
        let stopped = Stopped::thread(thread);
        wait_until("the feed ends", || manager.is_silent_for(Duration::from_millis(600)));
        let answer = get(at, "/livez");
        assert_eq!((answer.code, answer.body.contains("[-]threads failed")), (503, true));
        drop(stopped);
        manager.until("WATCHDOG=1");
        manager.until("WATCHDOG=1");
    }
}

/// The threads of a daemon by their names, once there are this many: each name begins
/// with the name of the thread that started it.
fn threads_named(daemon: &Daemon, count: usize, is_it: impl Fn(&str) -> bool) -> Vec<Pid> {
    let named = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        let named = tasks.filter(|task| is_it(&fs::read_to_string(task.join("comm")).unwrap()));
        let number = |task: PathBuf| task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        named.map(number).map(Pid::from_raw).collect::<Vec<_>>()
    };
    wait_until("its threads have their names", || named().len() == count);
    named()
}

/// A thread of another process that stands still, as in a system call that does not
/// return; it goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn thread(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // The process ends, and can be waited for only after this thread was.
            let _ended = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}

/// A resolver, a remote file or a log does not answer: connections and the end go on, and
/// so does everything that waits once there is an answer.
#[test]
fn a_blocked_thread_delays_nothing() {
    let folder = Folder::new();
    let target = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    let to = format!("localhost:{}", receiver.address.port());
    let sender = Daemon::sender(&folder.shared_key(), to, &["-r", "0.05"]);
    let mut open = sender.connect();
    round_trip(&mut open, b"before");
    for name in ["resolver", "files", "status", "log"] {
        let stopped = Stopped::thread(threads_named(&sender, 1, |comm| comm.trim_end() == name)[0]);
        sender.signal("HUP");
        round_trip(&mut open, b"goes on");
        for _ in 0..20 {
            round_trip(&mut sender.connect(), b"new");
        }
        drop(stopped);
    }
    wait_until("the key was read each time", || sender.log.count("keys reloaded") == 4);
    let _stopped: Vec<_> = threads_named(&sender, 4, |name| !name.starts_with("spiped"))
        .into_iter()
        .map(Stopped::thread)
        .collect();
    sender.signal("HUP");
    drop(open);
    sender.signal("TERM");
    let started = Instant::now();
    wait_until("it listens no more", || TcpStream::connect(sender.address).is_err());
    // The log has a second to be written.
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// systemd is busy or stuck: nothing waits for it, and it gets what it has missed once it
/// listens again.
#[test]
fn a_systemd_that_does_not_read_holds_up_nothing() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let target = Server::echo();
    let mut command = manager.command("-d", &folder.shared_key(), target.address);
    command.args(["-s", "127.0.0.1:0", "--threads", "1"]).env("WATCHDOG_USEC", "4000");
    let receiver = Daemon::spawn(command);
    let mut sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    let mut open = sender.connect();
    round_trip(&mut open, b"before");
    // The messages of the watchdog alone fill the socket; then there is no room left.
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    wait_until("there is no room", || {
        while filler.send_to(b"FILLER=1", &manager.path).is_ok() {}
        round_trip(&mut open, b"goes on");
        true
    });
    for _ in 0..50 {
        receiver.signal("HUP");
        round_trip(&mut open, b"goes on");
        round_trip(&mut sender.connect(), b"new");
    }
    wait_until("the key was read", || receiver.log.count("keys reloaded") > 0);
    while manager.next() != "READY=1" {}
    drop(open);
    sender.signal("TERM");
    assert!(sender.wait().success());
}

/// This holds even before the process listens, while its source may never resolve.
#[test]
fn it_lives_while_it_waits_for_a_name() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let control = folder.path("control");
    let mut command = manager.command("-d", &folder.shared_key(), nobody());
    command.args(["-D", "-s", "no-such-host.invalid:1", "--control"]).arg(&control);
    let mut daemon = Daemon::launch({
        command.env("WATCHDOG_USEC", "400000");
        command
    });
    manager.until("STATUS=waiting for the name no-such-host.invalid to resolve");
    for _ in 0..5 {
        manager.until("WATCHDOG=1");
    }
    let mut rekey = Command::new(SPIPED);
    let output = rekey.arg("rekey").arg(&control).arg(folder.key("new.key")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    daemon.signal("HUP");
    daemon.log.wait_for(&format!("key removed key=new key_id={}", key_id(&folder.path("new.key"))));
    daemon.signal("TERM");
    assert!(daemon.wait().success());
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

#[test]
fn without_systemd_nothing_is_missed() {
    let folder = Folder::new();
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]);
    command.arg(folder.shared_key()).env("NOTIFY_SOCKET", folder.path("nobody-listens"));
    let daemon = Daemon::spawn(command);
    daemon.log.wait_for("cannot notify systemd");
    for _ in 0..3 {
        drop(connect(daemon.address));
        daemon.signal("HUP");
    }
    wait_until("the key was read", || daemon.log.count("keys reloaded added=0 removed=0") > 0);
    assert_eq!(daemon.log.count("cannot notify systemd"), 1);
    assert!(TcpStream::connect(daemon.address).is_ok());
}
