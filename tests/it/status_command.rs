//! `spiped status`: real pipes, asked by their control sockets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use crate::support::{
    Daemon, Folder, Lines, SPIPED, Server, is_root, nobody, round_trip, signal, wait_until,
    wait_until_within,
};

/// A receiver and a sender, each with a control socket.
struct Ends {
    folder: Folder,
    receiver: Daemon,
    sender: Daemon,
}

impl Ends {
    fn to(target: impl ToString) -> Self {
        let folder = Folder::new();
        let key = folder.shared_key();
        let control = |name: &str| folder.path(name).to_str().unwrap().to_owned();
        let more = ["--control", &control("receiver"), "--drain-timeout", "600"];
        let receiver = Daemon::receiver(&key, target, &more);
        let sender = Daemon::sender(&key, receiver.address, &["--control", &control("sender")]);
        Self { folder, receiver, sender }
    }

    fn paths(&self) -> [PathBuf; 2] {
        [self.folder.path("receiver"), self.folder.path("sender")]
    }

    /// Runs `spiped status` on both.
    fn status(&self, options: &[&str]) -> Output {
        Command::new(SPIPED).arg("status").args(self.paths()).args(options).output().unwrap()
    }

    fn json(&self, options: &[&str]) -> serde_json::Value {
        let output = self.status(&[&["--json"], options].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn printed(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

fn bracketed(address: SocketAddr) -> String {
    format!("[{}]:{}", address.ip(), address.port())
}

#[test]
fn both_ends_tell_what_was_carried() {
    let server = Server::echo();
    let ends = Ends::to(server.address);
    let mut client = ends.sender.connect();
    round_trip(&mut client, &[7; 5000]);
    let output = ends.status(&[]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "(receiver): serving for ",
        "(sender): serving for ",
        ", reached ",
        &format!("\n  target        {}, reached ", bracketed(server.address)),
        &format!("\n  receiver      {}, reached ", bracketed(ends.receiver.address)),
        "1 of ",
        "1 good, 0 bad in the last ",
        "4.8 KiB, now ",
        "x25519mlkem768",
        "p99 <= ",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let json = ends.json(&[]);
    for end in json.as_array().unwrap() {
        assert_eq!(end["totals"]["sent_bytes"], 5000, "{end}");
        assert_eq!(end["totals"]["received_bytes"], 5000, "{end}");
        assert_eq!(end["open"], serde_json::Value::Null);
    }
    let tab = printed(&ends.status(&["--tab", "--connections"]));
    let lines: Vec<Vec<_>> = tab.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 3, "{tab}");
    let place = lines[0].iter().position(|name| *name == "sent_bytes").unwrap();
    assert!(lines[1..].iter().all(|line| line[place] == "5000"), "{tab}");
}

#[test]
fn a_target_that_is_down_is_told_with_its_reason() {
    let ends = Ends::to(nobody());
    let mut client = ends.sender.connect();
    let _reset = client.read(&mut [0]);
    ends.receiver.log.wait_for("reason=target-refused");
    let text = printed(&ends.status(&[]));
    assert!(text.contains(", not reached "), "{text}");
    assert!(text.contains("target-refused: 1 time, last "), "{text}");
    assert!(text.contains("\n      hint: "), "{text}");
    let tab = printed(&ends.status(&["--tab"]));
    assert!(tab.contains("\tno\t"), "{tab}");
}

/// By the variable, where that has given the address: as the log says it.
#[test]
fn a_hint_of_the_status_is_that_of_the_log() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let control = folder.path("control");
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-s", "[127.0.0.1]:0", "-k"]).arg(&key).arg("--control");
    command.arg(&control).env("SPIPED_TARGET", nobody().to_string());
    let receiver = Daemon::spawn(command);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let _reset = sender.connect().read(&mut [0]);
    let hint = "is the server running, and does it listen on the address in SPIPED_TARGET?";
    assert!(receiver.log.wait_for("reason=target-refused").contains(hint));
    let status = Command::new(SPIPED).arg("status").arg(&control).output().unwrap();
    let text = printed(&status);
    assert!(text.contains(&format!("\n      hint: {hint}\n")), "{text}");
}

#[test]
fn a_reader_that_has_stalled_is_on_top() {
    // A server that keeps its connections, and reads none to the end.
    let server = Server::start(|stream| {
        let _kept = stream;
        std::thread::park();
    });
    let ends = Ends::to(server.address);
    let mut quiet = ends.sender.connect();
    quiet.write_all(b"quiet").unwrap();
    let mut stalled = ends.sender.connect();
    stalled.set_nonblocking(true).unwrap();
    let waits = |end: &serde_json::Value| {
        let bytes = |open: &serde_json::Value, place| open[place].as_u64().unwrap();
        end["open"].as_array().unwrap().iter().any(|open| {
            bytes(open, "waiting_for_local_bytes") + bytes(open, "waiting_for_tunnel_bytes") > 0
        })
    };
    // They are looked at every 15 seconds.
    wait_until_within(Duration::from_mins(1), "bytes wait at both ends", || {
        while stalled.write(&[0; 1 << 14]).is_ok() {}
        ends.json(&["--connections"]).as_array().unwrap().iter().all(waits)
    });
    let text = printed(&ends.status(&["--connections"]));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines.len() == 5, "{text}");
    assert!(lines[1].contains(" for local") || lines[1].contains(" for tunnel"), "{text}");
    assert!(lines[4].ends_with('-'), "{text}");
}

#[test]
fn one_that_does_not_answer_delays_no_other() {
    let server = Server::echo();
    let ends = Ends::to(server.address);
    ends.receiver.signal("STOP");
    let output = ends.status(&[]);
    let text = printed(&output);
    ends.receiver.signal("CONT");
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("receiver does not answer: ") && text.contains("(sender): serving"));
    assert!(text.contains("spiped: 1 of 2 did not tell the status\nhint: "), "{text}");
    let gone = Command::new(SPIPED).args(["status", "/nowhere/control"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
    let gone = Command::new(SPIPED).args(["status", "no-such-pipe"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
    assert!(printed(&gone).contains("no pipe no-such-pipe runs here"), "{gone:?}");
    let relative = Command::new(SPIPED).args(["status", "r.ctl"]).output().unwrap();
    assert!(printed(&relative).contains("; a path begins with /\n"), "{relative:?}");
    let relative = Command::new(SPIPED).args(["status", "run/r.ctl"]).output().unwrap();
    assert!(printed(&relative).contains("\nhint: a path begins with /, "), "{relative:?}");
}

#[test]
fn a_process_that_drains_is_shown_beside_the_next_one() {
    let server = Server::echo();
    let mut ends = Ends::to(server.address);
    let mut client = ends.sender.connect();
    round_trip(&mut client, b"open");
    ends.receiver.signal("TERM");
    ends.receiver.log.wait_for("draining open connections");
    let control = ends.folder.path("receiver");
    let key = ends.folder.shared_key();
    let more = ["--control", control.to_str().unwrap()];
    let _next = Daemon::receiver(&key, server.address, &more);
    let states = |json: &serde_json::Value| {
        let of = |end: &serde_json::Value| end["state"].as_str().unwrap().to_owned();
        json.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let json = ends.json(&[]);
    assert_eq!(states(&json), ["serving", "draining", "serving"], "{json}");
    drop(client);
    assert!(ends.receiver.wait().success());
    assert_eq!(states(&ends.json(&[])), ["serving", "serving"]);
}

/// With another folder in the place of /run.
fn with_run(folder: &Folder, command: &str) -> Output {
    let script = "mount --bind \"$0\" /run && exec \"$1\" status $2";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script]).arg(folder.path("run"));
    unshare.args([SPIPED, command]).output().unwrap()
}

#[test]
fn all_units_of_the_host_are_shown_in_one_line_each() {
    if !is_root("spiped status with a /run of its own") {
        return;
    }
    let server = Server::echo();
    let folder = Folder::new();
    let path = |name: &str| folder.path(&format!("run/{name}"));
    std::fs::create_dir(folder.path("run")).unwrap();
    let none = with_run(&folder, "");
    assert!(none.status.success(), "{none:?}");
    let text = "no pipe runs here as a unit\n\
        hint: 'spiped status /PATH' asks a process with --control /PATH\n";
    assert_eq!(printed(&none), text);
    assert_eq!(printed(&with_run(&folder, "--json")), "[]\n");

    for unit in ["spiped-receive@redis", "spiped-send", "spiped-other"] {
        std::fs::create_dir(path(unit)).unwrap();
    }
    let control = |unit: &str| path(&format!("{unit}/control")).to_str().unwrap().to_owned();
    let key = folder.shared_key();
    let more = ["--control", &control("spiped-receive@redis")];
    let receiver = Daemon::receiver(&key, server.address, &more);
    let more = ["--control", &control("spiped-send")];
    let sender = Daemon::sender(&key, receiver.address, &more);
    round_trip(&mut sender.connect(), b"open");
    // Not the same pipe twice.
    std::os::unix::fs::symlink("spiped-receive@redis", path("spiped-receive@link")).unwrap();
    let all = with_run(&folder, "");
    let text = printed(&all);
    let lines: Vec<_> = text.lines().collect();
    assert!(all.status.success() && lines.len() == 3, "{text}");
    assert!(lines[0].starts_with("NAME ") && lines.iter().all(|it| it.len() <= 120), "{text}");
    assert!(lines[1].starts_with("redis ") && lines[1].contains(" receiver "), "{text}");
    assert!(lines[2].starts_with("spiped-send ") && lines[2].contains(" sender "), "{text}");
    let one = printed(&with_run(&folder, "redis"));
    assert!(one.starts_with("redis (receiver): serving for "), "{one}");
}

#[test]
fn a_user_who_may_not_ask_is_told_so() {
    if !is_root("spiped status of another user") {
        return;
    }
    let server = Server::echo();
    let ends = Ends::to(server.address);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(ends.folder.path("."), open).unwrap();
    let copy = ends.folder.path("spiped");
    std::fs::copy(SPIPED, &copy).unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).arg("status");
    let output = other.args(ends.paths()).output().unwrap();
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(77), "{text}");
    assert!(text.contains("spiped: this user may not ask: only root "), "{text}");
}

#[test]
fn watch_asks_again_and_writes_a_document_a_line() {
    let server = Server::echo();
    let ends = Ends::to(server.address);
    let mut watch = Command::new(SPIPED);
    watch.args(["status", "--json", "--watch"]).args(ends.paths()).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let lines = Lines::collect(watch.stdout.take().unwrap());
    wait_until("it has asked twice", || lines.all().len() >= 2);
    signal(&watch, "INT");
    watch.wait().unwrap();
    for line in lines.all() {
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 2);
    }
}

/// In a terminal, each answer is drawn over the one before and stays within its size.
#[test]
fn watch_draws_over_what_is_there_and_not_beyond_the_terminal() {
    let server = Server::echo();
    let ends = Ends::to(server.address);
    let size = Winsize { ws_row: 8, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut watch = Command::new(SPIPED);
    watch.args(["status", "--watch"]).args(ends.paths()).stdout(terminal.slave);
    let mut watch = watch.spawn().unwrap();
    let lines = Lines::collect(File::from(terminal.master));
    // The second one begins at the top, where the first one began.
    wait_until("it has drawn twice", || lines.all().iter().any(|it| it.contains("\x1b[J\x1b[H")));
    signal(&watch, "INT");
    watch.wait().unwrap();
    let lines = lines.all();
    assert!(lines[0].starts_with("\x1b[2J\x1b[H") && lines[0].contains("(receiver): serving for "));
    let second = lines.iter().position(|it| it.contains("\x1b[J\x1b[H")).unwrap();
    assert_eq!(second, 7, "as many lines as the terminal has, but one: {lines:#?}");
    assert!(lines[6].contains(" more lines: make the terminal higher"), "{lines:#?}");
    for line in &lines[..second] {
        let text = line.trim_end().trim_start_matches("\x1b[2J\x1b[H").trim_end_matches("\x1b[K");
        assert!(text.len() <= 60 && !text.contains('\x1b'), "{line:?}");
    }
}

/// As behind a serial line.
#[test]
fn a_terminal_without_a_size_gets_all_lines() {
    let server = Server::echo();
    let ends = Ends::to(server.address);
    let size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut watch = Command::new(SPIPED);
    watch.args(["status", "--watch"]).args(ends.paths()).stdout(terminal.slave);
    let mut watch = watch.spawn().unwrap();
    let lines = Lines::collect(File::from(terminal.master));
    wait_until("it has drawn twice", || lines.all().iter().any(|it| it.contains("\x1b[J\x1b[H")));
    signal(&watch, "INT");
    watch.wait().unwrap();
    let text = lines.all().join("\n");
    assert!(text.contains("(receiver): serving for ") && text.contains("(sender): serving for "));
    assert!(!text.contains("make the terminal higher"), "{text}");
}
