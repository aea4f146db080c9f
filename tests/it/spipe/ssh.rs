//! ssh with `ProxyCommand`, through a receiver in front of a real sshd.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::support::{Daemon, Folder, need, nobody, noise, wait_until};

/// An sshd behind a receiver.
struct Line {
    folder: Folder,
    sshd: Sshd,
    receiver: Daemon,
}

impl Line {
    fn start() -> Self {
        for (program, package) in [
            ("sshd", "openssh-server"),
            ("ssh", "openssh-client"),
            ("ssh-keygen", "openssh-client"),
        ] {
            need(program, package);
        }
        let folder = Folder::new();
        let sshd = Sshd::start(&folder);
        let receiver = Daemon::receiver(&folder.shared_key(), sshd.address, &[]);
        Self { folder, sshd, receiver }
    }

    fn ssh(&self, command: &str) -> Child {
        let proxy = format!(
            "ProxyCommand={} -t %h:{} -k {}",
            self.folder.spipe().display(),
            self.receiver.address.port(),
            self.folder.shared_key().display(),
        );
        let known = format!("UserKnownHostsFile={}", self.folder.path("known").display());
        Command::new("ssh")
            .args(["-F", "none", "-o", &proxy, "-o", &known, "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(self.folder.path("user"))
            .args(["127.0.0.1", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[test]
fn ssh_uses_spipe_as_its_proxy_command() {
    let line = Line::start();
    let ssh = |command: &str, input: &[u8]| {
        let mut child = line.ssh(command);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    };
    let hello = ssh("echo hello; exit 7", b"");
    assert_eq!((hello.status.code(), &hello.stdout[..]), (Some(7), &b"hello\n"[..]), "{hello:?}");
    let content = noise(4, 5_000_000);
    let back = ssh("cat", &content);
    assert!(back.status.success() && back.stdout == content, "{:?}", back.stderr);
    // ssh ends its proxy command by a signal unless both directions have ended before;
    // then there is nothing to warn of.
    let ends = ["the peer beyond the tunnel reset its connection", " reason=finished id="];
    wait_until("both have ended", || {
        ends.map(|end| line.receiver.log.count(end)).iter().sum::<usize>() == 2
    });
    assert_eq!(line.receiver.log.count("warn"), 0);
    assert_eq!(line.receiver.log.count("shutting down"), 0);
}

/// sshd closes the connection without a word to ssh, whose own standard input stays open.
#[test]
fn ssh_ends_when_its_session_is_killed() {
    let line = Line::start();
    let mut ssh = line.ssh("echo $PPID; exec sleep 1000");
    let mut session = String::new();
    BufReader::new(ssh.stdout.as_mut().unwrap()).read_line(&mut session).unwrap();
    let session = session.trim();
    assert!(session.parse::<u32>().is_ok_and(|id| id != line.sshd.child.id()), "{session}");
    let killed = Instant::now();
    assert!(Command::new("kill").args(["-s", "KILL", session]).status().unwrap().success());
    wait_until("ssh ends", || ssh.try_wait().unwrap().is_some());
    println!("ssh ended {:?} after its session", killed.elapsed());
    let output = ssh.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
}

/// A real sshd on a port of loopback that admits this user by a key.
struct Sshd {
    child: Child,
    address: SocketAddr,
}

impl Sshd {
    fn start(folder: &Folder) -> Self {
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        // An sshd that root has started drops its privileges in this folder.
        let _exists = fs::create_dir("/run/sshd");
        let address = nobody();
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n",
            folder.path("host").display(),
            folder.path("user.pub").display(),
        );
        fs::write(folder.path("sshd.conf"), config).unwrap();
        let program = Command::new("sh")
            .args(["-c", "PATH=$PATH:/usr/sbin:/sbin; command -v sshd"])
            .output()
            .unwrap()
            .stdout;
        // sshd starts itself again for each connection, so it needs an absolute path.
        let child = Command::new(String::from_utf8(program).unwrap().trim())
            .args(["-D", "-e", "-f"])
            .arg(folder.path("sshd.conf"))
            .stderr(File::create(folder.path("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let sshd = Self { child, address };
        wait_until("sshd listens", || std::net::TcpStream::connect(address).is_ok());
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
