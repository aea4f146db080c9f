//! The systemd units, under a real systemd: two hosts, Redis on one, its
//! client on the other.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::support::net::namespaces_can_be;
use crate::support::{Folder, SPIPED, need, wait_until};

const RECEIVE: &str = "spiped-receive.service";
const SEND: &str = "spiped-send.service";
/// Host a's address, see systemd-hosts.sh.
const ADDR: &str = "192.0.2.1";

/// The units as they are shipped, and a place to install them.
fn install(usr: &Path) {
    let units = usr.join("lib/systemd/system");
    fs::create_dir_all(usr.join("bin")).unwrap();
    fs::create_dir_all(&units).unwrap();
    fs::copy(SPIPED, usr.join("bin/spiped")).unwrap();
    for unit in [RECEIVE, SEND] {
        fs::copy(shipped(unit), units.join(unit)).unwrap();
    }
}

fn shipped(unit: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit)
}

/// Two hosts, which live as long as this does, or the test.
struct Hosts {
    script: Child,
    server: Host,
    client: Host,
    // Dropped last.
    _folder: Folder,
}

/// A booted host.
struct Host {
    /// Its systemd, as this machine counts processes.
    systemd: String,
    root: PathBuf,
}

impl Hosts {
    fn boot() -> Self {
        let folder = Folder::new();
        let work = folder.path("hosts");
        install(&work.join("usr"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/systemd-hosts.sh");
        let mut script = Command::new(script)
            .arg(&work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (a, b) = line.trim().split_once(' ').expect("the hosts do not come up");
        let host = |systemd: &str, name| Host { systemd: systemd.into(), root: work.join(name) };
        let (server, client) = (host(a, "a"), host(b, "b"));
        for host in [&server, &client] {
            host.write_key(&fs::read(folder.shared_key()).unwrap());
            fs::write(host.etc("redis.conf"), format!("ADDR={ADDR}\n")).unwrap();
        }
        Self { script, server, client, _folder: folder }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if thread::panicking() {
            for host in [&self.server, &self.client] {
                let journal = host.run("journalctl --quiet --output short-monotonic").stdout;
                eprintln!("--- journal:\n{}", String::from_utf8_lossy(&journal));
            }
        }
        drop(self.script.stdin.take());
        let _status = self.script.wait();
    }
}

impl Host {
    fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc/spiped").join(name)
    }

    fn write_key(&self, key: &[u8]) {
        fs::write(self.etc("redis.key"), key).unwrap();
        self.set_key_mode(0o600);
    }

    fn set_key_mode(&self, mode: u32) {
        fs::set_permissions(self.etc("redis.key"), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// Runs a command there.
    fn run(&self, line: &str) -> Output {
        Command::new("timeout")
            .args(["10", "nsenter", "--all", "--target", &self.systemd])
            .args(["env", "-i", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin"])
            .args(line.split(' '))
            .output()
            .unwrap()
    }

    /// Runs a command there that must succeed; what it prints.
    fn must(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        said(&output)
    }

    /// What a unit has logged since it was last started.
    fn log(&self, unit: &str) -> String {
        let run = self.must(&format!("systemctl show -P InvocationID {unit}"));
        self.must("journalctl --sync");
        self.must(&format!("journalctl --quiet --output cat _SYSTEMD_INVOCATION_ID={run}"))
    }

    /// Starts a unit, by this command, and waits until it listens.
    fn start(&self, command: &str, unit: &str) {
        self.must(&format!("systemctl {command} {unit}"));
        wait_until("it listens", || self.log(unit).contains(" listening on "));
    }

    /// What redis-cli prints, be it a reply or an error.
    fn redis(&self, line: &str) -> String {
        said(&self.run(&format!("redis-cli -p 8000 {line}")))
    }
}

/// Whether hosts can be booted here at all; says so where they can't.
fn hosts_can_be() -> bool {
    need("systemd-nspawn", "systemd-container");
    need("ip", "iproute2");
    need("redis-server", "redis-server");
    namespaces_can_be("the units")
}

#[test]
fn the_units_carry_redis_between_two_hosts() {
    if !hosts_can_be() {
        return;
    }
    let hosts = Hosts::boot();
    let (server, client) = (&hosts.server, &hosts.client);
    server.must(
        "systemd-run --unit redis --service-type notify redis-server --supervised systemd \
         --bind 127.0.0.1 --port 6379 --dir /tmp",
    );
    server.start("enable --now", RECEIVE);
    client.start("enable --now", SEND);

    assert_eq!(client.redis("ping"), "PONG");
    assert_eq!(client.redis("set name value"), "OK");
    assert_eq!(client.redis("get name"), "value");
    // Straight to the receiver there is nothing to be had.
    let straight = client.redis(&format!("-h {ADDR} -p 6379 ping"));
    assert!(straight.contains("reset by peer"), "{straight}");
    assert!(server.log(RECEIVE).contains("looks like plaintext redis"));

    for (host, unit) in [(server, RECEIVE), (client, SEND)] {
        let process = host.must(&format!("systemctl show -P MainPID {unit}"));
        let user = host.must(&format!("stat --format %u /proc/{process}"));
        assert_ne!(user, "0", "{unit} runs as root");
    }

    server.start("restart", RECEIVE);
    assert_eq!(client.redis("get name"), "value");
    server.must(&format!("systemctl kill --signal KILL {RECEIVE}"));
    wait_until("it is started again", || {
        server.must(&format!("systemctl show -P NRestarts {RECEIVE}")) == "1"
            && client.redis("get name") == "value"
    });

    // No more Redis: the client is told so, and the log says why.
    server.must("systemctl stop redis");
    let error = client.redis("ping");
    assert!(error.contains("reset by peer"), "{error}");
    for (host, unit) in [(server, RECEIVE), (client, SEND)] {
        let log = host.log(unit);
        assert!(log.contains("target refused the connection"), "{unit}:\n{log}");
    }
}

#[test]
fn the_units_refuse_keys_that_differ_or_are_open_to_others() {
    if !hosts_can_be() {
        return;
    }
    let hosts = Hosts::boot();
    let (server, client) = (&hosts.server, &hosts.client);
    server.start("start", RECEIVE);
    client.write_key(&[7; 32]);
    client.start("start", SEND);
    let error = client.redis("ping");
    assert!(error.contains("reset by peer"), "{error}");
    let log = server.log(RECEIVE);
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the key does not fit")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("compare 'spiped keyid"), "{log}");

    server.set_key_mode(0o640);
    assert!(!server.run(&format!("systemctl restart {RECEIVE}")).status.success());
    let log = server.log(RECEIVE);
    assert!(log.contains("redis.key is open to others than its owner (mode 0640)"), "{log}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    need("systemd-analyze", "systemd");
    let folder = Folder::new();
    // Verified among the units that every system has.
    let usr = folder.path("root/usr");
    fs::create_dir_all(usr.join("lib/systemd")).unwrap();
    let copy = ["-R", "/usr/lib/systemd/system"].map(Path::new);
    must(Command::new("cp").args(copy).arg(usr.join("lib/systemd")));
    install(&usr);
    let root = folder.path("root");
    for unit in [RECEIVE, SEND] {
        let verify = ["verify", "--man=no", "--root", root.to_str().unwrap(), unit];
        // It succeeds also where it warns.
        assert_eq!(must(Command::new("systemd-analyze").args(verify)), "");
        // At most 2.0, of 10.
        let security = ["security", "--no-pager", "--offline=true", "--threshold=20"];
        must(Command::new("systemd-analyze").args(security).arg(shipped(unit)));
    }
}

/// Runs a command that must succeed; what it prints.
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{command:?}:\n{said}");
    said
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}
