//! The peers that are measured: ours and its alternatives, each as a pair of processes on
//! loopback, with the settings that suit it best. None of them writes a log line for each
//! connection.

mod haproxy;
mod ssh;
mod stunnel;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::process::{Process, free_ports, loopback};

/// The folder to which scripts/bench unpacks it: an installed package would replace ours.
const DEBIAN_SPIPED: &str = "target/bench/debian/usr/bin/spiped";

/// A kind of tunnel.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name in the tables and in `--peers`.
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// No tunnel at all.
    Direct,
    Ours {
        program: PathBuf,
        arguments: Vec<String>,
        of_sender: Vec<String>,
        cipher: &'static str,
    },
    /// Debian's spiped, in C.
    Spiped,
    Haproxy(Tls),
    /// With this suite of TLS 1.3.
    Stunnel(&'static str),
    Ssh,
    /// socat, with one process for each connection.
    Socat,
}

/// Whether the wire is plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Off,
    Mutual,
}

/// The two processes of a tunnel.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The process to which the client connects.
    Client,
    /// The process that connects to the server.
    Server,
}

/// The way through a tunnel: client → entry → middle → target.
#[derive(Clone, Copy, Debug)]
struct Route {
    entry: u16,
    middle: u16,
    target: u16,
}

impl Route {
    /// The address on which that side listens, and the address to which it connects.
    fn of(self, side: Side) -> (u16, u16) {
        match side {
            Side::Client => (self.entry, self.middle),
            Side::Server => (self.middle, self.target),
        }
    }
}

/// A build of ours: `--ours [NAME=]PATH [ARGUMENTS] [-e ARGUMENTS]`.
#[derive(Clone, Debug)]
pub struct Build {
    /// The name in the tables.
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// Further options that a receiver does not take.
    of_sender: Vec<String>,
}

impl std::str::FromStr for Build {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut words = text.split_whitespace();
        let first = words.next().ok_or("the path of spiped is missing")?;
        let (name, program) = first.split_once('=').unwrap_or(("ours", first));
        // Peers are started in another folder, so the path must be absolute.
        let program = fs::canonicalize(program).map_err(|error| format!("{program}: {error}"))?;
        let mut arguments: Vec<_> = words.map(str::to_owned).collect();
        let both = arguments.iter().position(|word| word == "-e").unwrap_or(arguments.len());
        let of_sender = arguments.drain(both..).skip(1).collect();
        Ok(Self { name: name.into(), program, arguments, of_sender })
    }
}

/// All peers, the builds of ours first.
pub fn all(builds: &[Build]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for (suffix, cipher) in [("", "aes-256-gcm"), ("-chacha", "chacha20-poly1305")] {
        for Build { name, program, arguments, of_sender } in builds {
            let (program, arguments) = (program.clone(), arguments.clone());
            let kind = Kind::Ours { program, arguments, of_sender: of_sender.clone(), cipher };
            peers.push(Peer { name: format!("{name}{suffix}"), kind });
        }
    }
    let others = [
        ("spiped", Kind::Spiped),
        ("stunnel", Kind::Stunnel("TLS_AES_256_GCM_SHA384")),
        ("stunnel-chacha", Kind::Stunnel("TLS_CHACHA20_POLY1305_SHA256")),
        ("haproxy-tls", Kind::Haproxy(Tls::Mutual)),
        ("ssh", Kind::Ssh),
        ("haproxy", Kind::Haproxy(Tls::Off)),
        ("socat", Kind::Socat),
        ("direct", Kind::Direct),
    ];
    peers.extend(others.map(|(name, kind)| Peer { name: name.into(), kind }));
    peers
}

impl Peer {
    /// The name for readers.
    pub fn title(&self) -> String {
        match &self.kind {
            Kind::Direct => "no tunnel".into(),
            Kind::Ours { cipher, .. } => {
                let cipher = match *cipher {
                    "aes-256-gcm" => "AES-256-GCM",
                    _ => "ChaCha20-Poly1305",
                };
                let name = self.name.trim_end_matches("-chacha");
                format!("{}, {cipher}", if name == "ours" { "spiped" } else { name })
            }
            Kind::Spiped => "spiped 1.6".into(),
            Kind::Haproxy(Tls::Mutual) => "haproxy, TLS 1.3".into(),
            Kind::Haproxy(Tls::Off) => "haproxy, plaintext".into(),
            Kind::Stunnel("TLS_AES_256_GCM_SHA384") => "stunnel, AES-256-GCM".into(),
            Kind::Stunnel(_) => "stunnel, ChaCha20-Poly1305".into(),
            Kind::Ssh => "ssh -L".into(),
            Kind::Socat => "socat, plaintext".into(),
        }
    }

    /// The options of a build of ours, beside the ones that it needs.
    pub fn options(&self) -> String {
        let Kind::Ours { arguments, of_sender, .. } = &self.kind else { return String::new() };
        let of_sender = of_sender.iter().map(|word| format!("{word} (sender)"));
        arguments.iter().cloned().chain(of_sender).collect::<Vec<_>>().join(" ")
    }

    /// Whether the peer is the pipe of this project.
    pub fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours { .. })
    }

    /// The program, if the peer is ours.
    pub fn program(&self) -> Option<&Path> {
        if let Kind::Ours { program, .. } = &self.kind { Some(program) } else { None }
    }

    /// Whether the peer's processes end with their connections, so that they cannot be
    /// asked afterwards what they have cost.
    pub fn forks(&self) -> bool {
        matches!(self.kind, Kind::Socat)
    }

    /// Whether the bytes on the wire are encrypted.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self.kind, Kind::Haproxy(Tls::Off) | Kind::Socat | Kind::Direct)
    }

    /// Whether there is no tunnel.
    pub fn is_direct(&self) -> bool {
        matches!(self.kind, Kind::Direct)
    }

    /// The peer with further arguments, if it is ours.
    pub fn with(&self, more: &[&str]) -> Self {
        let mut peer = self.clone();
        if let Kind::Ours { arguments, .. } = &mut peer.kind {
            arguments.extend(more.iter().map(|&word| word.to_owned()));
        }
        peer
    }

    /// The program's own text about its version; `None` if the program is missing.
    pub fn version(&self) -> Option<String> {
        let (program, argument) = match &self.kind {
            Kind::Direct => return Some(String::new()),
            Kind::Ours { program, .. } => (program.to_string_lossy(), "-v"),
            Kind::Spiped => (DEBIAN_SPIPED.into(), "-v"),
            Kind::Haproxy(_) => ("haproxy".into(), "-v"),
            Kind::Stunnel(_) => ("stunnel4".into(), "-version"),
            // sshd has no option for its version, and comes from the source of ssh.
            Kind::Ssh if !Path::new(ssh::SSHD).exists() => return None,
            Kind::Ssh => ("ssh".into(), "-V"),
            Kind::Socat => ("socat".into(), "-V"),
        };
        let said = Command::new(&*program).arg(argument).stdin(Stdio::null()).output().ok()?;
        let text = [said.stdout, said.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    }

    /// Starts both sides in front of `target`, with their files in this folder.
    pub fn start(&self, folder: &Path, target: SocketAddr) -> Result<Tunnel> {
        if self.is_direct() {
            return Ok(Tunnel { entry: target, processes: vec![] });
        }
        let (entry, middle) = free_ports()?;
        let route = Route { entry, middle, target: target.port() };
        let mut processes = Vec::new();
        for side in [Side::Server, Side::Client] {
            let log = folder.join(format!("{}-{side:?}.log", self.name));
            let mut process = Process::start(&self.command(side, route, folder)?, &log)?;
            process.wait_for(route.of(side).0)?;
            processes.push(process);
        }
        Ok(Tunnel { entry: loopback(entry), processes })
    }

    fn command(&self, side: Side, route: Route, folder: &Path) -> Result<Vec<String>> {
        match &self.kind {
            Kind::Direct => Err("direct is no process".into()),
            Kind::Ours { program, arguments, of_sender, cipher } => {
                let mut command = spiped(&program.to_string_lossy(), side, route, folder);
                command.extend(["-q", "--cipher", cipher].map(str::to_owned));
                command.extend_from_slice(arguments);
                if matches!(side, Side::Client) {
                    command.extend_from_slice(of_sender);
                }
                Ok(command)
            }
            Kind::Spiped => {
                let mut command = spiped(DEBIAN_SPIPED, side, route, folder);
                // A thousand handshakes at once take it longer than its limit of 5 s.
                command.extend(["-o", "60"].map(str::to_owned));
                Ok(command)
            }
            Kind::Haproxy(tls) => haproxy::command(*tls, side, route.of(side), folder),
            Kind::Stunnel(suite) => stunnel::command(suite, side, route.of(side), folder),
            Kind::Ssh => ssh::command(side, route, folder),
            Kind::Socat => Ok(socat(route.of(side))),
        }
    }
}

/// The command line that our spiped and Debian's have in common.
fn spiped(program: &str, side: Side, route: Route, folder: &Path) -> Vec<String> {
    let role = match side {
        Side::Client => "-e",
        Side::Server => "-d",
    };
    let (listen, connect) = route.of(side);
    let key = folder.join("spiped.key");
    format!("{program} -F {role} -s [127.0.0.1]:{listen} -t [127.0.0.1]:{connect} -n 0 -k")
        .split(' ')
        .map(str::to_owned)
        .chain([key.to_string_lossy().into_owned()])
        .collect()
}

/// With buffers that are as large as is useful.
fn socat((listen, connect): (u16, u16)) -> Vec<String> {
    let socket = "nodelay,bind=127.0.0.1";
    format!(
        "socat -b 262144 TCP4-LISTEN:{listen},{socket},fork,reuseaddr,backlog=4096 \
         TCP4:127.0.0.1:{connect},nodelay"
    )
    .split_whitespace()
    .map(str::to_owned)
    .collect()
}

/// A running tunnel.
pub struct Tunnel {
    /// The address to which the client connects.
    pub entry: SocketAddr,
    processes: Vec<Process>,
}

impl Tunnel {
    /// The processor time of both sides so far; zero without a tunnel.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// The processor time that both sides have used since `before`.
    pub fn cpu_since(&self, before: Duration) -> Result<Duration> {
        Ok(self.cpu()?.checked_sub(before).ok_or("a process of it is gone")?)
    }

    /// KiB of memory of both sides.
    pub fn memory(&self) -> Result<f64> {
        self.processes.iter().map(Process::memory).sum()
    }
}
