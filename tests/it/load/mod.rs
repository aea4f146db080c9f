//! Load, and the lack of everything: storms, strangers, descriptors that run
//! out, connections that end in every order, ends that shut down under load.
//!
//! Each test prints what it measured (`--no-capture` shows it). They take
//! seconds by default; for hours of them:
//!
//! - `TEST_CONNECTIONS=10000`: connections of the hunt for leaks
//! - `TEST_STORM=1000`: connections at the same instant
//! - `TEST_STRANGERS=5000`: strangers at once
//! - `TEST_FLOWS=200`: flows beside which something small is asked
//! - `TEST_IDLE=2`: seconds that an idle connection is left alone

mod crowd;
mod descriptors;
mod drain;
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

/// A number of the environment, or its default.
fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Allows this process as many descriptors as it may have; at least `needed`.
fn raise_own_limit(needed: usize) {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= u64::try_from(needed).unwrap(),
        "the test needs {needed} descriptors, ulimit -Hn is {hard}"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// An end of a pipe that may have that many descriptors, and no more.
fn limited(descriptors: usize, role: &str, key: &Path, target: impl ToString) -> Daemon {
    limited_with(descriptors, role, key, target, &[])
}

/// The same with further options.
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

/// The processor time it has used so far.
fn processor_time(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
    // Behind the name, which is in brackets, come fields 3, 4, ...
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux tells user space of 100 ticks a second, whatever it has itself.
    Duration::from_millis(ticks * 10)
}

/// How many threads it has.
fn threads(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap().count()
}

/// Whether a connection to it is closed by a reset, without a word; it may be
/// so fast that the connect itself is told.
fn is_reset(address: SocketAddr) -> bool {
    match TcpStream::connect(address) {
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(stream) => read_to_end(&mut patient(stream)) == (vec![], End::Reset),
    }
}

/// That many connections through a pipe that echoes, each of them proved.
fn talkers(sender: &Daemon, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..count).map(|_| sender.connect()).collect();
    talk(&mut clients, b"first");
    clients
}

/// Each sends the bytes and gets them back.
fn talk(clients: &mut [TcpStream], bytes: &[u8]) {
    for client in clients {
        round_trip(client, bytes);
    }
}
