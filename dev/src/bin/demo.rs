//! The demo that `scripts/demo` runs: client → sender → recording hop → receiver →
//! server. Shows the bytes that crossed the wire beside the text that the client sent.
#![allow(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use spiped::protocol::MESSAGE_1_MAX;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COMMAND: &[u8] =
    b"*3\r\n$3\r\nSET\r\n$7\r\naccount\r\n$28\r\nthe balance is 1,000,000 EUR\r\n";
const ROUND_TRIPS: usize = 1000;

fn main() -> Result<()> {
    let spiped = std::env::args().nth(1).ok_or("the path of spiped is missing")?;
    let folder = std::env::temp_dir().join(format!("spiped-demo-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let shown = show(&spiped, &folder);
    fs::remove_dir_all(&folder)?;
    shown
}

fn show(spiped: &str, folder: &Path) -> Result<()> {
    let key = folder.join("redis.key");
    let made = Command::new(spiped).arg("keygen").arg(&key).output()?;
    let id = String::from_utf8(made.stdout)?;
    println!(
        "\n1. a key, shared by both ends          spiped keygen redis.key    (key id {})",
        id.trim()
    );

    let (server, target, what) = start_server(folder)?;
    println!("2. {what:<37}at {target}");
    let receiver = Pipe::start(spiped, "-d", target, &key)?;
    println!(
        "3. a receiver before it                spiped -F -d -s {} -t {target} -k redis.key",
        receiver.address
    );
    let hop = Hop::start(receiver.address)?;
    println!("4. a hop that records the wire         at {}", hop.address);
    let sender = Pipe::start(spiped, "-e", hop.address, &key)?;
    println!(
        "5. a sender before that                spiped -F -e -s {} -t {} -k redis.key",
        sender.address, hop.address
    );

    let mut client = TcpStream::connect(sender.address)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.write_all(COMMAND)?;
    let answer = read_line(&mut client)?;
    println!("\nThe client says SET account …, the server answers {answer:?}.");
    let wire = hop.recorded();
    let (handshake, records) = wire.split_at_checked(MESSAGE_1_MAX).ok_or("no handshake")?;
    let begin = handshake.get(..32).unwrap_or_default();
    println!("\nwhat the client sent   what crossed the wire");
    side_by_side(&[], begin);
    println!(
        "{:<23}and {} more bytes of handshake, then records:",
        "",
        handshake.len() - begin.len()
    );
    side_by_side(COMMAND, records);
    let found = wire.windows(5).any(|window| COMMAND.windows(5).any(|plain| plain == window));
    println!(
        "\nfive readable bytes in a row found on the wire: {}",
        if found { "YES" } else { "none" }
    );
    if found {
        return Err("plaintext crossed the wire".into());
    }
    round_trips(&mut client, target)?;
    drop((client, sender, receiver, server));
    println!("\nEverything is stopped again.");
    Ok(())
}

/// The median of many round trips, through the pipe and without it.
fn round_trips(client: &mut TcpStream, target: SocketAddr) -> Result<()> {
    let mut direct = TcpStream::connect(target)?;
    direct.set_nodelay(true)?;
    let (mut through, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUND_TRIPS {
        for (stream, times) in [(&mut *client, &mut through), (&mut direct, &mut without)] {
            let started = Instant::now();
            stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
            read_line(stream)?;
            times.push(started.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    println!(
        "round trip, median of {ROUND_TRIPS}: {:.0?} through pipe and hop, {:.0?} without them",
        median(&mut through),
        median(&mut without)
    );
    Ok(())
}

fn read_line(stream: &mut TcpStream) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

/// The client's bytes as text, the wire's bytes as hex and text, 16 bytes a line.
fn side_by_side(plain: &[u8], wire: &[u8]) {
    let mut plain = plain.chunks(16);
    for wire in wire.chunks(16) {
        let hex: Vec<String> = wire.iter().map(|byte| format!("{byte:02x}")).collect();
        let said = plain.next().map(text).unwrap_or_default();
        println!("{said:<23}{:<50}{}", hex.join(" "), text(wire));
    }
}

fn text(bytes: &[u8]) -> String {
    let shown = |byte: &u8| {
        let byte = char::from(*byte);
        if byte.is_ascii_graphic() || byte == ' ' { byte } else { '.' }
    };
    bytes.iter().map(shown).collect()
}

/// A real redis-server, or a small server of our own if none is installed.
fn start_server(folder: &Path) -> Result<(Option<Stopped>, SocketAddr, &'static str)> {
    // The system chooses a free port, because Redis needs a number.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut redis = Command::new("redis-server");
    redis
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    drop(listener);
    match redis.spawn() {
        Ok(child) => {
            let child = Stopped(child);
            wait_for(address)?;
            Ok((Some(child), address, "a real redis-server"))
        }
        Err(_not_installed) => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || answer_ok(stream));
                }
            });
            Ok((None, address, "a small server (no redis-server here)"))
        }
    }
}

/// Answers +OK to every command; here each read gets one command.
fn answer_ok(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer)? > 0 {
        stream.write_all(b"+OK\r\n")?;
    }
    Ok(())
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let end = Instant::now().checked_add(Duration::from_secs(10)).ok_or("no clock")?;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            return Err("redis-server does not start".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A process that the demo started, ended when dropped.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One end of the pipe, on a port that the system chose.
struct Pipe {
    _process: Stopped,
    address: SocketAddr,
}

impl Pipe {
    fn start(spiped: &str, role: &str, target: SocketAddr, key: &Path) -> Result<Self> {
        let mut child = Command::new(spiped)
            .args(["-F", role, "-s", "[127.0.0.1]:0", "-t", &target.to_string(), "-k"])
            .arg(key)
            .env("SPIPED_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()?;
        let log = child.stderr.take().ok_or("no log")?;
        let process = Stopped(child);
        let mut lines = BufReader::new(log).lines();
        let line = lines.next().ok_or("it does not start")??;
        let address = line.split(" listening on ").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.ok_or(line.clone())?.replace(['[', ']'], "").parse()?;
        // The log is read to its end, so that the process never waits for the demo.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { _process: process, address })
    }
}

/// Passes all bytes on, and keeps those that went towards the receiver.
struct Hop {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Hop {
    fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let recorded = Arc::<Mutex<Vec<u8>>>::default();
        let record = Arc::clone(&recorded);
        thread::spawn(move || -> io::Result<()> {
            let (client, _) = listener.accept()?;
            let server = TcpStream::connect(to)?;
            let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || pass(back_from, back_to, &Mutex::default()));
            pass(client, server, &record)
        });
        Ok(Self { address, recorded })
    }

    fn recorded(&self) -> Vec<u8> {
        self.recorded.lock().map(|bytes| bytes.clone()).unwrap_or_default()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Vec<u8>>) -> io::Result<()> {
    to.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown(Shutdown::Write);
        }
        if let Ok(mut recorded) = record.lock() {
            recorded.extend_from_slice(bytes);
        }
        to.write_all(bytes)?;
    }
}
