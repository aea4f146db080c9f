//! A log that nobody reads, or that cannot be written, holds up nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;

use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, is_root, nobody, round_trip, signal,
    wait_until,
};

/// Connections that each cause a line: more than the program keeps for a log that
/// is not read.
const PROBES: usize = 1500;

/// A pipe that soon is full, for a log.
fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader.into(), writer)
}

/// An end of a pipe whose log goes elsewhere; ended by its id when dropped.
struct Quiet(Child);

impl Quiet {
    /// Waits until something listens at `source`.
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

    /// TERM ends it, and soon.
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
    fn new(log: impl Into<Stdio>, before: &[&str], more: &[&str]) -> Self {
        let folder = Folder::new();
        let (target, source) = (Server::echo(), nobody());
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

    /// More lines than the log and its queue take; all connections are served.
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
    let stage = Stage::new(writer, &[], &[]);
    stage.serves_all();
    let mut log = String::new();
    let mut part = [0; 4096];
    let suppressed = |log: &str| {
        let (_, rest) = log.split_once("lines of the log were left out ")?;
        let (_, count) = rest.split_once('\n')?.0.split_once(" suppressed=")?;
        Some(count.split(' ').next().unwrap().parse::<usize>().unwrap())
    };
    while suppressed(&log).is_none() {
        let count = reader.read(&mut part).unwrap();
        log.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    let probes = log.matches("connected and closed without a word").count();
    // The two connections, and who waited until it listens, have lines as well.
    let all = probes + suppressed(&log).unwrap();
    assert!((PROBES..PROBES + 10).contains(&all), "{all} of {PROBES}:\n{log}");
    stage.receiver.end();
    reader.read_to_string(&mut log).unwrap();
    assert!(log.trim_end().lines().last().unwrap().contains("TERM received"), "{log}");
}

#[test]
fn term_ends_it_though_its_log_is_not_read() {
    let (reader, writer) = small_pipe();
    let stage = Stage::new(writer, &[], &[]);
    stage.serves_all();
    stage.receiver.end();
    drop(reader);
}

#[test]
fn a_log_whose_reader_is_gone_holds_up_no_connection() {
    let (reader, writer) = small_pipe();
    let stage = Stage::new(writer, &[], &[]);
    drop(reader);
    stage.serves_all();
    stage.receiver.end();
}

/// Another process may have made it so: that is shared.
#[test]
fn a_non_blocking_log_gets_every_line() {
    let (mut reader, writer) = small_pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let stage = Stage::new(writer, &[], &[]);
    let probes = 200;
    for _ in 0..probes {
        drop(connect(stage.source));
    }
    round_trip(&mut stage.sender.connect(), b"after them");
    let read = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    stage.receiver.end();
    let log = read.join().unwrap();
    let lines = log.matches("connected and closed without a word").count();
    assert!(lines >= probes && !log.contains("suppressed="), "{lines} of {probes}:\n{log}");
}

/// A syslogd that is stuck, on its disk for instance.
#[test]
fn a_syslog_that_is_not_read_holds_up_no_connection() {
    if !is_root("a syslog that is stuck") {
        return;
    }
    let folder = Folder::new();
    let syslog = UnixDatagram::bind(folder.path("log")).unwrap();
    let own_dev = format!(
        "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; ln -s {} /dev/log; shift; exec \"$@\"",
        folder.path("log").display()
    );
    let before = ["unshare", "--mount", "sh", "-c", &own_dev, "sh"];
    let stage = Stage::new(Stdio::null(), &before, &["--syslog"]);
    stage.serves_all();
    stage.receiver.end();
    let mut line = [0; 2048];
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let count = syslog.recv(&mut line).unwrap();
    assert!(std::str::from_utf8(&line[..count]).unwrap().contains("receiver listening on"));
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

/// Nor may it keep what is wrong at the start from ending.
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
