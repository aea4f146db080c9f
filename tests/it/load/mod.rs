//! Load and exhaustion: storms, strangers, descriptors that run out, connections that end
//! in every order, ends that shut down under load.
//!
//! Each test prints what it measured (`--no-capture` shows it). By default the tests take
//! seconds; these variables make them take hours:
//!
//! - `TEST_CONNECTIONS=10000`: connections in the hunt for leaks
//! - `TEST_STORM=1000`: connections at the same instant
//! - `TEST_STRANGERS=5000`: strangers at once
//! - `TEST_FLOWS=200`: flows beside a small request
//! - `TEST_IDLE=2`: seconds that an idle connection is left alone

mod crowd;
mod descriptors;
mod drain;
mod hostile;
mod leaks;
mod reload;
mod scenarios;
mod storm;
mod strangers;
mod threads;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Daemon, End, SPIPED, patient, read_to_end, round_trip};

/// A number from the environment, or its default.
fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Raises the descriptors of this process to the hard limit, which must be at least
/// `needed`.
fn raise_own_limit(needed: usize) {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= u64::try_from(needed).unwrap(),
        "the test needs {needed} descriptors, ulimit -Hn is {hard}"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// An end of a pipe that may have exactly this many descriptors.
fn limited(descriptors: usize, role: &str, key: &Path, target: impl ToString) -> Daemon {
    limited_with(descriptors, role, key, target, &[])
}

/// As above, with further options.
fn limited_with(
    descriptors: usize,
    role: &str,
    key: &Path,
    target: impl ToString,
    more: &[&str],
) -> Daemon {
    let mut command = Command::new("sh");
    let limit = format!("ulimit -n {descriptors}; exec \"$@\"");
    command.args(["-c", &limit, "sh", SPIPED, "-F", role, "--threads", "2"]);
    command.args(["-s", "127.0.0.1:0", "-t", &target.to_string(), "-k"]).arg(key).args(more);
    Daemon::spawn(command)
}

/// The processor time that the daemon has used so far.
fn processor_time(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
    // Fields 3, 4, … follow the name, which is in brackets.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux reports 100 ticks a second to user space, whatever its own rate is.
    Duration::from_millis(ticks * 10)
}

/// The number of threads of the daemon.
fn threads(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap().count()
}

/// Whether the daemon resets a connection without a word; the reset may come so fast that
/// the connect itself reports it.
fn is_reset(address: SocketAddr) -> bool {
    match TcpStream::connect(address) {
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(stream) => read_to_end(&mut patient(stream)) == (vec![], End::Reset),
    }
}

/// This many proved connections through a pipe with an echo behind it.
fn talkers(sender: &Daemon, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..count).map(|_| sender.connect()).collect();
    talk(&mut clients, b"first");
    clients
}

/// Sends the bytes on each connection and reads them back.
fn talk(clients: &mut [TcpStream], bytes: &[u8]) {
    for client in clients {
        round_trip(client, bytes);
    }
}
