//! `spiped setup` where it changes nothing: what it refuses, and `--dry-run`. Hosts of
//! their own test what it does.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::support::net::namespaces_can_be;
use crate::support::{Folder, SPIPED, noise, wait_until, with_input};

/// A name that no pipe of this machine has.
const NAME: &str = "spiped-test";
const HERE: &str = "127.0.0.1:6379";
const THERE: &str = "192.0.2.1:6379";

fn setup(line: &str) -> Command {
    setup_by(Path::new(SPIPED), line)
}

fn setup_by(program: &Path, line: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("setup").args(line.split(' ')).stdin(Stdio::null());
    command
}

#[track_caller]
fn refused(output: &Output, code: i32, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(lines.len() == 2 && lines[0].starts_with("spiped: "), "{said}");
    assert!(lines[0].contains(reason), "{reason:?} is not in {said}");
    assert!(lines[1].starts_with("hint: "), "{said}");
}

#[test]
fn what_cannot_be_set_up_is_named() {
    let long = "x".repeat(65);
    let name = |name: &str| format!("receive {name} -s {THERE} -t {HERE}");
    let cases = [
        (name("-x"), "unexpected argument '-x'"),
        (name(".x"), "'.x' is no name for a pipe"),
        (name("a/b"), "'a/b' is no name for a pipe"),
        (name("../x"), "'../x' is no name for a pipe"),
        (name("a@b"), "'a@b' is no name for a pipe"),
        (name("a%i"), "'a%i' is no name for a pipe"),
        (name("a\tb"), "is no name for a pipe"),
        (name(""), "'' is no name for a pipe"),
        (name(r"a\x2db"), r"'a\x2db' is no name for a pipe"),
        (name(&long), "is no name for a pipe"),
        (
            format!("pair {} -s {THERE} -t {HERE} --local {HERE} --peer {THERE}", "x".repeat(61)),
            "is too long for a pair",
        ),
        ("receive x".into(), "required arguments were not provided: --source <ADDRESS> --target"),
        (format!("receive x -s x -t {HERE}"), "-s: 'x' has no port"),
        (format!("receive x -s x:0 -t {HERE}"), "-s: port 0 is no port"),
        (format!("receive x -s {THERE} -t ::1"), "-t: '::1' is an IPv6 address without"),
        (format!("receive x -s {THERE} -t /a$b"), "-t: the path '/a$b' has other characters"),
        (format!("receive x -s {THERE} -t {HERE} -k -"), "unexpected argument '-k'"),
        (
            format!("receive x -s {HERE} -t {HERE}"),
            "--target: [127.0.0.1]:6379 leads back to --source, which this end listens on",
        ),
        (format!("receive x -s [::]:6379 -t {HERE}"), "--target: [127.0.0.1]:6379 leads back to"),
        (
            format!("pair x -s {THERE} -t {HERE} --local localhost:1 --peer localhost:1"),
            "--peer: localhost:1 leads back to --local",
        ),
        (
            format!("pair x -s {THERE} -t {HERE} --local LOCAL --peer b:1"),
            "--local: LOCAL stands for an address that has to be put in its place",
        ),
        ("remove a/b".into(), "'a/b' is no name for a pipe"),
        (
            format!("receive x -s a:1 -t {HERE} --socket"),
            "--source: with --socket 'a:1' must be an",
        ),
        (format!("send x -s /run/x -t {THERE} -k -"), "--source: the service cannot make a unix"),
        (format!("send x -s {HERE} -t {THERE}"), "required arguments were not provided: --key"),
        (format!("pair x -s {THERE} -t {HERE} --peer b:1 --local x"), "--local: 'x' has no port"),
        (format!("pair x -s {THERE} -t {HERE} --local {HERE} --peer x"), "--peer: 'x' has no port"),
        (
            format!("pair x -s {THERE} -t {HERE} --local localhost:1 --peer b:1 --socket"),
            "--local: with --socket 'localhost:1' must be an IP address",
        ),
    ];
    for (line, reason) in cases {
        refused(&setup(&line).output().unwrap(), 64, reason);
    }
}

#[test]
fn what_cannot_be_done_with_a_key_is_named() {
    let long = format!("client {} --pipe x", "x".repeat(61));
    let cases = [
        (long.as_str(), "is no name for a key that is to be rotated"),
        ("client a/b --pipe x", "'a/b' is no name for a key"),
        ("client a --pipe a/b", "'a/b' is no name for a pipe"),
        ("client a", "required arguments were not provided: --pipe"),
        ("revoke a", "required arguments were not provided: --pipe"),
        ("client a.new --pipe x", "'a.new' is no name for a key that is to be rotated"),
        ("rotate a", "--pipe or --key is missing"),
        ("rotate a --pipe x --key y", "'--pipe <PIPE>' cannot be used with '--key <FILE>'"),
        ("client a.key --pipe x", "'a.key' is the name of a file, and no name for a key"),
        ("rotate a --pipe x --revoke", "required arguments were not provided: --finish"),
        ("rotate a --key y --finish", "cannot be used with"),
    ];
    for (line, reason) in cases {
        refused(&setup(line).output().unwrap(), 64, reason);
    }
}

#[test]
fn plaintext_stays_on_its_host_unless_that_is_asked_for() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.display();
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.5:1", "[2001:db8::1]:1", "a.example:1"] {
        let cases = [
            (format!("send {NAME} -s {address} -t {THERE} -k {key}"), "--source"),
            (format!("receive {NAME} -s {THERE} -t {address}"), "--target"),
            (format!("pair {NAME} -s {THERE} -t {HERE} --local {address} --peer b:1"), "--local"),
            (format!("pair {NAME} -s {THERE} -t {address} --local {HERE} --peer b:1"), "--target"),
        ];
        for (line, option) in cases {
            let output = setup(&format!("{line} --dry-run")).output().unwrap();
            refused(&output, 64, &format!("{option}: plaintext at "));
            let line = format!("{line} --dry-run --expose-plaintext");
            // The pair's --local has no unit before the key is here.
            succeeds(setup(&line));
        }
    }
    for address in ["127.0.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
        succeeds(setup(&format!("send {NAME} -s {address} -t {THERE} -k {key} --dry-run")));
    }
    succeeds(setup(&format!("send {NAME} -s /run/x -t {THERE} -k {key} --dry-run --socket")));
}

#[test]
fn a_key_that_does_not_come_is_named() {
    let line = format!("send {NAME} -s {HERE} -t {THERE} --dry-run -k");
    refused(&setup(&format!("{line} -")).output().unwrap(), 66, "no key on standard input");
    let given = |input: &[u8]| with_input(&mut setup(&format!("{line} -")), input);
    refused(&given(&[7; 31]), 65, "the key has 31 bytes, fewer than 32");
    assert!(given(&[7; 32]).status.success());
    refused(&setup(&format!("{line} /none")).output().unwrap(), 66, "cannot read the key file");
}

/// A command whose standard input is a terminal, and that terminal.
fn at_a_terminal(line: &str) -> (Child, Terminal) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let child = setup(line)
        .stdin(slave.try_clone().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, Terminal { keyboard: File::from(master), slave })
}

struct Terminal {
    keyboard: File,
    slave: OwnedFd,
}

impl Terminal {
    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ECHO)
    }
}

#[test]
fn at_a_terminal_the_key_is_pasted_as_base64_and_not_shown() {
    let folder = Folder::new();
    let line = format!("send {NAME} -s {HERE} -t {THERE} --dry-run -k -");
    // In one line, in several, and in one that is full; also in shorter lines. Where the last
    // line has no padding, an empty one or control-D ends it.
    for (length, width, end) in
        [(32, 76, ""), (100, 76, ""), (57, 76, "\n"), (96, 64, "\x04"), (32, 0, "")]
    {
        let key = folder.path(&format!("{length}-{width}"));
        fs::write(&key, vec![7; length]).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let id = Command::new(SPIPED).arg("keyid").arg(&key).output().unwrap().stdout;
        let wrap = format!("--wrap={width}");
        let mut text = Command::new("base64").arg(wrap).arg(&key).output().unwrap().stdout;
        if width == 0 {
            text.push(b'\n');
        }

        let (child, mut terminal) = at_a_terminal(&line);
        wait_until("it asks", || !terminal.shows_what_is_typed());
        // Slowly: a part of it is a key by itself.
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            terminal.keyboard.write_all(line).unwrap();
            if text.len() > 80 {
                thread::sleep(Duration::from_millis(700));
            }
        }
        terminal.keyboard.write_all(end.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let id = String::from_utf8(id).unwrap();
        assert!(said.contains(&format!("the given key {id}")), "{said}");
        assert!(said.contains("Paste the key") && !said.contains("BwcH"), "{said}");
        assert!(terminal.shows_what_is_typed());
    }
    for (typed, code, reason) in [
        (b"no base64!\n\n".as_slice(), 65, "what was pasted is not the base64 of a key"),
        (b"BwcHBwc=\n", 65, "the key has 5 bytes, fewer than 32"),
        (b"\n", 66, "no key on standard input"),
        // Ctrl-D.
        (b"\x04", 66, "no key on standard input"),
    ] {
        let (child, mut terminal) = at_a_terminal(&line);
        wait_until("it asks", || !terminal.shows_what_is_typed());
        terminal.keyboard.write_all(typed).unwrap();
        let mut output = child.wait_with_output().unwrap();
        let asked = output.stderr.iter().position(|byte| *byte == b'\n').unwrap();
        output.stderr.drain(..=asked);
        refused(&output, code, reason);
    }
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    for (signal, number) in [(Signal::SIGINT, 2), (Signal::SIGTERM, 15)] {
        let (mut child, terminal) =
            at_a_terminal(&format!("send {NAME} -s {HERE} -t {THERE} --dry-run -k -"));
        wait_until("it asks", || !terminal.shows_what_is_typed());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        assert!(terminal.shows_what_is_typed());
    }
}

#[test]
fn a_dry_run_names_each_step_and_no_key() {
    let folder = Folder::new();
    let key = folder.path("text.key");
    // Text, which would be seen in the output.
    let digit = |byte: u8| char::from_digit((byte % 16).into(), 16).unwrap();
    fs::write(&key, noise(1, 64).into_iter().map(digit).collect::<String>()).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let id = Command::new(SPIPED).arg("keyid").arg(&key).output().unwrap().stdout;
    let id = String::from_utf8(id).unwrap();
    let addresses = format!("-s {THERE} -t {HERE} --local [::1]:8000 --peer b.example:6380");
    let line = format!("pair {NAME} {addresses} --socket --dry-run -k {}", key.display());
    let said = succeeds(setup(&line));
    let steps = format!(
        "\
would make /etc/spiped/NAME-in.key, mode 0600: a new key
would make /etc/spiped/NAME-in.conf, mode 0644:
    # Read by spiped-receive@NAME-in.service; spiped.conf(5) lists all that can stand here.
    SPIPED_SOURCE=[192.0.2.1]:6379
    SPIPED_TARGET=[127.0.0.1]:6379
would make /etc/systemd/system/spiped-receive@NAME-in.socket.d, mode 0755
would make /etc/systemd/system/spiped-receive@NAME-in.socket.d/listen.conf, mode 0644:
    [Socket]
    ListenStream=
    ListenStream=192.0.2.1:6379
would run systemctl enable spiped-receive@NAME-in.socket
would run systemctl start spiped-receive@NAME-in.socket
would run systemctl start spiped-receive@NAME-in.service
would make /etc/spiped/NAME-out.key, mode 0600: the given key {id}\
would make /etc/spiped/NAME-out.conf, mode 0644:
    # Read by spiped-send@NAME-out.service; spiped.conf(5) lists all that can stand here.
    SPIPED_SOURCE=[::1]:8000
    SPIPED_TARGET=b.example:6380
would make /etc/systemd/system/spiped-send@NAME-out.socket.d, mode 0755
would make /etc/systemd/system/spiped-send@NAME-out.socket.d/listen.conf, mode 0644:
    [Socket]
    ListenStream=
    ListenStream=[::1]:8000
would run systemctl enable spiped-send@NAME-out.socket
would run systemctl start spiped-send@NAME-out.socket
would run systemctl start spiped-send@NAME-out.service
would then prove it; only the real run shows whether the units start, the port is free, \
and the other end answers
"
    );
    // Whether the folder is there is this machine's own matter.
    let said = said.replacen("would make /etc/spiped, mode 0700\n", "", 1);
    assert_eq!(said, steps.replace("NAME", NAME));
    assert!(!Path::new("/etc/spiped").join(format!("{NAME}-in.key")).exists());
}

/// Needs root, as which `scripts/test` runs, to become another user.
#[test]
fn without_root_there_is_only_the_dry_run() {
    let folder = Folder::new();
    let program = for_all_users(&folder);
    let line = format!("receive {NAME} -s {THERE} -t {HERE}");
    let by_nobody = |line: &str| {
        let mut command = setup_by(&program, line);
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command
    };
    let output = by_nobody(&line).output().unwrap();
    refused(&output, 77, "only root can set up, change or remove a pipe");
    for line in ["remove NAME", "client a --pipe NAME", "revoke a --pipe NAME", "rotate NAME -k -"]
    {
        let line = line.replace("NAME", NAME);
        refused(&by_nobody(&line).output().unwrap(), 77, "only root can set up");
    }
    // Only root sees whether there is such a pipe.
    let removal = by_nobody(&format!("remove {NAME} --dry-run")).output().unwrap();
    if Path::new("/etc/spiped").exists() {
        assert!(removal.status.success(), "{removal:?}");
    } else {
        refused(&removal, 66, &format!("there is no pipe {NAME}"));
    }
    let said = succeeds(by_nobody(&format!("{line} --dry-run")));
    assert!(said.contains(&format!("systemctl start spiped-receive@{NAME}.service")), "{said}");
}

#[test]
fn without_systemd_nothing_is_set_up() {
    if !namespaces_can_be("a host without systemd") {
        return;
    }
    // This host may have one.
    let hidden = "mount -t tmpfs tmpfs /run; exec \"$0\" setup $1";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", hidden, SPIPED])
        .arg(format!("receive {NAME} -s {THERE} -t {HERE}"))
        .output()
        .unwrap();
    refused(&output, 69, "systemd, which would run the pipe, is not running here");
    assert!(!Path::new("/etc/spiped").join(format!("{NAME}.conf")).exists());
}

/// The program where every user may run it.
fn for_all_users(folder: &Folder) -> PathBuf {
    fs::set_permissions(folder.path("."), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path("spiped");
    fs::copy(SPIPED, &program).unwrap();
    program
}

/// What it prints.
#[track_caller]
fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
