//! The independent peer in Python (`tests/peer`), as either end of a pipe.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::{Lines, skip};

/// Whether the peer's packages are there; if not, prints what is not tested.
pub fn is_installed(tested: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read(root.join(path)).ok();
    let wanted = read("tests/peer/requirements.txt").unwrap();
    let is_installed = read("target/peer/requirements.txt") == Some(wanted);
    if !is_installed {
        skip("needs the packages that scripts/peer installs", tested);
    }
    is_installed
}

/// The vectors of all suites.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/noise.json")
}

/// The vectors of a carrier.
pub fn carrier_vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/carrier.json")
}

/// The peer with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer/peer.py");
    let mut command = Command::new("python3");
    command.arg(program).args(arguments);
    command
}

/// What an initiator did, from its start to its end.
pub struct Initiated {
    /// What came from the other end.
    pub output: Vec<u8>,
    /// The report of `tests/peer/README.md`.
    pub report: Value,
}

impl Initiated {
    /// How the connection ended: `clean`, or why not.
    pub fn end(&self) -> &str {
        self.report["end"].as_str().unwrap()
    }
}

/// Runs the peer as the initiator, with `input` as its stream.
pub fn initiate(key: &Path, to: SocketAddr, more: &[&str], input: &[u8]) -> Initiated {
    let (key, to) = (key.to_str().unwrap(), to.to_string());
    let arguments = [&["initiator", "--key", key, "--connect", &to], more].concat();
    let mut command = command(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Beside the reading: otherwise, nothing would move once all buffers are full.
    let done = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A peer that is refused ends before it has read everything.
            let _gone = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    });
    let Output { status, stdout, stderr } = done;
    let said = String::from_utf8(stderr).unwrap();
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(status.success(), report["end"] == "clean", "{said}");
    Initiated { output: stdout, report }
}

/// The peer as the responder; ended by its process id when dropped.
pub struct Responder {
    child: Child,
    said: Lines,
    pub address: SocketAddr,
}

impl Responder {
    /// A responder that takes any number of connections.
    pub fn start(key: &Path, more: &[&str]) -> Self {
        let fixed = ["responder", "--listen", "127.0.0.1:0", "--key", key.to_str().unwrap()];
        let mut command = command(&[&fixed, more, &["--accept", "1000"]].concat());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Lines::collect(child.stderr.take().unwrap());
        let line: Value = serde_json::from_str(&said.wait_for("listening")).unwrap();
        let address = line["listening"].as_str().unwrap().parse().unwrap();
        Self { child, said, address }
    }

    /// Waits for the first report with this text in it.
    pub fn report(&self, text: &str) -> Value {
        serde_json::from_str(&self.said.wait_for(text)).unwrap()
    }

    /// The reports of all connections that have ended.
    pub fn reports(&self) -> Vec<Value> {
        let lines = self.said.all();
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line.get("end").is_some()).collect()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- said by the peer:\n{}", self.said.all().join("\n"));
        }
    }
}
