//! Hosts on one cable, each with a real systemd; see hosts.sh.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Index;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

use super::net::{Net, namespaces_can_be};
use super::{Folder, Lines, SPIPED, need, signal, wait_until};

/// Whether hosts can be booted here; if not, prints what is not tested.
pub fn hosts_can_be(tested: &str) -> bool {
    need("systemd-nspawn", "systemd-container");
    need("ip", "iproute2");
    need("sshd", "openssh-server");
    need("sudo", "sudo");
    need("redis-server", "redis-server");
    namespaces_can_be(tested)
}

/// The path of a file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Puts the program and its units under `usr`, as a package would.
pub fn install(usr: &Path) {
    let units = usr.join("lib/systemd/system");
    fs::create_dir_all(usr.join("bin")).unwrap();
    fs::create_dir_all(&units).unwrap();
    fs::copy(SPIPED, usr.join("bin/spiped")).unwrap();
    symlink("spiped", usr.join("bin/spipe")).unwrap();
    for unit in fs::read_dir(project("systemd")).unwrap() {
        let unit = unit.unwrap();
        fs::copy(unit.path(), units.join(unit.file_name())).unwrap();
    }
}

/// Hosts on one cable; they end with this value, or with the test.
pub struct Hosts {
    script: Child,
    says: BufReader<ChildStdout>,
    all: Vec<Host>,
    // Dropped last.
    _folder: Folder,
}

/// A booted host.
pub struct Host {
    name: String,
    /// The id of the host's systemd on this machine.
    systemd: String,
    pub root: PathBuf,
}

impl Hosts {
    /// Boots hosts of these names: the first has the address 192.0.2.1, the second
    /// 192.0.2.2, and so on. The program and its units are installed, but not configured.
    pub fn boot(names: &[&str]) -> Self {
        Self::boot_with(names, install)
    }

    /// Like `boot`; `install` fills the folder that is laid over the /usr of the hosts.
    pub fn boot_with(names: &[&str], install: impl FnOnce(&Path)) -> Self {
        let folder = Folder::new();
        let work = folder.path("hosts");
        fs::create_dir_all(work.join("usr")).unwrap();
        install(&work.join("usr"));
        let mut script = Command::new(project("tests/it/support/hosts.sh"))
            .arg(&work)
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(script.stdout.take().unwrap());
        let host = |name: &&str| Host {
            name: (*name).into(),
            systemd: String::new(),
            root: work.join(name),
        };
        let all = names.iter().map(host).collect();
        let mut hosts = Self { script, says, all, _folder: folder };
        for _ in names {
            hosts.hear_of_one_that_is_up();
        }
        hosts
    }

    fn hear_of_one_that_is_up(&mut self) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        let (name, systemd) = line.trim().split_once(' ').expect("a host does not come up");
        let host = self.all.iter_mut().find(|host| host.name == name).unwrap();
        host.systemd = systemd.into();
    }

    /// Cuts a host's power: its processes get no warning.
    pub fn power_off(&mut self, name: &str) {
        self.tell(&format!("off {name}"));
    }

    /// Boots a host that is off.
    pub fn power_on(&mut self, name: &str) {
        self.tell(&format!("on {name}"));
        self.hear_of_one_that_is_up();
    }

    /// Reboots a host as its operator would.
    pub fn reboot(&mut self, name: &str) {
        // The command may end the connection before its own answer.
        let _asked = self[name].run("systemctl reboot");
        self.tell(&format!("reboot {name}"));
        self.hear_of_one_that_is_up();
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.script.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// A command on the switch, where the cable of each host is called `to-NAME`.
    pub fn on_the_switch(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("spiped-test-{}-switch", self.script.id())]);
        command.arg(program);
        command
    }

    /// Pulls a host's cable out, or plugs it in again.
    pub fn set_cable(&self, name: &str, state: Cable) {
        let state = match state {
            Cable::In => "up",
            Cable::Out => "down",
        };
        let mut ip = self.on_the_switch("ip");
        assert!(ip.args(["link", "set", &format!("to-{name}"), state]).status().unwrap().success());
    }
}

/// A host's cable.
#[derive(Clone, Copy)]
pub enum Cable {
    In,
    Out,
}

impl Index<&str> for Hosts {
    type Output = Host;

    fn index(&self, name: &str) -> &Host {
        self.all.iter().find(|host| host.name == name).unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if thread::panicking() {
            for host in &self.all {
                let journal = host.run("journalctl --quiet --output short-monotonic").stdout;
                eprintln!("--- journal of {}:\n{}", host.name, String::from_utf8_lossy(&journal));
            }
        }
        drop(self.script.stdin.take());
        let _status = self.script.wait();
    }
}

impl Host {
    /// The path of a file in the host's /etc/spiped.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc/spiped").join(name)
    }

    /// Writes a file into the host's /etc/spiped, with this mode.
    pub fn write_etc(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.etc(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["60", "nsenter", "--all", "--target", &self.systemd])
            .args(["env", "-i", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin"])
            .stdin(Stdio::null());
        command
    }

    /// Runs a command on the host; a space separates its words.
    pub fn run(&self, line: &str) -> Output {
        self.command().args(line.split(' ')).output().unwrap()
    }

    /// Runs a command on the host that must succeed; returns its output.
    pub fn must(&self, line: &str) -> String {
        succeeded(line, &self.run(line))
    }

    /// Runs a shell script as root on the host, which must succeed; returns its output.
    pub fn sh(&self, script: &str) -> String {
        succeeded(script, &self.shell(script).output().unwrap())
    }

    /// A shell script for the host, not yet run.
    pub fn shell(&self, script: &str) -> Command {
        let mut bash = self.command();
        bash.args(["bash", "-eu", "-o", "pipefail", "-c", script]);
        bash
    }

    /// Starts a command on the host, which ends when the returned value is dropped; a
    /// space separates its words.
    pub fn spawn(&self, line: &str) -> Spawned {
        let words = self.command().args(line.split(' ')).stdout(Stdio::piped()).spawn();
        let mut child = words.unwrap();
        let lines = Lines::collect(child.stdout.take().unwrap());
        Spawned { child, lines }
    }

    /// The host's network, for the test's own clients and servers.
    pub fn net(&self) -> Net {
        Net::of(&self.systemd)
    }

    /// The outside path of a file that exists on the host at run time.
    pub fn outside(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.systemd).into()
    }

    /// A drop-in for a unit.
    pub fn drop_in(&self, unit: &str, content: &str) {
        let folder = self.root.join(format!("etc/systemd/system/{unit}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("test.conf"), content).unwrap();
        self.must("systemctl daemon-reload");
    }

    /// The output of `systemctl status` for a unit.
    pub fn status(&self, unit: &str) -> String {
        self.must("journalctl --sync");
        said(&self.run(&format!("systemctl status --no-pager --full --lines 30 {unit}")))
    }

    /// The lines that a unit has logged since its last start.
    pub fn log(&self, unit: &str) -> String {
        let run = self.must(&format!("systemctl show -P InvocationID {unit}"));
        self.must("journalctl --sync");
        self.must(&format!("journalctl --quiet --output cat _SYSTEMD_INVOCATION_ID={run}"))
    }

    /// Starts a unit with this command, and waits until the unit listens.
    pub fn start(&self, command: &str, unit: &str) {
        self.must(&format!("systemctl {command} {unit}"));
        wait_until("it listens", || self.log(unit).contains(" listening on "));
    }

    /// What redis-cli prints through port 8000, whether a reply or an error.
    pub fn redis(&self, line: &str) -> String {
        said(&self.run(&format!("redis-cli -p 8000 {line}")))
    }

    /// Debian's redis-server with its own configuration, enabled and running.
    pub fn has_redis(&self) {
        self.has_files_of_redis();
        self.must("systemctl enable --quiet --now redis-server");
    }

    /// Debian's redis-sentinel, likewise.
    pub fn has_sentinel(&self) {
        need("redis-sentinel", "redis-sentinel");
        self.has_files_of_redis();
        self.must("systemctl enable --quiet --now redis-sentinel");
    }

    fn has_files_of_redis(&self) {
        let etc = self.root.join("etc");
        if !etc.join("redis").exists() {
            must(Command::new("cp").args(["-a", "/etc/redis"]).arg(&etc));
            self.must("install -d -o redis -g redis /var/lib/redis /var/log/redis");
        }
    }
}

/// A command that runs on a host.
pub struct Spawned {
    child: Child,
    pub lines: Lines,
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // timeout passes the signal on; a command that has ended needs none.
        signal(&self.child, "TERM");
        let _status = self.child.wait();
    }
}

/// The commands in the blocks of a section of man/spiped.conf.5.
pub fn commands_of(section: &str) -> Vec<String> {
    let manual = fs::read_to_string(project("man/spiped.conf.5")).unwrap();
    let (_, section) = manual.split_once(&format!(" {section}\n")).unwrap();
    let section = section.split("\n.Sh ").next().unwrap().split("\n.Ss ").next().unwrap();
    let blocks = section.split(".Bd -literal -offset indent\n").skip(1);
    blocks.map(|block| block.split(".Ed").next().unwrap().replace("\\e", "\\")).collect()
}

/// Runs a command that must succeed; returns its output.
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    succeeded(&format!("{command:?}"), &output)
}

fn succeeded(what: &str, output: &Output) -> String {
    let said = said(output);
    assert!(output.status.success(), "{what}:\n{said}");
    said
}

/// Everything that a command printed.
pub fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}
