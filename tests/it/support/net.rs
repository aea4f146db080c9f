//! Networks of a test's own: nothing outside can be reached from them, any address and
//! port can be used in them, and they vanish with their last process.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{Folder, Lines, need, signal, skip};

/// Whether namespaces can be made here; if not, prints what is not tested.
pub fn namespaces_can_be(tested: &str) -> bool {
    let can = nix::unistd::geteuid().is_root()
        && Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "true"])
            .output()
            .is_ok_and(|output| output.status.success());
    if !can {
        skip("needs root and namespaces", tested);
    }
    can
}

/// A network namespace.
pub struct Net(File);

impl Net {
    /// A namespace that has only its loopback.
    pub fn new() -> Self {
        need("ip", "iproute2");
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        })
    }

    /// The namespace of a process, by the id of the process.
    #[cfg(feature = "aws-lc")]
    pub fn of(process: &str) -> Self {
        Self(File::open(format!("/proc/{process}/ns/net")).unwrap())
    }

    /// Runs a closure in the namespace; threads and processes that it starts stay there.
    pub fn enter<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        })
    }
}

fn in_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// The ip program, in the network of the calling thread.
pub fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {done:?}");
}

/// A hardware address that nothing has: packets to it are lost.
pub const NOBODY: &str = "02:00:00:00:00:00";

/// Two networks joined by a cable: `near` has the address 192.0.2.1, `far`
/// has 192.0.2.2.
pub struct Cable {
    pub near: Net,
    pub far: Net,
}

impl Cable {
    pub fn new() -> Self {
        let (near, far) = (Net::new(), Net::new());
        let there = format!("/proc/{}/fd/{}", std::process::id(), far.0.as_raw_fd());
        near.enter(|| {
            ip(&format!("link add cable0 type veth peer name cable0 netns {there}"));
            ip("address add 192.0.2.1/24 dev cable0");
            ip("link set cable0 up");
        });
        far.enter(|| {
            ip("address add 192.0.2.2/24 dev cable0");
            ip("link set cable0 up");
        });
        Self { near, far }
    }

    /// From now on nothing arrives, and neither side learns of it.
    pub fn cut(&self) {
        let go_astray = |peer| {
            ip(&format!("neighbour replace {peer} lladdr {NOBODY} nud permanent dev cable0"));
        };
        self.near.enter(|| go_astray("192.0.2.2"));
        self.far.enter(|| go_astray("192.0.2.1"));
    }

    pub fn mend(&self) {
        self.near.enter(|| ip("neighbour del 192.0.2.2 dev cable0"));
        self.far.enter(|| ip("neighbour del 192.0.2.1 dev cable0"));
    }
}

/// A real resolver in a network of its own, which all programs there use.
pub struct Resolver {
    pub folder: Folder,
    running: Option<(Child, Lines)>,
}

impl Resolver {
    /// Starts the resolver, and runs a test in a network where it resolves names.
    pub fn with(test: impl FnOnce(&mut Self) + Send) {
        need("dnsmasq", "dnsmasq-base");
        Net::new().enter(|| {
            let folder = Folder::new();
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            for (name, text) in [
                ("resolv.conf", "nameserver 127.0.0.1\n"),
                ("nsswitch.conf", "hosts: files dns\n"),
                ("hosts", "127.0.0.1 localhost\n"),
            ] {
                let file = folder.path(name);
                fs::write(&file, text).unwrap();
                let over = format!("/etc/{name}");
                mount(Some(&file), over.as_str(), none, MsFlags::MS_BIND, none).unwrap();
            }
            test(&mut Self { folder, running: None });
        });
    }

    /// Sets the addresses of `target.test`; a running resolver reads them again.
    pub fn say(&self, addresses: &[&str]) {
        let lines: Vec<_> = addresses.iter().map(|it| format!("{it} target.test\n")).collect();
        fs::write(self.folder.path("names"), lines.concat()).unwrap();
        if self.running.is_some() {
            self.signal("HUP");
        }
    }

    pub fn start(&mut self) {
        let mut child = Command::new("dnsmasq")
            .args([
                "--no-daemon",
                "--log-queries",
                "--conf-file=/dev/null",
                "--user=root",
                "--pid-file=",
            ])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            .args(["--no-resolv", "--local=/test/", "--no-hosts", "--addn-hosts"])
            .arg(self.folder.path("names"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        self.running = Some((child, log.clone()));
        log.wait_for("started, version");
    }

    /// How often an IPv4 address of `target.test` was asked for.
    pub fn asked(&self) -> usize {
        self.running.as_ref().unwrap().1.count("query[A] target.test")
    }

    /// Ends the resolver: further questions are refused.
    pub fn stop(&mut self) {
        if let Some((mut child, _log)) = self.running.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Sends a signal to the resolver: after `STOP`, questions get no answer.
    pub fn signal(&self, name: &str) {
        signal(&self.running.as_ref().unwrap().0, name);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop();
    }
}
