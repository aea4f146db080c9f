//! Shared by the tests of the program: real daemons on ports that the system chose, a
//! key, sockets that do not hang, a hop between the two ends, a redis-server and
//! other servers, and networks of a test's own.

pub mod hop;
#[cfg(feature = "aws-lc")]
pub mod hosts;
pub mod maria;
pub mod net;
pub mod peer;
pub mod program;
pub mod redis;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use spiped::protocol::{Cipher, Kex, Suite};

/// How long a test waits for an event before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub const SPIPED: &str = env!("CARGO_BIN_EXE_spiped");

/// The suite of senders that a test plays.
pub const SUITE: Suite = Suite { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm };

/// A folder of the test's own with a key in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.key("redis.key");
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The key that every folder has.
    pub fn shared_key(&self) -> PathBuf {
        self.path("redis.key")
    }

    /// The program under its other name.
    pub fn spipe(&self) -> PathBuf {
        let path = self.path("spipe");
        if !path.exists() {
            std::os::unix::fs::symlink(SPIPED, &path).unwrap();
        }
        path
    }

    /// Makes another key.
    pub fn key(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new(SPIPED).arg("keygen").arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        path
    }
}

/// Lines of a process, and a way to wait for one of them.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    /// Collects the lines of `from` until it ends.
    pub fn collect(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collected = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                collected.0.0.lock().unwrap().push(line);
                collected.0.1.notify_all();
            }
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for the first line that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let (lock, changed) = &*self.0;
        let mut lines = lock.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let said = lines.join("\n");
                // A daemon shows its log when it is dropped: the lock must not be
                // poisoned.
                drop(lines);
                panic!("no line with {text:?} came:\n{said}");
            }
            lines = changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|line| line.contains(text)).count()
    }
}

/// A running spiped; ended by its process id when dropped.
pub struct Daemon {
    pub child: Child,
    pub log: Lines,
    /// The address on which the daemon listens, if that is TCP.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts `spiped -F` with these arguments and waits until it listens.
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Self {
        let mut command = Command::new(SPIPED);
        command.arg("-F").args(arguments);
        Self::spawn(command)
    }

    /// Like `start`, with a command that ends in a spiped.
    pub fn spawn(command: Command) -> Self {
        let mut daemon = Self::launch(command);
        daemon.wait_until_listening();
        daemon
    }

    /// Like `spawn`, without waiting: the address is not known yet.
    pub fn launch(mut command: Command) -> Self {
        let mut child = command
            .env("SPIPED_LOG", "debug")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        Self { child, log, address: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }

    pub fn wait_until_listening(&mut self) {
        let line = self.log.wait_for(" listening on ");
        let address =
            line.split(" listening on ").nth(1).unwrap().split([' ', '"']).next().unwrap();
        let address = address.replace(['[', ']'], "");
        if let Some((host, port)) = address.rsplit_once(':') {
            self.address = SocketAddr::new(host.parse().unwrap(), port.parse().unwrap());
        }
    }

    /// A receiver on a port of loopback, before `target`.
    pub fn receiver(key: &Path, target: impl ToString, more: &[&str]) -> Self {
        Self::end("-d", key, target, more)
    }

    /// A sender on a port of loopback, before the receiver at `target`.
    pub fn sender(key: &Path, target: impl ToString, more: &[&str]) -> Self {
        Self::end("-e", key, target, more)
    }

    fn end(role: &str, key: &Path, target: impl ToString, more: &[&str]) -> Self {
        let target = target.to_string();
        let key = key.to_str().unwrap();
        let fixed = [role, "-s", "[127.0.0.1]:0", "-t", &target, "-k", key];
        Self::start(&[&fixed, more].concat())
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by the kill program: `TERM`, `STOP`, …
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.log.all().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The number of descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The resident memory of the process, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.child.id(), self.log.all().join("\n"));
        }
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// A receiver before `target`, and a sender before the receiver.
pub struct Pipe {
    pub receiver: Daemon,
    pub sender: Daemon,
}

impl Pipe {
    pub fn to(folder: &Folder, target: impl ToString) -> Self {
        Self::with(folder, target, &[])
    }

    /// Both ends with further options.
    pub fn with(folder: &Folder, target: impl ToString, more: &[&str]) -> Self {
        let key = folder.shared_key();
        let receiver = Daemon::receiver(&key, target, more);
        let sender = Daemon::sender(&key, receiver.address, more);
        Self { receiver, sender }
    }

    pub fn connect(&self) -> TcpStream {
        self.sender.connect()
    }
}

/// Makes the reads and writes of a connection time out, so that they do not hang a test.
pub fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A server of the test's own: each connection goes to `serve` in a thread.
pub struct Server {
    pub address: SocketAddr,
    accepted: Arc<(Mutex<usize>, Condvar)>,
}

impl Server {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", serve)
    }

    /// A server on a given address, for networks of the test's own.
    pub fn start_at(at: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        // The standard library's backlog of 128 would be the bottleneck.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::<(Mutex<usize>, Condvar)>::default();
        let counted = Arc::clone(&accepted);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *counted.0.lock().unwrap() += 1;
                counted.1.notify_all();
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(patient(stream)));
            }
        });
        Self { address, accepted }
    }

    /// A server that sends everything back, and ends when the client ends.
    pub fn echo() -> Self {
        Self::start(|stream| {
            let mut from = stream.try_clone().unwrap();
            let mut to = stream;
            if std::io::copy(&mut from, &mut to).is_ok() {
                let _gone = to.shutdown(Shutdown::Write);
            }
        })
    }

    /// The number of connections that the server has accepted.
    pub fn accepted(&self) -> usize {
        *self.accepted.0.lock().unwrap()
    }
}

/// An address on loopback on which nothing listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Fails with the name of the package to install if a program is missing.
pub fn need(program: &str, package: &str) {
    let search = format!("PATH=$PATH:/usr/sbin:/sbin; command -v {program}");
    let found = Command::new("sh").args(["-c", &search]).output().unwrap().status.success();
    assert!(found, "{program} is missing, the test needs it: apt-get install {package}");
}

/// Whether this is root; if not, prints what is not tested.
pub fn is_root(tested: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("needs root", tested);
    }
    is_root
}

/// Prints what is not tested here, and why; fails if everything must be tested.
pub fn skip(why: &str, tested: &str) {
    let all = std::env::var_os("TEST_ALL");
    assert!(all.is_none(), "not tested, since it {why}: {tested}");
    // eprintln does not do, because its output is shown only for failed tests.
    let _unwritten =
        writeln!(std::io::stderr(), "\n*** SKIPPED: NOT tested, since it {why}: {tested} ***");
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_within(PATIENCE, what, condition);
}

/// Runs a command that reads `input`.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Like `wait_until`, with another limit.
pub fn wait_until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not in {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Tells a thread of a test to end, even when the test fails.
pub struct EndWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a connection ended for its reader.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// End of file, which a server takes for a clean end.
    Clean,
    /// A reset: the reader gets an error.
    Reset,
}

/// Reads to the end; returns the bytes and the kind of end.
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Clean),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => (bytes, End::Reset),
        Err(error) => panic!("neither an end nor a reset: {error}"),
    }
}

/// Writes, and reads to the end. A connection that was already reset may report that to
/// the write, and to nothing else.
pub fn write_and_read_to_end(stream: &mut TcpStream, bytes: &[u8]) -> (Vec<u8>, End) {
    match stream.write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => (vec![], End::Reset),
        result => {
            result.unwrap();
            read_to_end(stream)
        }
    }
}

/// Sends `line`, and expects it back.
pub fn round_trip(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

/// Bytes that look random and can be made again, as the content of a test.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Sends abcd!ef, of which the ! is urgent data.
pub fn say_urgently(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    assert_eq!(socket.send(b"abc").unwrap(), 3);
    assert_eq!(socket.send_out_of_band(b"d!").unwrap(), 2);
    assert_eq!(socket.send(b"ef").unwrap(), 2);
}

/// Closes a connection by a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
