//! `--status`: the status, metrics and health over HTTP.

mod hostile;
mod metrics;
mod page;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::libc::{SIGKILL, c_int, kill};

use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, nobody, round_trip, wait_until,
};

/// Where a daemon on a port that the system chose serves its status.
pub fn status_of(daemon: &Daemon) -> SocketAddr {
    let line = daemon.log.wait_for("status over HTTP at ");
    let at = line.split("status over HTTP at ").nth(1).unwrap().replace(['[', ']'], "");
    at.parse().unwrap()
}

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    head: String,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { code, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request as it stands, and reads the answer up to its end.
fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    Answer::parse(&answer)
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

fn get_over_unix(path: &Path) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: any.name\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(Answer::parse(&answer))
}

#[test]
fn each_path_has_its_answer() {
    let (folder, target) = (Folder::new(), Server::echo());
    let control = folder.path("control");
    let more = ["--status", "127.0.0.1:0", "--control", control.to_str().unwrap()];
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &more);
    let at = status_of(&receiver);
    let kinds = [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/status", "application/json"),
        ("/status?connections", "application/json"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
    ];
    for (path, kind) in kinds {
        let answer = get(at, path);
        assert_eq!((answer.code, answer.header("content-type")), (200, Some(kind)), "{answer:?}");
        assert!(!answer.body.is_empty());
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("deny"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));

        let head = ask(at, &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((head.code, &*head.body), (200, ""));
        assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 0);
        let post = ask(at, &format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((post.code, post.header("allow")), (405, Some("get, head")));
    }
    for path in ["/status/", "/metricsx", "//", "/favicon.ico", "/../etc/passwd", "*"] {
        assert_eq!(get(at, path).code, 404, "{path}");
    }
    let checks = "[+]listening ok\n[+]keys ok\n[+]not-draining ok\nreadyz check passed\n";
    assert_eq!(get(at, "/readyz?verbose").body, checks);
    assert_eq!(get(at, "/livez?verbose").body, "[+]threads ok\nlivez check passed\n");

    for wrong in ["/status?connections=", "/status?connections=all"] {
        assert_eq!(get(at, wrong).code, 400, "{wrong}");
    }
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    let mut clients = [(); 3].map(|()| sender.connect());
    for client in &mut clients {
        round_trip(client, b"open");
    }
    for (path, count) in [("", 3), ("=2", 2), ("=20000", 3), ("=0", 0)] {
        wait_until("the connections are told", || {
            let body = get(at, &format!("/status?connections{path}")).body;
            let told: serde_json::Value = serde_json::from_str(&body).unwrap();
            told["open"].as_array().unwrap().len() == count
        });
    }

    // The same bytes as the control socket's, if both are of the same second.
    wait_until("both tell the same", || {
        let mut asked = UnixStream::connect(&control).unwrap();
        asked.write_all(b"spiped/1 status 0\n").unwrap();
        let mut told = String::new();
        asked.read_to_string(&mut told).unwrap();
        told.split_once('\n').unwrap().1 == format!("{}\n", get(at, "/status").body)
    });
}

#[test]
fn a_client_may_end_its_direction_once_it_has_asked() {
    let (folder, target) = (Folder::new(), Server::echo());
    let status = ["--status", "127.0.0.1:0"];
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &status);
    let mut half = TcpStream::connect(status_of(&receiver)).unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert_eq!(Answer::parse(&answer).code, 200);
}

#[test]
fn requests_that_name_another_host_or_have_a_body_are_refused() {
    let folder = Folder::new();
    let status = ["--status", "127.0.0.1:0"];
    let receiver = Daemon::receiver(&folder.shared_key(), nobody(), &status);
    let at = status_of(&receiver);
    let code = |head: &str| ask(at, &format!("GET /status {head}\r\n\r\n")).code;
    for good in ["Host: localhost", "Host: 127.0.0.1", "Host: 127.1.2.3:80", "host: [::1]:9"] {
        assert_eq!(code(&format!("HTTP/1.1\r\n{good}")), 200, "{good}");
    }
    for evil in ["Host: evil.example", "Host: localhost.evil.example", "Host: 192.0.2.1:9101"] {
        assert_eq!(code(&format!("HTTP/1.1\r\n{evil}")), 403, "{evil}");
    }
    for wrong in ["Accept: */*", "Host:", "Host: localhost\r\nHost: localhost", "Host: a@localhost"]
    {
        assert_eq!(code(&format!("HTTP/1.1\r\n{wrong}")), 400, "{wrong}");
    }
    for other in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example"] {
        assert_eq!(code(&format!("HTTP/1.1\r\nHost: localhost\r\n{other}")), 403, "{other}");
    }
    // HTTP/1.0 has no host, and no browser speaks it.
    assert_eq!(code("HTTP/1.0"), 200);
    let absolute = "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(at, absolute).code, 403);
    for body in ["Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n0"] {
        assert_eq!(code(&format!("HTTP/1.1\r\nHost: localhost\r\n{body}")), 413, "{body}");
    }
    assert_eq!(ask(at, "no request\r\n\r\n").code, 400);
}

#[test]
fn the_target_is_asked_when_somebody_wants_it_and_its_server_sees_nothing() {
    let (folder, target) = (Folder::new(), Server::echo());
    let status = ["--status", "127.0.0.1:0"];
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &status);
    let at = status_of(&receiver);
    assert!(!get(at, "/readyz?verbose").body.contains("target"));
    for _ in 0..20 {
        let answer = get(at, "/readyz?target=1&verbose");
        assert!(answer.code == 200 && answer.body.contains("[+]target ok\n"), "{answer:?}");
    }
    // Whatever the server had to accept comes before this connection.
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    round_trip(&mut sender.connect(), b"ping");
    assert_eq!(target.accepted(), 1);

    let lonely = Daemon::receiver(&folder.shared_key(), nobody(), &status);
    let answer = get(status_of(&lonely), "/readyz?target=1");
    // All that tell of it agree.
    let told = get(status_of(&lonely), "/metrics").body;
    assert!(told.contains("\nspiped_target_reachable 0\n"), "{told}");
    assert!(answer.code == 503 && answer.body.contains("\n[-]target failed: "), "{answer:?}");
    assert_eq!(get(status_of(&lonely), "/readyz").code, 200);
}

#[test]
fn a_process_that_drains_is_alive_and_not_ready() {
    let (folder, target) = (Folder::new(), Server::echo());
    let status = ["--status", "127.0.0.1:0", "--drain-timeout", "60"];
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &status);
    let mut sender = Daemon::sender(&folder.shared_key(), receiver.address, &status);
    let (at, mut client) = (status_of(&sender), sender.connect());
    round_trip(&mut client, b"ping");
    sender.signal("TERM");
    sender.log.wait_for("TERM received");
    wait_until("it drains", || get(at, "/readyz").code == 503);
    let answer = get(at, "/readyz");
    assert!(answer.body.contains("[-]not-draining failed: "), "{answer:?}");
    assert!(get(at, "/status").body.contains("\"state\":\"draining\""));
    assert_eq!(get(at, "/livez").code, 200);
    round_trip(&mut client, b"pong");
    drop(client);
    assert!(sender.wait().success());
}

#[test]
fn a_unix_socket_has_the_rights_that_the_umask_leaves() {
    let folder = Folder::new();
    let (path, key) = (folder.path("status"), folder.shared_key());
    // What a process has left that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", "umask 0117; exec \"$@\"", "bash", SPIPED, "-F", "-d"]);
    command.args(["-s", "127.0.0.1:0", "-t", &nobody().to_string(), "-k", key.to_str().unwrap()]);
    command.args(["--status", path.to_str().unwrap()]);
    let mut receiver = Daemon::spawn(command);
    receiver.log.wait_for("status over HTTP at ");
    let file = fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    assert_eq!(get_over_unix(&path).unwrap().code, 200);
    receiver.signal("TERM");
    assert!(receiver.wait().success());
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_is_tried_again_and_the_pipe_does_not_wait() {
    let (folder, target) = (Folder::new(), Server::echo());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let status = at.to_string();
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, target.address, &["--status", &status]);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    receiver.log.wait_for("no status over HTTP: cannot listen on ");
    round_trip(&mut sender.connect(), b"ping");
    drop(taken);
    assert_eq!(status_of(&receiver), at);
    assert_eq!(get(at, "/readyz").code, 200);
    assert_eq!(receiver.log.count("no status over HTTP"), 1);
}

#[test]
fn an_address_that_is_wrong_is_a_usage_error() {
    let folder = Folder::new();
    let key = folder.shared_key();
    for (address, text) in [
        ("9101", "has no port"),
        ("localhost:9101", "'localhost' is a name"),
        ("0.0.0.0:9101", "other hosts could read the status at [0.0.0.0]:9101"),
        ("192.0.2.1:9101", "--expose-status allows it"),
        ("127.0.0.1:7", "-t is [127.0.0.1]:7, too"),
    ] {
        let output = Command::new(SPIPED)
            .args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:7", "-k"])
            .arg(&key)
            .args(["--status", address])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && said.contains(text), "{said}");
    }
    let exposed = ["--status", "0.0.0.0:0", "--expose-status"];
    let receiver = Daemon::receiver(&key, nobody(), &exposed);
    let at = SocketAddr::from(([127, 0, 0, 1], status_of(&receiver).port()));
    assert_eq!(get(at, "/status").code, 200);
}

/// A process that a test did not start itself; killed when dropped.
struct Worker(c_int);

impl Drop for Worker {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "nix has a crate of its own version here")]
        // SAFETY: the call takes two numbers.
        let _gone = unsafe { kill(self.0, SIGKILL) };
    }
}

#[test]
fn at_a_handover_the_next_process_has_the_address_at_once() {
    let (folder, target) = (Folder::new(), Server::echo());
    let (at, key) = (nobody(), folder.shared_key());
    let unix = folder.path("status");
    for status in [at.to_string(), unix.to_str().unwrap().to_owned()] {
        let more = ["--handover", "--drain-timeout", "60", "--status", &status];
        let mut keeper = Daemon::receiver(&key, target.address, &more);
        let id = keeper.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let _worker = Worker(children.trim().parse().unwrap());
        let sender = Daemon::sender(&key, keeper.address, &[]);
        let mut client = sender.connect();
        round_trip(&mut client, b"ping");
        keeper.signal("USR1");
        assert_eq!(keeper.wait().code(), Some(75));

        let next = Daemon::receiver(&key, target.address, &["--status", &status]);
        next.log.wait_for("status over HTTP at ");
        assert_eq!(next.log.count("no status over HTTP"), 0);
        let answer = if status.starts_with('/') {
            get_over_unix(&unix).unwrap()
        } else {
            get(at, "/status")
        };
        assert!(answer.body.contains(&format!("\"pid\":{},", next.child.id())), "{answer:?}");
        // The process before it goes on with its connection.
        round_trip(&mut client, b"pong");
    }
}
