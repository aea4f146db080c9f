//! A lack of threads: another process of the user, or of the container, has used up the
//! limit.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Daemon, Folder, PATIENCE, SPIPED, Server, is_root, need, nobody, round_trip};

/// A user without other processes: limits of threads apply to a user.
fn user() -> u32 {
    100_000 + std::process::id()
}

/// A command run by that user, who may have this many threads.
fn as_user(threads: usize, program: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nproc={threads}")).arg(program).uid(user()).gid(user());
    command
}

/// A spiped run by that user.
fn spiped(folder: &Folder, threads: usize, arguments: &[&str]) -> Command {
    chown(folder.shared_key(), Some(user()), Some(user())).unwrap();
    fs::set_permissions(folder.path("."), fs::Permissions::from_mode(0o711)).unwrap();
    let mut command = as_user(threads, SPIPED);
    command.arg("-F").args(arguments).arg("-k").arg(folder.shared_key());
    command
}

/// Processes of that user, ended when dropped.
struct Others(Vec<Child>);

impl Drop for Others {
    fn drop(&mut self) {
        for other in &mut self.0 {
            let _gone = other.kill();
            let _status = other.wait();
        }
    }
}

#[test]
fn without_a_thread_to_be_had_connections_go_on_and_names_are_resolved() {
    need("prlimit", "util-linux");
    if !is_root("a limit of threads, which is that of a user") {
        return;
    }
    let folder = Folder::new();
    let server = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let limit = 40;
    let target = format!("localhost:{}", receiver.address.port());
    let arguments = ["-e", "-s", "127.0.0.1:0", "-t", &target, "-r", "0.05", "--threads", "2"];
    let mut sender = Daemon::spawn(spiped(&folder, limit, &arguments));
    let mut open = sender.connect();
    round_trip(&mut open, b"before");

    let sleep = || as_user(limit, "sleep").arg("60").stderr(Stdio::null()).spawn().unwrap();
    let others = Others((0..limit).map(|_| sleep()).collect());
    // Nothing shows when the name is resolved next, which happens often.
    std::thread::sleep(Duration::from_millis(300));
    let no_more = as_user(limit, "sh").args(["-c", "true & wait"]).stderr(Stdio::null()).status();
    assert!(!no_more.is_ok_and(|status: ExitStatus| status.success()), "there is room for more");
    round_trip(&mut open, b"goes on");
    round_trip(&mut sender.connect(), b"new");
    sender.signal("HUP");
    sender.log.wait_for("keys reloaded");
    round_trip(&mut sender.connect(), b"still");
    assert!(sender.is_running());
    assert_eq!(sender.log.count("does not resolve"), 0);
    drop(others);
}

/// However many threads are missing, the daemon serves, or prints the reason and ends
/// with the right exit code.
#[test]
fn a_start_without_enough_threads_says_so() {
    need("prlimit", "util-linux");
    if !is_root("a limit of threads, which is that of a user") {
        return;
    }
    let folder = Folder::new();
    let target = format!("localhost:{}", nobody().port());
    let mut served = 0;
    for limit in 1..=30 {
        let arguments = ["-d", "-s", "localhost:0", "-t", &target, "--threads", "3"];
        let mut child = spiped(&folder, limit, &arguments).stderr(Stdio::piped()).spawn().unwrap();
        let log = crate::support::Lines::collect(child.stderr.take().unwrap());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if log.count("listening on") > 0 {
                let _gone = child.kill();
                let _status = child.wait();
                break None;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            assert!(Instant::now() < end, "neither serves nor ends with {limit}: {:?}", log.all());
            std::thread::sleep(Duration::from_millis(2));
        };
        match status {
            None => served += 1,
            Some(status) => {
                log.wait_for("hint: ");
                assert_eq!(status.code(), Some(71), "{:?}", log.all());
                assert_eq!(log.count("panic"), 0, "{:?}", log.all());
                log.wait_for("raise the limit of threads");
                assert_eq!(served, 0, "fewer threads were enough");
            }
        }
        if served > 2 {
            return;
        }
    }
    panic!("it never serves");
}
