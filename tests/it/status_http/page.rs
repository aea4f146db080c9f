//! The page, as Chromium shows it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::{get, status_of};
use crate::support::{Daemon, Folder, SPIPED, Server, need, read_to_end, round_trip, wait_until};

/// What a browser has made of the page.
struct Shown {
    page: String,
    console: Vec<String>,
}

impl Shown {
    /// Loads the page, and lets it ask a few times.
    fn at(address: SocketAddr) -> Self {
        need("chromium", "chromium");
        let profile = Folder::new();
        let mut command = Command::new("chromium");
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
        command.args(["--enable-logging=stderr", "--virtual-time-budget=7000"]);
        command.arg(format!("--user-data-dir={}", profile.path("profile").display()));
        let output = command.arg(format!("http://{address}/")).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains("</html>"), "{page}{log}");
        let console = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
        Self { page, console: console.collect() }
    }

    /// The element of this id, as far as its end or that of the first one in it.
    fn element(&self, id: &str) -> &str {
        let begin = format!(" id=\"{id}\"");
        let rest = self.page.split(&begin).nth(1).unwrap_or_else(|| panic!("{id}: {}", self.page));
        rest.split("</").next().unwrap()
    }

    /// The value behind what an element shows.
    fn value(&self, id: &str) -> &str {
        let value = self.element(id).split("data-value=\"").nth(1);
        value
            .unwrap_or_else(|| panic!("{id} has no value: {}", self.page))
            .split('"')
            .next()
            .unwrap()
    }

    fn text(&self, id: &str) -> &str {
        self.element(id).split('>').nth(1).unwrap()
    }

    /// The texts in a column of a table.
    fn column(&self, table: &str, name: &str) -> Vec<&str> {
        let begin = format!(" id=\"{table}\"");
        let rest = self.page.split(&begin).nth(1).unwrap().split("</table>").next().unwrap();
        let begin = format!("data-column=\"{name}\"");
        rest.split(&begin)
            .skip(1)
            .map(|cell| cell.split('>').nth(1).unwrap().split('<').next().unwrap())
            .collect()
    }
}

#[test]
fn the_page_shows_what_the_status_says() {
    let folder = Folder::new();
    let server = Server::echo();
    let key = folder.key("web1.key");
    let control = folder.path("control");
    let receiver = Daemon::receiver(
        &key,
        server.address,
        &["--status", "127.0.0.1:0", "--control", control.to_str().unwrap()],
    );
    let at = status_of(&receiver);
    let sender = Daemon::sender(&key, receiver.address, &["--tell-client"]);
    let stranger = Daemon::sender(&folder.key("other"), receiver.address, &[]);
    assert!(read_to_end(&mut stranger.connect()).0.is_empty());
    let mut clients: Vec<_> = (0..3).map(|_| sender.connect()).collect();
    for client in &mut clients {
        round_trip(client, &[7; 5000]);
    }
    let status = || serde_json::from_str::<Value>(&get(at, "/status").body).unwrap();
    wait_until("all is counted", || status()["totals"]["received_bytes"] == 15_000);

    let shown = Shown::at(at);
    assert_eq!(shown.console, [""; 0]);
    let status = status();
    for (id, path) in [
        ("state", "/state"),
        ("since", "/since"),
        ("reachable", "/target/reachable"),
        ("connections", "/connections"),
        ("connection-limit", "/connection_limit"),
        ("sent-total", "/totals/sent_bytes"),
        ("received-total", "/totals/received_bytes"),
        ("failed", "/recent/handshakes_failed"),
        ("handshakes", "/recent/handshakes_ok"),
    ] {
        let value = status.pointer(path).unwrap().to_string();
        assert_eq!(shown.value(id), value.trim_matches('"'), "{id}: {status:#}");
    }
    assert_eq!(shown.value("sent-total"), "15000");
    assert_eq!(shown.text("sent-total"), "14.6 KiB in all");
    assert_eq!(shown.text("name"), "spiped (receiver)");
    assert_eq!((shown.text("failed"), shown.text("handshakes")), ("1 bad", "3 good"));
    assert_eq!(shown.text("charts"), shown.text("recent"));
    assert_eq!(shown.column("open", "sent"), ["4.8 KiB"; 3]);
    assert_eq!(shown.text("pid"), status["pid"].to_string());
    assert_eq!(shown.text("target"), status["target"]["address"]);
    assert_eq!(shown.column("keys", "key"), ["web1"]);
    assert_eq!(shown.column("keys", "id"), [status["keys"][0]["key_id"].as_str().unwrap()]);
    assert_eq!(shown.column("keys", "in all"), ["3"]);
    assert_eq!(shown.column("failures", "reason"), ["wrong-key"]);
    let hint = status["failures"][0]["hint"].as_str().unwrap();
    assert_eq!(shown.column("failures", "hint"), [hint]);
    says_the_same(&shown, &control, &clients);
    assert!(shown.page.contains("data-loaded=\"yes\""));
}

/// The command and the page say the same of these clients, in the same words.
fn says_the_same(shown: &Shown, control: &Path, clients: &[TcpStream]) {
    let clients = clients.iter().map(|client| client.local_addr().unwrap().to_string());
    let mut peers = shown.column("open", "peer");
    peers.sort_unstable();
    let mut clients: Vec<_> = clients.collect();
    clients.sort_unstable();
    let via =
        |(peer, client): (&&str, &String)| peer.starts_with(&format!("{client} via 127.0.0.1:"));
    assert!(peers.len() == 3 && peers.iter().zip(&clients).all(via), "{peers:?} {clients:?}");
    let mut command = Command::new(SPIPED);
    let printed = command.arg("status").arg(control).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    for part in [
        " (receiver): serving for ",
        "sent          14.6 KiB, ",
        " reached ",
        "3 good, 1 bad in the last ",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(shown.text("reachable").starts_with("reached "), "{}", shown.page);
    let mut command = Command::new(SPIPED);
    let printed = command.args(["status", "--connections"]).arg(control).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    assert!(peers.iter().all(|peer| printed.contains(peer)), "{printed} {peers:?}");
}

/// Such as a path, or the words of a server.
#[test]
fn what_others_have_named_is_a_text_in_the_page_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.path("<img src=x onerror=console.error(1)>&lt;b>");
    let receiver =
        Daemon::receiver(&folder.shared_key(), path.display(), &["--status", "127.0.0.1:0"]);
    let shown = Shown::at(status_of(&receiver));
    assert_eq!(shown.console, [""; 0]);
    // Its text has no end of an element in it.
    let text = shown.text("target");
    assert!(text.ends_with("&lt;img src=x onerror=console.error(1)&gt;&amp;lt;b&gt;"), "{text}");
}

/// A hop that lets the page through, and the status once.
#[test]
fn the_page_says_when_it_has_lost_the_daemon() {
    let folder = Folder::new();
    let more = ["--status", "127.0.0.1:0"];
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &more);
    let at = status_of(&receiver);
    let hop = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hop.local_addr().unwrap();
    let (asked, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for browser in hop.incoming() {
                let mut browser = browser.unwrap();
                let request = head_of(&mut browser);
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                if request.is_empty() {
                    // A browser opens connections that it may need.
                    continue;
                }
                let is_status = request.starts_with("GET /status");
                if is_status && asked.fetch_add(1, Ordering::Relaxed) > 0 {
                    continue;
                }
                let mut daemon = TcpStream::connect(at).unwrap();
                let once = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
                let once = once.replacen("Connection: keep-alive\r\n", "", 1);
                daemon.write_all(once.as_bytes()).unwrap();
                let mut answer = Vec::new();
                daemon.read_to_end(&mut answer).unwrap();
                browser.write_all(&answer).unwrap();
            }
        });
        let shown = Shown::at(address);
        is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(address).unwrap());
        assert!(asked.load(Ordering::Relaxed) > 1);
        assert!(shown.page.contains("data-loaded=\"lost\""), "{}", shown.page);
        assert!(shown.text("lost").starts_with("No answer from spiped since "));
        // What it had shown is still there.
        assert_eq!(shown.value("state"), "serving");
    });
}

/// A request up to its empty line; nothing if none comes.
fn head_of(browser: &mut TcpStream) -> String {
    let mut head = String::new();
    let mut byte = [0];
    while !head.ends_with("\r\n\r\n") {
        match browser.read(&mut byte) {
            Ok(1) => head.push(char::from(byte[0])),
            _ => return String::new(),
        }
    }
    head
}
