//! A log that nobody reads, or that cannot be written, delays nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pipe;

use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, is_root, nobody, round_trip, signal,
    wait_until,
};

/// Connections that each cause a line: more lines than the program queues for a log that
/// is not read.
const PROBES: usize = 1500;

/// The prefix of the command that starts a receiver.
const NOTHING: &[&str] = &[];

/// A pipe that is soon full, as a log.
fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader.into(), writer)
}

/// An end of a pipe whose log goes elsewhere; ended by its id when dropped.
struct Quiet(Child);

impl Quiet {
    /// Waits until the end listens at `source`.
    fn start(mut command: Command, source: std::net::SocketAddr, log: impl Into<Stdio>) -> Self {
        let child = command
            .args(["-s", &source.to_string()])
            .env("SPIPED_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        let quiet = Self(child.unwrap());
        wait_until("it listens", || TcpStream::connect(source).is_ok());
        quiet
    }

    /// TERM ends the process, and soon.
    fn end(mut self) {
        let started = Instant::now();
        signal(&self.0, "TERM");
        wait_until("it ends", || self.0.try_wait().unwrap().is_some());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A receiver with this log, and a sender before it.
struct Stage {
    _folder: Folder,
    receiver: Quiet,
    source: std::net::SocketAddr,
    sender: Daemon,
}

impl Stage {
    fn new(log: impl Into<Stdio>, before: &[impl AsRef<str>], more: &[&str]) -> Self {
        let folder = Folder::new();
        let (target, source) = (Server::echo(), nobody());
        let before: Vec<_> = before.iter().map(AsRef::as_ref).collect();
        let mut command = Command::new(before.first().unwrap_or(&SPIPED));
        command.args(before.get(1..).unwrap_or_default());
        if !before.is_empty() {
            command.arg(folder.path(".")).arg(SPIPED);
        }
        command.args(["-F", "-d", "-t", &target.address.to_string(), "-k"]);
        command.arg(folder.shared_key()).args(more);
        let receiver = Quiet::start(command, source, log);
        let sender = Daemon::sender(&folder.shared_key(), source, &[]);
        Self { _folder: folder, receiver, source, sender }
    }

    /// There are more lines than the log and its queue hold; all connections are served.
    fn serves_all(&self) {
        let mut open = self.sender.connect();
        round_trip(&mut open, b"before");
        for _ in 0..PROBES {
            drop(connect(self.source));
        }
        round_trip(&mut open, b"goes on");
        round_trip(&mut self.sender.connect(), b"new");
    }
}

#[test]
fn a_log_that_is_not_read_holds_up_no_connection_and_its_gap_is_counted() {
    let (mut reader, writer) = small_pipe();
    let stage = Stage::new(writer, NOTHING, &[]);
    stage.serves_all();
    let mut log = String::new();
    let mut part = [0; 4096];
    while suppressed(&log) == 0 {
        let count = reader.read(&mut part).unwrap();
        log.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    let probes = log.matches(PROBE).count();
    // The two connections, and the probe that waited for the port, have lines as well.
    let all = probes + suppressed(&log);
    assert!((PROBES..PROBES + 10).contains(&all), "{all} of {PROBES}:\n{log}");
    stage.receiver.end();
    reader.read_to_string(&mut log).unwrap();
    assert!(log.trim_end().lines().last().unwrap().contains("info ended handshakes="), "{log}");
    assert!(log.contains("TERM received"), "{log}");
}

#[test]
fn term_ends_it_though_its_log_is_not_read() {
    let (reader, writer) = small_pipe();
    let stage = Stage::new(writer, NOTHING, &[]);
    stage.serves_all();
    stage.receiver.end();
    drop(reader);
}

#[test]
fn a_log_whose_reader_is_gone_holds_up_no_connection() {
    let (reader, writer) = small_pipe();
    let stage = Stage::new(writer, NOTHING, &[]);
    drop(reader);
    stage.serves_all();
    stage.receiver.end();
}

/// Another process may have made the log non-blocking: the mode is shared.
#[test]
fn a_non_blocking_log_gets_every_line() {
    let (mut reader, writer) = small_pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let stage = Stage::new(writer, NOTHING, &[]);
    let probes = 200;
    for _ in 0..probes {
        drop(connect(stage.source));
    }
    round_trip(&mut stage.sender.connect(), b"after them");
    let read = thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    stage.receiver.end();
    let log = read.join().unwrap();
    let lines = log.matches(PROBE).count();
    assert!(lines >= probes && !log.contains("suppressed="), "{lines} of {probes}:\n{log}");
}

/// A command prefix that runs a command with a /dev of its own, whose log is a socket in
/// this folder.
fn own_dev(folder: &Folder) -> Vec<String> {
    let own_dev = format!(
        "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; ln -s {} /dev/log; shift; exec \"$@\"",
        folder.path("log").display()
    );
    ["unshare", "--mount", "sh", "-c", &own_dev, "sh"].map(str::to_owned).to_vec()
}

/// A syslogd that is stuck, for example on its disk.
#[test]
fn a_syslog_that_is_not_read_holds_up_no_connection() {
    if !is_root("a syslog that is stuck") {
        return;
    }
    let folder = Folder::new();
    let syslog = UnixDatagram::bind(folder.path("log")).unwrap();
    let stage = Stage::new(Stdio::null(), &own_dev(&folder), &["--syslog"]);
    stage.serves_all();
    stage.receiver.end();
    let mut line = [0; 2048];
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let count = syslog.recv(&mut line).unwrap();
    assert!(std::str::from_utf8(&line[..count]).unwrap().contains("receiver listening on"));
}

/// The number of lines that the log reports as left out.
fn suppressed(log: &str) -> usize {
    let counts = log.split("log lines were suppressed").skip(1);
    let count = |line: &str| {
        let (_, count) = line.split_once("suppressed=")?;
        count.split_once('\n')?.0.parse::<usize>().ok()
    };
    counts.filter_map(count).sum::<usize>()
}

const PROBE: &str = "reason=probe";

/// Lines that find no room on the disk are counted once there is room, and a line that
/// was cut off spoils no other line.
#[test]
fn lines_that_a_full_disk_has_lost_are_counted() {
    if !is_root("a disk that is full") {
        return;
    }
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let folder = Folder::new();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), &folder.path("."), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
            .unwrap();
        let stage = Stage::new(File::create(folder.path("log")).unwrap(), NOTHING, &[]);
        let log = || fs::read_to_string(folder.path("log")).unwrap();
        let mut filler = File::create(folder.path("filler")).unwrap();
        while filler.write(&[0; 512]).is_ok() {}
        let probes = 200;
        for _ in 0..probes {
            drop(connect(stage.source));
        }
        round_trip(&mut stage.sender.connect(), b"goes on");
        fs::remove_file(folder.path("filler")).unwrap();
        drop(filler);
        wait_until("there is room", || {
            drop(connect(stage.source));
            suppressed(&log()) > 0
        });
        stage.receiver.end();
        let log = log();
        let torn = log.lines().filter(|line| line.starts_with("20") && !line.contains(" took="));
        let (all, torn) = (log.lines().filter(|line| line.starts_with("20")).count(), torn.count());
        assert_eq!(all, log.lines().count(), "{log}");
        // The lines of the start, the count, TERM and the end; and the line that was cut.
        assert!((4..=5).contains(&torn), "{torn}\n{log}");
        assert!(suppressed(&log) + log.matches(PROBE).count() >= probes, "{log}");
    };
    thread::spawn(run).join().unwrap();
}

/// A syslogd that is restarted: the daemon finds it again.
#[test]
fn lines_that_a_syslog_that_was_gone_has_lost_are_counted() {
    if !is_root("a syslog that goes") {
        return;
    }
    let folder = Folder::new();
    let bind = || {
        let syslog = UnixDatagram::bind(folder.path("log")).unwrap();
        syslog.set_read_timeout(Some(PATIENCE)).unwrap();
        syslog
    };
    let until = |syslog: &UnixDatagram, text: &str| {
        let mut said = String::new();
        while !said.contains(text) {
            let mut line = [0; 2048];
            let count = syslog.recv(&mut line).expect("the line does not come");
            said.push_str(std::str::from_utf8(&line[..count]).unwrap());
            said.push('\n');
        }
        said
    };
    let syslog = bind();
    let stage = Stage::new(Stdio::null(), &own_dev(&folder), &["--syslog"]);
    until(&syslog, PROBE);
    drop(syslog);
    fs::remove_file(folder.path("log")).unwrap();
    let probes = 20;
    for _ in 0..probes {
        drop(connect(stage.source));
    }
    // The queue has earlier lines before the line of this connection, which is lost as
    // well.
    round_trip(&mut stage.sender.connect(), b"goes on");
    stage.sender.log.wait_for(" closed ");
    thread::sleep(Duration::from_millis(300));
    let syslog = bind();
    drop(connect(stage.source));
    let said = until(&syslog, "log lines were suppressed");
    assert!(suppressed(&said) >= probes, "{said}");
    stage.receiver.end();
    until(&syslog, "TERM received");
}

/// The system's signal for a file that is too large would end the process.
#[test]
fn a_log_file_that_may_not_grow_holds_up_no_connection() {
    let folder = Folder::new();
    let log = File::create(folder.path("log")).unwrap();
    let own_limit = "shift; ulimit -f 1; exec \"$@\"";
    let stage = Stage::new(log, &["sh", "-c", own_limit, "sh"], &[]);
    stage.serves_all();
    stage.receiver.end();
}

/// A log that does not take the error must not keep a failed start from ending, either.
#[test]
fn a_start_that_fails_ends_though_nobody_reads_why() {
    let (_reader, writer) = small_pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut full = File::from(writer.try_clone().unwrap());
    while full.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut child = Command::new(SPIPED).arg("-F").stderr(writer).spawn().unwrap();
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(64));
}
