//! A real redis-server of the test's own, and the programs that come with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use super::{Folder, Lines, PATIENCE, need, nobody, signal, wait_until, with_input};

/// How many ports are tried.
const ATTEMPTS: usize = 5;

/// A running redis-server that saves nothing; ended by its process id when dropped.
pub struct Redis {
    child: Child,
    log: Lines,
    /// The port on loopback on which the server listens.
    pub address: SocketAddr,
    /// The unix socket on which the server listens as well.
    pub socket: PathBuf,
}

impl Redis {
    /// Starts a server in a subfolder of this name and waits until the server answers.
    pub fn start(folder: &Folder, name: &str, more: &[&str]) -> Self {
        need("redis-server", "redis-server");
        need("redis-cli", "redis-tools");
        need("redis-benchmark", "redis-tools");
        let home = folder.path(name);
        std::fs::create_dir(&home).unwrap();
        for _ in 0..ATTEMPTS {
            let mut redis = Self::spawn(home.clone(), more);
            if redis.comes_up() {
                return redis;
            }
            // The port was free a moment ago: another process may have been faster.
            eprintln!("redis-server ended:\n{}", redis.log.all().join("\n"));
        }
        panic!("redis-server did not start in {ATTEMPTS} attempts");
    }

    fn spawn(home: PathBuf, more: &[&str]) -> Self {
        let address = nobody();
        let socket = home.join("redis.socket");
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(home)
            .arg("--unixsocket")
            .arg(&socket)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stdout.take().unwrap());
        Self { child, log, address, socket }
    }

    /// Waits until the server answers, or has ended. The question goes to the socket in
    /// the server's own folder: another server could answer at the port.
    fn comes_up(&mut self) -> bool {
        let mut answers = false;
        wait_until("redis-server answers", || {
            let asked = run("redis-cli", &["-s", self.socket.to_str().unwrap(), "PING"], b"");
            answers = asked.stdout == b"PONG\n";
            answers || self.child.try_wait().unwrap().is_some()
        });
        answers
    }

    /// The answer that redis-cli gets directly from the server, not through a pipe.
    pub fn cli(&self, words: &[&str]) -> String {
        cli(&[&["-s", self.socket.to_str().unwrap()], words].concat())
    }

    /// Sends a signal to the server: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// A field of the server's INFO.
    pub fn info(&self, field: &str) -> String {
        let all = self.cli(&["INFO"]);
        let line = all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in INFO:\n{all}")).to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of redis {}:\n{}", self.child.id(), self.log.all().join("\n"));
        }
    }
}

/// The reply that redis-cli prints, without its end of line; an error reply fails.
pub fn cli(arguments: &[&str]) -> String {
    let asked = run("redis-cli", &[&["-e"], arguments].concat(), b"");
    assert!(asked.status.success(), "{asked:?}");
    let reply = String::from_utf8(asked.stdout).unwrap();
    reply.strip_suffix('\n').unwrap_or(&reply).to_owned()
}

/// Runs a program with this input until it ends; a program that hangs is ended.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let limit = PATIENCE.as_secs().to_string();
    with_input(Command::new("timeout").args([&limit, program]).args(arguments), input)
}
