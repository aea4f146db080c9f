//! Servers other than redis-server, on ports of the test's own.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{Lines, signal, skip, wait_until};

/// Whether a program, or a file of it, is there; if not, prints what is not tested.
pub fn is_there(program: &str, tested: &str) -> bool {
    let search = format!("PATH=$PATH:/usr/sbin:/sbin; command -v {program} || test -e {program}");
    let is_there = Command::new("sh").args(["-c", &search]).output().unwrap().status.success();
    if !is_there {
        skip(&format!("needs {program}"), tested);
    }
    is_there
}

/// A server of a test's own; ended by its process id when dropped.
pub struct Program {
    child: Child,
    pub log: Lines,
}

impl Program {
    /// Starts a server that writes its log to standard output, and waits until it listens.
    pub fn start(command: &str, arguments: &[&str], address: SocketAddr) -> Self {
        let mut program = Command::new("sh");
        let script = format!("PATH=$PATH:/usr/sbin:/sbin; exec {command} \"$@\" 2>&1");
        program.args(["-c", &script, "sh"]).args(arguments);
        let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Lines::collect(child.stdout.take().unwrap());
        let program = Self { child, log };
        wait_until(command, || TcpStream::connect(address).is_ok());
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // TERM, so that what it started ends with it.
        signal(&self.child, "TERM");
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.child.id(), self.log.all().join("\n"));
        }
    }
}
