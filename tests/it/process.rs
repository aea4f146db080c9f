//! The program as a process: in the background, with its pid file, as another user, with
//! its logs, and configured by the environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::manual::options_of;
use crate::support::{
    Daemon, End, Folder, PATIENCE, Pipe, SPIPED, Server, connect, is_root, need, nobody,
    read_to_end, round_trip, wait_until, with_input,
};

/// A spiped in the background; ended by its process id when dropped.
struct Background {
    id: u32,
    address: SocketAddr,
}

impl Background {
    /// Starts a daemon, which must succeed and print nothing.
    fn start(folder: &Folder, role: &str, target: SocketAddr, more: &[&str]) -> Self {
        let address = source();
        let pid_file = match more.iter().position(|option| *option == "-p") {
            Some(at) => folder.path(more[at + 1]),
            None => folder.path(&format!("{}.pid", as_written(address))),
        };
        let output = background(folder, role, address, target, more);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        Self { id: id_in(&pid_file), address }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id.to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn is_running(&self) -> bool {
        is_running(self.id)
    }

    fn end(&self) {
        self.signal("TERM");
        wait_until("it ends", || !self.is_running());
    }

    /// The values of a line in `/proc/ID/status`.
    fn status(&self, name: &str) -> Vec<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("KILL");
        }
    }
}

/// Runs `spiped` without -F in the folder and reads its output to the end, which the
/// process in the background must not hold open.
fn background(
    folder: &Folder,
    role: &str,
    source: SocketAddr,
    target: SocketAddr,
    more: &[&str],
) -> Output {
    Command::new(SPIPED)
        .args([role, "-s", &source.to_string(), "-t", &target.to_string(), "-k", "redis.key"])
        .args(more)
        .current_dir(folder.path("."))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A free port on an address of this test's own: no other test takes the port between its
/// choice and its use.
fn source() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = [127, 64 + high % 64, middle, low];
    TcpListener::bind(SocketAddr::from((own, 0))).unwrap().local_addr().unwrap()
}

/// The address in the form that the program writes.
fn as_written(address: SocketAddr) -> String {
    format!("[{}]:{}", address.ip(), address.port())
}

fn id_in(pid_file: &Path) -> u32 {
    let text = fs::read_to_string(pid_file).unwrap();
    text.strip_suffix('\n').unwrap().parse().unwrap()
}

/// Whether the process exists and is no zombie, which nobody may reap in a container.
/// Files stay open, and locked, until the last thread has ended.
fn is_running(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
    let threads = fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    !is_zombie || threads > 1
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}

#[test]
fn the_command_returns_once_the_source_is_listened_on() {
    let folder = Folder::new();
    let target = Server::echo();
    for _ in 0..5 {
        let receiver = Background::start(&folder, "-d", target.address, &[]);
        let sender = Background::start(&folder, "-e", receiver.address, &[]);
        round_trip(&mut connect(sender.address), b"at once");
    }
}

#[test]
fn in_the_background_it_has_no_terminal_and_a_pid_file_while_it_runs() {
    let folder = Folder::new();
    let daemon = Background::start(&folder, "-d", nobody(), &[]);
    let proc = format!("/proc/{}", daemon.id);
    assert_eq!(fs::read_to_string(format!("{proc}/comm")).unwrap(), "spiped\n");
    for standard in 0..3 {
        let open = fs::read_link(format!("{proc}/fd/{standard}")).unwrap();
        assert_eq!(open, Path::new("/dev/null"));
    }
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, daemon.id.to_string());

    let pid_file = folder.path(&format!("{}.pid", as_written(daemon.address)));
    assert!(pid_file.exists());
    daemon.end();
    assert!(!pid_file.exists());
    assert!(TcpStream::connect(daemon.address).is_err());
}

/// Whoever starts the daemon learns why the start failed, and nothing is left behind.
#[test]
fn a_start_that_fails_is_passed_on() {
    let folder = Folder::new();
    fs::write(folder.path("short.key"), "short").unwrap();
    fs::set_permissions(folder.path("short.key"), PermissionsExt::from_mode(0o600)).unwrap();
    let taken = Server::echo().address;
    let free = source();
    let cases: [(SocketAddr, &[&str], i32, &str); 4] = [
        (taken, &["-p", "1.pid"], 69, "cannot listen on [127.0.0.1]:"),
        (free, &["-p", "none/1.pid"], 73, "cannot write the process id to none/1.pid"),
        (free, &["-u", "no-such-user"], 67, "there is no user 'no-such-user'"),
        (free, &["-u", "0:no-such-group"], 67, "there is no group 'no-such-group'"),
    ];
    for (source, more, code, reason) in cases {
        let output = background(&folder, "-d", source, nobody(), more);
        assert_failed(&output, code, reason);
    }
    let output = Command::new(SPIPED)
        .args(["-d", "-s", &free.to_string(), "-t", "127.0.0.1:1", "-k"])
        .arg(folder.path("short.key"))
        .current_dir(folder.path("."))
        .output();
    assert_failed(&output.unwrap(), 65, "the key has 5 bytes, fewer than 32");
    assert!(TcpStream::connect(free).is_err());
    assert!(!folder.path("1.pid").exists());
}

fn assert_failed(output: &Output, code: i32, reason: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("spiped: ") && said.contains(reason), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
}

#[test]
fn a_pid_file_belongs_to_one_process() {
    let folder = Folder::new();
    let first = Background::start(&folder, "-d", nobody(), &["-p", "one.pid"]);
    let second = background(&folder, "-d", source(), nobody(), &["-p", "one.pid"]);
    let held = format!("one.pid is locked by a running process ({})", first.id);
    assert_failed(&second, 69, &held);
    assert_eq!(id_in(&folder.path("one.pid")), first.id);
    assert!(first.is_running());

    // A killed daemon leaves its file, which the next one takes over.
    first.signal("KILL");
    wait_until("it is gone", || !first.is_running());
    fs::write(folder.path("one.pid"), "1234567890\nand more\n").unwrap();
    let third = Background::start(&folder, "-d", nobody(), &["-p", "one.pid"]);
    assert!(third.is_running());
    third.end();
    assert!(!folder.path("one.pid").exists());
}

/// A mistyped -p must not cost a key.
#[test]
fn a_file_that_is_no_pid_file_is_left_as_it_is() {
    let folder = Folder::new();
    fs::write(folder.path("notes"), "precious").unwrap();
    for name in ["redis.key", "notes"] {
        let before = fs::read(folder.path(name)).unwrap();
        let output = background(&folder, "-d", source(), nobody(), &["-p", name]);
        let reason = format!("{name} holds something other than a process id");
        assert_failed(&output, 73, &reason);
        assert_eq!(fs::read(folder.path(name)).unwrap(), before);
    }
}

/// A device belongs to no process: any number of processes may have it as their pid file.
#[test]
fn a_device_as_the_pid_file_is_no_pid_file() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let null = || fs::metadata("/dev/null").unwrap();
    let before = null();
    let start = || Daemon::receiver(&key, nobody(), &["-p", "/dev/null"]);
    let mut both = [start(), start()];
    for daemon in &mut both {
        daemon.signal("TERM");
        assert!(daemon.wait().success());
    }
    assert_eq!((null().ino(), null().mode()), (before.ino(), before.mode()));
    // This also works in the background, where no other file has the number of the
    // process.
    need("ss", "iproute2");
    let address = source();
    let output = background(&folder, "-d", address, nobody(), &["-p", "/dev/null"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut ss = Command::new("ss");
    let listeners = ss.args(["-Hlntp", &format!("sport = {}", address.port())]).output().unwrap();
    let listeners = text(&listeners.stdout);
    let id = listeners.split("pid=").nth(1).unwrap().split(',').next().unwrap();
    drop(Background { id: id.parse().unwrap(), address });

    let fifo = folder.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = background(&folder, "-d", source(), nobody(), &["-p", "fifo"]);
    assert_failed(&output, 73, "cannot write the process id to fifo: it is not a regular file");
}

/// Runs `spiped -F` with the given signals blocked or ignored (`--block-signal`,
/// `--ignore-signal`).
fn with_signals(how: &str, key: &Path) -> Daemon {
    need("env", "coreutils");
    let mut command = Command::new("env");
    command.args([how, SPIPED, "-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]);
    Daemon::spawn({
        command.arg(key);
        command
    })
}

/// Otherwise only KILL would end the process.
#[test]
fn signals_that_were_blocked_at_the_start_are_handled() {
    let folder = Folder::new();
    for end in ["TERM", "INT"] {
        let key = folder.shared_key();
        let mut daemon = with_signals("--block-signal=TERM,INT,HUP", &key);
        daemon.signal("HUP");
        daemon.log.wait_for("keys reloaded");
        daemon.signal(end);
        assert!(daemon.wait().success());
    }
}

/// A start script ignores a signal on purpose: `trap '' TERM`, or INT in its background
/// jobs.
#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let folder = Folder::new();
    for (ignored, end) in [("TERM", "INT"), ("INT", "TERM")] {
        let key = folder.shared_key();
        let mut daemon = with_signals(&format!("--ignore-signal={ignored}"), &key);
        daemon.log.wait_for(&format!("{ignored} was ignored when this process was started"));
        daemon.signal(ignored);
        // HUP comes after the ignored signal in the queue, and is handled.
        daemon.signal("HUP");
        daemon.log.wait_for("keys reloaded");
        assert!(daemon.is_running());
        daemon.signal(end);
        assert!(daemon.wait().success());
        assert_eq!(daemon.log.count(&format!("{ignored} received")), 0);
    }
    let mut nohup = with_signals("--ignore-signal=HUP", &folder.shared_key());
    nohup.signal("HUP");
    nohup.log.wait_for("keys reloaded");
    assert!(nohup.is_running());
}

#[test]
fn in_the_foreground_there_is_a_pid_file_only_if_it_is_named() {
    let folder = Folder::new();
    let start = |more: &[&str]| {
        let mut command = Command::new(SPIPED);
        command.current_dir(folder.path("."));
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k", "redis.key"]);
        command.args(more);
        Daemon::spawn(command)
    };
    let files = || fs::read_dir(folder.path(".")).unwrap().count();
    let before = files();
    let unnamed = start(&[]);
    assert_eq!(files(), before);
    drop(unnamed);
    let mut named = start(&["-p", "one.pid"]);
    assert_eq!(id_in(&folder.path("one.pid")), named.child.id());
    named.signal("TERM");
    assert!(named.wait().success());
    assert_eq!(files(), before);
}

/// All ids of the process are changed, the process can no longer read the key, and it
/// serves.
#[test]
fn it_becomes_another_user_for_good() {
    if !is_root("becoming another user") {
        return;
    }
    let ids = |name: &str| {
        let user = nix::unistd::User::from_name(name).unwrap().unwrap();
        (user.uid.as_raw(), user.gid.as_raw())
    };
    let (nobody_uid, its_group) = ids("nobody");
    let (_, daemon_group) = ids("daemon");
    let group = nix::unistd::Group::from_gid(its_group.into()).unwrap().unwrap().name;
    let cases = [
        ("nobody".to_owned(), nobody_uid, its_group),
        (format!(":{group}"), 0, its_group),
        ("nobody:daemon".to_owned(), nobody_uid, daemon_group),
        (format!("{nobody_uid}"), nobody_uid, its_group),
        (format!("{nobody_uid}:{daemon_group}"), nobody_uid, daemon_group),
        (":12345".to_owned(), 0, 12345),
        // As in a container, no account has these numbers.
        ("4242424:4242425".to_owned(), 4_242_424, 4_242_425),
    ];
    let target = Server::echo();
    for (user, uid, gid) in cases {
        let folder = Folder::new();
        let receiver = Background::start(&folder, "-d", target.address, &["-u", &user]);
        let sender = Background::start(&folder, "-e", receiver.address, &["-u", &user]);
        for end in [&receiver, &sender] {
            assert_eq!(end.status("Uid"), [uid; 4], "{user}");
            assert_eq!(end.status("Gid"), [gid; 4], "{user}");
            assert_eq!(end.status("Groups"), [gid], "{user}");
        }
        round_trip(&mut connect(sender.address), b"as another user");
        if uid != 0 {
            receiver.signal("HUP");
            round_trip(&mut connect(sender.address), b"with the key it has");
        }
    }
    let folder = Folder::new();
    let output = background(&folder, "-d", source(), nobody(), &["-u", "4242424"]);
    assert_failed(&output, 67, "no user of this system has the number 4242424");
}

/// A script's lock must not last as long as the daemon that it starts; a key may come by a
/// descriptor of its own.
#[test]
fn in_the_background_no_inherited_descriptor_stays_open() {
    let folder = Folder::new();
    let (source, pid_file) = (source(), folder.path("pid"));
    let started = Command::new("sh")
        .args(["-c", "exec 3< redis.key 9> lock; exec \"$@\"", "sh", SPIPED, "-e", "-p", "pid"])
        .args(["-s", &source.to_string(), "-t", "127.0.0.1:1", "-k", "/dev/fd/3"])
        .current_dir(folder.path("."))
        .status();
    assert!(started.unwrap().success());
    let daemon = Background { id: id_in(&pid_file), address: source };
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.id)).unwrap();
    let open = open.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let in_folder: Vec<_> = open.filter(|file| file.starts_with(folder.path(""))).collect();
    assert_eq!(in_folder, [pid_file]);
}

/// The number would belong to some other process sooner or later.
#[test]
fn a_pid_file_that_may_not_be_removed_is_emptied() {
    if !is_root("a folder that another user may not write to") {
        return;
    }
    let folder = Folder::new();
    let daemon = Background::start(&folder, "-d", nobody(), &["-u", "nobody", "-p", "pid"]);
    daemon.end();
    assert_eq!(fs::read(folder.path("pid")).unwrap(), b"");
    let daemon = Background::start(&folder, "-d", nobody(), &["-u", "nobody", "-p", "pid"]);
    daemon.end();
}

/// HUP can then read the file again.
#[test]
fn the_key_may_belong_to_the_user_it_becomes() {
    let folder = Folder::new();
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let key = folder.shared_key();
    if !is_root("the key of another user") {
        return;
    }
    let uid = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    chown(&key, Some(uid), None).unwrap();
    let receiver = Daemon::receiver(&key, Server::echo().address, &["-u", "nobody"]);
    receiver.signal("HUP");
    receiver.log.wait_for("keys reloaded");
    // A key of any other user is refused.
    let arguments = ["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-u", "daemon", "-k"];
    let refused = Command::new(SPIPED).args(arguments).arg(&key).output().unwrap();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
}

#[test]
fn only_root_may_become_another_user() {
    need("setpriv", "util-linux");
    if !is_root("who may become another user") {
        return;
    }
    let folder = Folder::new();
    // A folder and a program that the other user can reach.
    fs::set_permissions(folder.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path("spiped");
    fs::copy(SPIPED, &program).unwrap();
    chown(folder.shared_key(), Some(65534), Some(65534)).unwrap();
    for user in ["root", "daemon", ":daemon"] {
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-u", user, "-k"])
            .arg(folder.shared_key())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("cannot become another user: set"), "{said}");
        assert!(said.contains("hint: only root can become another user"), "{said}");
    }
}

/// Runs the rest of its arguments with a `/dev` of their own, in which the socket at the
/// first argument is the log.
const WITH_OWN_LOG: &str = r#"set -e
touch "$1/null"; mount --bind /dev/null "$1/null"
mount -t tmpfs tmpfs /dev
touch /dev/null; mount --bind "$1/null" /dev/null
ln -s "$1/log" /dev/log
shift; exec "$@""#;

#[test]
fn syslog_gets_the_log_of_the_background_and_where_it_is_asked_for() {
    need("unshare", "util-linux");
    if !is_root("syslog") {
        return;
    }
    let folder = Folder::new();
    let syslog = UnixDatagram::bind(folder.path("log")).unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut line = [0; 2048];
        let count = syslog.recv(&mut line).expect("no line comes to syslog");
        text(&line[..count])
    };
    let command = |more: &[&str]| {
        let address = source();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_OWN_LOG, "sh"]);
        command.arg(folder.path(".")).arg(SPIPED).args(more);
        command.args(["-d", "-s", &address.to_string(), "-t", &nobody().to_string()]);
        command.arg("-k").arg(folder.shared_key()).arg("-p").arg(folder.path("pid"));
        (command, address)
    };
    let check = |id: u32, address: SocketAddr| {
        let line = next();
        assert!(line.starts_with("<30>"), "{line}");
        let said = format!("spiped[{id}]: receiver listening on {}", as_written(address));
        assert!(line.contains(&said) && !line.contains("info"), "{line}");
        assert!(line.contains("key_id=") && !line.contains('\n'), "{line}");
        connect(address).write_all(b"PING\r\n").unwrap();
        let line = next();
        assert!(line.starts_with("<28>") && line.contains("plaintext redis"), "{line}");
    };

    let (mut background, address) = command(&[]);
    let output = background.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let daemon = Background { id: id_in(&folder.path("pid")), address };
    check(daemon.id, address);
    daemon.end();
    assert!(next().contains("TERM received"));
    assert!(next().contains("ended handshakes="));

    let (mut foreground, address) = command(&["-F", "--syslog"]);
    let foreground = Foreground(foreground.stderr(Stdio::piped()).spawn().unwrap());
    check(foreground.0.id(), address);
    assert_eq!(foreground.end_and_stderr(), "");
}

/// A child that is ended by its id.
struct Foreground(Child);

impl Foreground {
    /// Starts `spiped -F` with `stderr` as its log, at the default level, and waits until
    /// it listens.
    fn start(arguments: &[&str], address: SocketAddr, stderr: Stdio) -> Self {
        let child = Command::new(SPIPED)
            .arg("-F")
            .args(arguments)
            .args(["-s", &address.to_string()])
            .env_remove("SPIPED_LOG")
            .stderr(stderr)
            .spawn();
        let daemon = Self(child.unwrap());
        wait_until("it listens", || TcpStream::connect(address).is_ok());
        daemon
    }

    /// Ends the process by TERM; returns its output.
    fn end_and_stderr(mut self) -> String {
        crate::support::signal(&self.0, "TERM");
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        }
        assert!(self.0.wait().unwrap().success());
        said
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Only the journal gets the level of each line. Its socket for entries with fields is
/// hidden.
#[test]
fn the_journal_gets_levels_instead_of_times() {
    if !is_root("the journal's standard error") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (is_journal, info, warn) in
        [(true, "<6>receiver listening", "<4>not our"), (false, "20", "20")]
    {
        let path = folder.path("stderr");
        let stderr = File::create(&path).unwrap();
        let metadata = stderr.metadata().unwrap();
        let inode = if is_journal { metadata.ino() } else { metadata.ino() + 1 };
        let mut command = Command::new("unshare");
        let hide = "mount -t tmpfs tmpfs /run; exec \"$@\"";
        command
            .args(["--mount", "sh", "-c", hide, "sh", SPIPED])
            .args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"])
            .arg(&key)
            .env_remove("SPIPED_LOG")
            .env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()))
            .stderr(stderr);
        let _daemon = Foreground(command.spawn().unwrap());
        let line = |text: &str| {
            let find = || {
                let log = fs::read_to_string(&path).unwrap();
                log.lines().find(|line| line.contains(text)).map(str::to_owned)
            };
            wait_until(text, || find().is_some());
            find().unwrap()
        };
        let listening = line(" listening on ");
        assert!(listening.starts_with(info), "{listening}");
        assert_eq!(listening.contains(" info "), !is_journal, "{listening}");
        let port = listening.split("[127.0.0.1]:").nth(1).unwrap().split(' ').next().unwrap();
        connect(format!("127.0.0.1:{port}").parse().unwrap()).write_all(b"PING\r\n").unwrap();
        let stranger = line("not our protocol");
        assert!(stranger.starts_with(warn), "{stranger}");
        assert_eq!(stranger.contains(" warn "), !is_journal, "{stranger}");
    }
}

#[test]
fn each_line_of_the_json_log_is_an_object() {
    let folder = Folder::new();
    let target = Server::echo();
    let pipe = Pipe::with(&folder, target.address, &["--log-format", "json"]);
    let mut client = pipe.connect();
    round_trip(&mut client, b"12345");
    drop(client);
    let keyid = Command::new(SPIPED).arg("keyid").arg(folder.shared_key()).output().unwrap();
    let keyid = text(&keyid.stdout);
    for (end, to) in [(&pipe.receiver, target.address), (&pipe.sender, pipe.receiver.address)] {
        end.log.wait_for("\"closed\"");
        let lines = end.log.all();
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<_> = lines.collect();
        assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{lines:?}");
        let closed = lines.iter().find(|line| line["message"] == "closed").unwrap();
        assert_eq!(closed["level"], "info");
        assert_eq!((&closed["id"], &closed["key_id"]), (&1.into(), &keyid.trim().into()));
        assert_eq!((&closed["sent"], &closed["received"]), (&5.into(), &5.into()));
        assert_eq!(closed["target"], format!("[127.0.0.1]:{}", to.port()));
        assert!(closed["took"].as_f64().is_some_and(|took| took < 60.0), "{closed}");
        for (field, part) in
            [("peer", "127.0.0.1:"), ("cipher", "-"), ("kex", "x25519mlkem768"), ("conn", "-")]
        {
            assert!(closed[field].as_str().is_some_and(|value| value.contains(part)), "{closed}");
        }
    }
}

#[test]
fn quiet_leaves_out_successes_and_verbose_adds_probes() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let cases: [(&[&str], [bool; 3]); 3] = [
        (&["-q"], [false, false, true]),
        (&[], [false, true, true]),
        (&["--verbose"], [true, true, true]),
    ];
    for (more, expected) in cases {
        let address = source();
        let fixed = ["-d", "-t", "127.0.0.1:1", "-k", key.to_str().unwrap()];
        // The wait for the port is already a probe.
        let daemon = Foreground::start(&[&fixed, more].concat(), address, Stdio::piped());
        let mut stranger = connect(address);
        stranger.write_all(b"PING\r\n").unwrap();
        assert_eq!(read_to_end(&mut stranger).1, End::Reset);
        let log = daemon.end_and_stderr();
        let levels = ["debug", "info", "warn"];
        assert_eq!(levels.map(|level| log.contains(level)), expected, "{more:?}:\n{log}");
        assert_eq!(log.contains("reason=probe"), expected[0], "{log}");
    }
}

/// A whole pipe that takes its configuration from the environment only.
#[test]
fn every_option_can_be_given_in_the_environment() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let start = |role: &str, target: SocketAddr, cipher: &str, kex: &str, pid_file: &str| {
        let mut command = Command::new(SPIPED);
        let pid_file = folder.path(pid_file);
        let control = folder.path(&format!("{role}.control"));
        let variables: [(&str, &str); 19] = [
            (role, "1"),
            ("SPIPED_SOURCE", "127.0.0.1:0"),
            ("SPIPED_TARGET", &target.to_string()),
            ("SPIPED_KEY", key.to_str().unwrap()),
            ("SPIPED_BIND", "127.0.0.9"),
            ("SPIPED_TIMEOUT", "2.5"),
            ("SPIPED_NO_KEEPALIVE", "yes"),
            ("SPIPED_CIPHER", cipher),
            ("SPIPED_KEX", kex),
            ("SPIPED_PAD", "512"),
            ("SPIPED_WAIT_FOR_DNS", "true"),
            ("SPIPED_FOREGROUND", "1"),
            ("SPIPED_CONNECTIONS", "7"),
            ("SPIPED_PIDFILE", pid_file.to_str().unwrap()),
            ("SPIPED_RESOLVE", "30"),
            ("SPIPED_DRAIN_TIMEOUT", "0.5"),
            ("SPIPED_THREADS", "1"),
            ("SPIPED_CONTROL", control.to_str().unwrap()),
            ("SPIPED_LOG_FORMAT", "text"),
        ];
        let is_sender = if role == "SPIPED_ENCRYPT" { "1" } else { "0" };
        command.env("SPIPED_TELL_CLIENT", is_sender);
        // A false value counts as unset.
        let none = ["NO_RESOLVE", "QUIET", "VERBOSE", "SYSLOG"];
        command.envs(variables).envs(none.map(|name| (format!("SPIPED_{name}"), "0")));
        Daemon::spawn(command)
    };
    let receiver = start("SPIPED_DECRYPT", target.address, "auto", "auto", "1.pid");
    let sender = start("SPIPED_ENCRYPT", receiver.address, "chacha20-poly1305", "x25519", "2.pid");
    let mut client = sender.connect();
    round_trip(&mut client, b"from the environment");
    let client_address = client.local_addr().unwrap();
    drop(client);
    let line = receiver.log.wait_for("closed");
    assert!(line.contains("peer=127.0.0.9:") && line.contains("chacha20"), "{line}");
    assert!(line.contains(" kex=x25519 "), "{line}");
    assert!(line.contains(&format!(" client={client_address} ")), "{line}");
    assert!(receiver.log.wait_for("listening").contains("connections=7"));
    for (end, file) in [(&receiver, "1.pid"), (&sender, "2.pid")] {
        assert_eq!(id_in(&folder.path(file)), end.child.id());
    }
    for role in ["SPIPED_ENCRYPT", "SPIPED_DECRYPT"] {
        let control = folder.path(&format!("{role}.control"));
        let rekeyed = Command::new(SPIPED).arg("rekey").args([&control, &key]).output().unwrap();
        assert!(rekeyed.status.success(), "{rekeyed:?}");
    }
}

/// A mistyped variable is named where its option is missing, and no other one.
#[test]
fn a_mistyped_variable_of_a_missing_option_is_named() {
    for (name, reason) in [
        ("SPIPED_KEYS", "SPIPED_KEYS is no variable of spiped\nhint: did you mean SPIPED_KEY? "),
        ("SPIPED_SOMETHING", "-k is not given\n"),
    ] {
        let mut command = Command::new("timeout");
        command.args(["10", SPIPED, "-d", "-F", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1"]);
        let output = command.env(name, "/etc/spiped/redis.key").output().unwrap();
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("spiped: {reason}")), "{said}");
        assert_eq!(output.status.code(), Some(64), "{said}");
    }
}

/// Each variable is read, and a wrong value is refused with the name of the variable,
/// because nobody has typed the option.
#[test]
fn variables_are_checked_as_options_are() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let refused = [
        ("SOURCE", "x", "SPIPED_SOURCE: 'x' has no port"),
        ("TARGET", "x:0", "SPIPED_TARGET: port 0"),
        (
            "TARGET",
            "",
            "-t is not given\nhint: -t ADDRESS says where to connect to, or SPIPED_TARGET",
        ),
        ("KEY", "/none", "cannot read the key file /none"),
        ("KEY", "", "-k is not given"),
        ("BIND", "x", "SPIPED_BIND: 'x' is no IP address"),
        ("TIMEOUT", "0", "SPIPED_TIMEOUT: '0' is not"),
        ("CIPHER", "rot13", "SPIPED_CIPHER: 'rot13' is not"),
        ("KEX", "kyber", "SPIPED_KEX: 'kyber' is not a key exchange (auto, x25519mlkem768 or"),
        ("TELL_CLIENT", "1", "SPIPED_DECRYPT and SPIPED_TELL_CLIENT exclude each other"),
        ("PROXY_PROTOCOL", "2", "SPIPED_PROXY_PROTOCOL: '2' is neither yes nor no"),
        ("PAD", "1", "SPIPED_PAD: '1' is not"),
        ("CONNECTIONS", "x", "SPIPED_CONNECTIONS: 'x' is not"),
        ("PIDFILE", "/none/pid", "cannot write the process id to /none/pid"),
        ("RESOLVE", "x", "SPIPED_RESOLVE: 'x' is not"),
        ("USER", "a:b:c", "SPIPED_USER: 'a:b:c' is none of"),
        ("CONTROL", "host:1", "SPIPED_CONTROL: 'host:1' is not the path of a unix socket"),
        ("CONTROL", "/none/control", "cannot listen on /none/control"),
        ("DRAIN_TIMEOUT", "-1", "SPIPED_DRAIN_TIMEOUT: '-1' is not"),
        ("THREADS", "0", "SPIPED_THREADS: '0' is not"),
        ("LOG_FORMAT", "xml", "SPIPED_LOG_FORMAT: 'xml' is not"),
        ("LOG", "err", "SPIPED_LOG: 'err' is not a level of the log (off, error, warn, info or"),
        ("ENCRYPT", "1", "SPIPED_ENCRYPT and SPIPED_DECRYPT exclude each other"),
        ("QUIET", "0\r", "SPIPED_QUIET: '0\\r' is neither yes nor no"),
        ("WAIT_FOR_DNS", "maybe", "SPIPED_WAIT_FOR_DNS: 'maybe' is neither yes nor no"),
    ];
    let good = [
        ("DECRYPT", "1"),
        ("FOREGROUND", "1"),
        ("SOURCE", "127.0.0.1:0"),
        ("TARGET", "127.0.0.1:1"),
        ("KEY", key.to_str().unwrap()),
    ];
    let named = |(name, value)| (format!("SPIPED_{name}"), value);
    for (name, value, reason) in refused {
        let mut command = Command::new("timeout");
        command.args(["10", SPIPED]).envs(good.map(named)).envs([named((name, value))]);
        let said = text(&command.output().unwrap().stderr);
        assert!(said.starts_with("spiped: ") && said.contains(reason), "{name}: {said}");
    }
    // The command line takes precedence over a variable, even over a wrong one.
    let mut typed = Command::new("timeout");
    typed.args(["10", SPIPED, "-s", "x"]).envs(good.map(named)).env("SPIPED_SOURCE", "y");
    let said = text(&typed.output().unwrap().stderr);
    assert!(said.contains("spiped: -s: 'x' has no port"), "{said}");
    // The variables do not disturb other commands.
    let made = folder.path("made.key");
    for command in ["keygen", "keyid"] {
        let wrong = [("KEY", ""), ("QUIET", "maybe"), ("LOG", "?"), ("SOURCE", "x")].map(named);
        let mut command =
            Command::new(SPIPED).arg(command).arg(&made).envs(good.map(named)).envs(wrong).output();
        let output = command.as_mut().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout.len(), 20, "{output:?}");
    }
}

#[test]
fn what_is_typed_goes_before_a_wrong_variable() {
    let mut command = Command::new("timeout");
    command.args(["10", SPIPED, "-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1"]);
    command.args(["-o", "1", "-k", "/none"]).env("SPIPED_TIMEOUT", "y").env("SPIPED_SOURCE", "x");
    let said = text(&command.output().unwrap().stderr);
    assert!(said.starts_with("spiped: cannot read the key file /none"), "{said}");
}

/// An empty variable counts as unset: `NAME=${UNSET}` in a file for systemd or a
/// container gives one.
#[test]
fn an_empty_variable_counts_as_unset() {
    let variables: Vec<_> = options_of(Path::new(SPIPED), "")
        .iter()
        .filter_map(|option| option.strip_prefix("--"))
        .map(|name| format!("SPIPED_{}", name.to_uppercase().replace('-', "_")))
        .filter(|name| name != "SPIPED_FOREGROUND")
        .collect();
    assert!(
        variables.len() > 20 && variables.iter().any(|name| name == "SPIPED_KEY"),
        "{variables:?}"
    );
    let folder = Folder::new();
    let target = Server::echo().address.to_string();
    let mut command = Command::new(SPIPED);
    command.env("SPIPED_FOREGROUND", "1").envs(variables.iter().map(|name| (name, "")));
    command.args(["-d", "-s", "127.0.0.1:0", "-t", &target, "-k"]).arg(folder.shared_key());
    let receiver = Daemon::spawn(command);
    let mut command = Command::new(folder.spipe());
    command.envs(variables.iter().map(|name| (name, ""))).arg("-k").arg(folder.shared_key());
    command.args(["-t", &receiver.address.to_string()]);
    let output = with_input(&mut command, b"through a pipe of defaults");
    assert!(
        output.status.success() && output.stdout == b"through a pipe of defaults",
        "{output:?}"
    );
}

/// Text that an error quotes must neither control the terminal nor begin a line.
#[test]
fn what_cannot_be_printed_is_escaped() {
    let folder = Folder::new();
    let start = |source: &OsStr, by: &str| {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d", "-t", "127.0.0.1:1", "-k"]).arg(folder.shared_key());
        match by {
            "-s" => command.arg("-s").arg(source),
            variable => command.env(variable, source),
        };
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        text(&output.stderr)
    };
    for by in ["-s", "SPIPED_SOURCE"] {
        let said = start(OsStr::new("a\nb\u{1b}[31m\u{202e}:1"), by);
        let escaped = r"'a\nb\u{1b}[31m\u{202e}' is neither an address nor a host name";
        assert!(said.starts_with(&format!("spiped: {by}: {escaped}\nhint: ")), "{said:?}");
        let said = start(OsStr::from_bytes(b"\xff:1"), by);
        assert!(said.contains("is not valid UTF-8\nhint: "), "{said:?}");
        assert!(by == "-s" || said.contains("SPIPED_SOURCE: "), "{said:?}");
    }
}

/// The words of other programs are understood. Any other word stops the start, because a
/// log that says nothing looks like a pipe that works.
#[test]
fn the_level_of_the_log_is_understood_or_refused() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let cases = [
        (["off", "None"], [false, false, false]),
        (["error", " error"], [false, false, false]),
        (["warn\r", "warning"], [false, false, true]),
        (["info", "notice"], [false, true, true]),
        (["all", "verbose"], [true, true, true]),
    ];
    for (level, expected) in cases.iter().flat_map(|(both, lines)| both.map(|one| (one, lines))) {
        let address = source();
        let arguments = ["-d", "-t", "127.0.0.1:1", "-k", key.to_str().unwrap(), "--log", level];
        let daemon = Foreground::start(&arguments, address, Stdio::piped());
        let mut stranger = connect(address);
        stranger.write_all(b"PING\r\n").unwrap();
        assert_eq!(read_to_end(&mut stranger).1, End::Reset);
        let log = daemon.end_and_stderr();
        let levels = ["debug", "info", "warn"];
        assert_eq!(levels.map(|level| log.contains(level)), *expected, "{level:?}:\n{log}");
    }
    for level in ["warn,spiped=off", "4", "nothing"] {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]).arg(&key);
        let output = command.env("SPIPED_LOG", level).output().unwrap();
        assert_failed(&output, 64, "is not a level of the log (off, error, warn, info or debug)");
    }
}

#[test]
fn forward_secrecy_may_be_required_and_always_is() {
    let folder = Folder::new();
    let pipe = Pipe::with(&folder, Server::echo().address, &["-g"]);
    round_trip(&mut pipe.connect(), b"secret");
}
