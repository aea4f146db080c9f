//! `spipe`: standard input and output through a real receiver.

mod ends;
mod ssh;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::{
    Daemon, End, Folder, PATIENCE, Server, connect, nobody, noise, read_to_end, say_urgently,
    signal, wait_until,
};

/// A spipe that connects to a receiver; its standard streams are pipes.
fn spipe(folder: &Folder, receiver: SocketAddr) -> Command {
    let mut command = Command::new(folder.spipe());
    command.args(["-t", &receiver.to_string(), "-k"]).arg(folder.shared_key());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until the command ends by itself, within the time limit; returns its output.
fn output(mut child: Child) -> Output {
    drop(child.stdin.take());
    wait_until("spipe ends", || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap()
}

fn succeeded(child: Child) -> Vec<u8> {
    let output = output(child);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

/// Standard error has one line that names what is wrong, and a hint.
fn failed(output: &Output, code: i32, reason: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let lines: Vec<_> = said.lines().collect();
    let [error, hint] = lines[..] else { panic!("not two lines: {said}") };
    assert!(error.starts_with("spipe: ") && error.contains(reason), "{said}");
    assert!(hint.starts_with("hint: ") && hint.len() > 20, "{said}");
}

/// A thread reads what arrives within the patience of a test.
fn read_some(mut from: impl Read + Send + 'static, count: usize) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![0; count];
        from.read_exact(&mut bytes).unwrap();
        sender.send(bytes).unwrap();
    });
    receiver.recv_timeout(PATIENCE).expect("nothing comes")
}

#[test]
fn what_is_typed_comes_back_at_once_and_both_ends_are_passed_on() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in ["no end of line", "a line\n", "\n\0"] {
        stdin.write_all(line.as_bytes()).unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        let mut back = vec![0; line.len()];
        stdout.read_exact(&mut back).unwrap();
        assert_eq!(back, line.as_bytes());
    }
    drop(stdin);
    assert_eq!(succeeded(child), b"");
    assert!(receiver.log.wait_for("closed").contains("info"));
}

/// A prompt without an end of line appears, whatever standard output is.
#[test]
fn standard_output_may_be_a_socket_and_is_not_held_back() {
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        stream.write_all(b"password: ").unwrap();
        read_to_end(&mut stream);
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = spipe(&folder, receiver.address).stdout(OwnedFd::from(theirs)).spawn().unwrap();
    assert_eq!(read_some(ours, 10), b"password: ");
    succeeded(child);
}

/// Under inetd, a byte that is sent as urgent data keeps its place.
#[test]
fn standard_input_may_be_a_socket_with_urgent_data() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = connect(listener.local_addr().unwrap());
    let theirs = listener.accept().unwrap().0;
    let mut child = spipe(&folder, receiver.address).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    // By now the process is reading.
    (&ours).write_all(b"first").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut back = [0; 5];
    stdout.read_exact(&mut back).unwrap();
    say_urgently(&ours);
    assert_eq!(read_some(stdout, 7), b"abcd!ef");
    drop(ours);
    succeeded(child);
}

/// Sends 64 MiB in each direction at the same time, and compares checksums.
#[test]
fn large_streams_go_both_ways() {
    const MIB: usize = 64;
    let folder = Folder::new();
    let there = noise(1, MIB << 20);
    let back = noise(2, MIB << 20);
    let hash = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    let expected = (hash(&there), hash(&back));
    let (sender, arrived) = mpsc::channel();
    let server = Server::start(move |mut stream| {
        let mut to = stream.try_clone().unwrap();
        let back = back.clone();
        let writer = thread::spawn(move || {
            to.write_all(&back).unwrap();
            to.shutdown(Shutdown::Write).unwrap();
        });
        sender.send(read_to_end(&mut stream).0).unwrap();
        writer.join().unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&there).unwrap());
    let mut came = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut came).unwrap();
    writer.join().unwrap();
    succeeded(child);
    let there = arrived.recv_timeout(PATIENCE).unwrap();
    assert!((hash(&there), hash(&came)) == expected, "{} {}", there.len(), came.len());
}

/// The end of standard input reaches the server; the answer is read to its end.
#[test]
fn the_answer_may_come_after_the_end_of_standard_input() {
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        let question = read_to_end(&mut stream).0;
        thread::sleep(Duration::from_millis(200));
        stream.write_all(&[b"answer to ", &question[..]].concat()).unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"question").unwrap();
    assert_eq!(succeeded(child), b"answer to question");
}

/// The server ends first; standard input is still sent.
#[test]
fn standard_input_may_go_on_after_the_end_of_the_answer() {
    let folder = Folder::new();
    let (sender, arrived) = mpsc::channel();
    let server = Server::start(move |mut stream| {
        stream.write_all(b"that is all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sender.send(read_to_end(&mut stream).0).unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    assert_eq!(read_some(child.stdout.take().unwrap(), 11), b"that is all");
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(20));
        stdin.write_all(b"more").unwrap();
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended with the answer");
    drop(stdin);
    succeeded(child);
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"more".repeat(10));
}

#[test]
fn input_and_output_may_be_files() {
    let folder = Folder::new();
    let content = noise(3, 3_000_000);
    fs::write(folder.path("input"), &content).unwrap();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let child = spipe(&folder, receiver.address)
        .stdin(File::open(folder.path("input")).unwrap())
        .stdout(File::create(folder.path("output")).unwrap())
        .spawn()
        .unwrap();
    succeeded(child);
    assert!(fs::read(folder.path("output")).unwrap() == content);

    let nothing = spipe(&folder, receiver.address).stdin(Stdio::null()).spawn().unwrap();
    assert_eq!(succeeded(nothing), b"");
}

/// `spipe | head -c 10`: the command does not go on without a reader.
#[test]
fn it_ends_when_nobody_reads_its_output_any_more() {
    let folder = Folder::new();
    let server = Server::start(|mut stream| while stream.write_all(&[b'y'; 1000]).is_ok() {});
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    // Standard input stays open throughout.
    let _stdin = child.stdin.take();
    assert_eq!(read_some(child.stdout.take().unwrap(), 10), b"y".repeat(10));
    let output = output(child);
    assert!(!output.status.success(), "{output:?}");
}

/// Half a message is no message: the server must not mistake it for a whole one.
#[test]
fn output_that_cannot_be_written_is_no_clean_end_for_the_server() {
    let (reported, reports) = mpsc::channel();
    let server = Server::start(move |mut stream| {
        stream.write_all(b"first answer").unwrap();
        reported.send(read_to_end(&mut stream).1).unwrap();
    });
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = spipe(&folder, receiver.address).stdout(full).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"half a mess").unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(End::Reset));
    failed(&output(child), 71, "cannot write to standard output");
}

#[test]
fn a_full_disk_is_a_failure() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = spipe(&folder, receiver.address).stdout(full).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"not written").unwrap();
    let output = output(child);
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn connections_that_are_not_made_are_failures_that_say_why() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let well = Daemon::receiver(&key, Server::echo().address, &[]);
    let other_key = Daemon::receiver(&folder.key("other.key"), Server::echo().address, &[]);
    let without_target = Daemon::receiver(&key, nobody(), &[]);
    let to = |address: SocketAddr| address.to_string();
    let cases: [(String, &[&str], i32, &str); 6] = [
        (to(nobody()), &[], 69, "cannot reach the receiver: target refused the connection"),
        (to(other_key.address), &[], 69, "in the handshake"),
        (
            to(without_target.address),
            &[],
            69,
            "the server behind the receiver refused the connection",
        ),
        ("no.such.name.invalid:1".into(), &[], 69, "the name no.such.name.invalid does not"),
        (to(well.address), &["-f"], 64, "-f is refused"),
        (to(well.address), &["-s", "x"], 64, "unexpected argument '-s'"),
    ];
    for (target, more, code, reason) in cases {
        let child = Command::new(folder.spipe())
            .args(["-t", &target, "-k"])
            .arg(&key)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        failed(&output(child.unwrap()), code, reason);
    }
    let mut accepted = spipe(&folder, well.address).arg("-g").spawn().unwrap();
    accepted.stdin.take().unwrap().write_all(b"well").unwrap();
    assert_eq!(succeeded(accepted), b"well");
}

/// A cut stream is not mistaken for a complete one.
#[test]
fn a_tunnel_that_is_cut_is_a_failure() {
    let folder = Folder::new();
    let mut receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"half").unwrap();
    let mut half = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut half).unwrap();
    signal(&receiver.child, "KILL");
    receiver.wait();
    failed(&output(child), 69, "truncated: ");
}

/// `nohup spipe` outlives its terminal.
#[test]
fn a_hangup_ends_it_unless_it_was_ignored_at_the_start() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    for (how, code) in [("--default-signal=HUP", 129), ("--ignore-signal=HUP", 0)] {
        let mut command = Command::new("env");
        command.arg(how).arg(folder.spipe()).args(["-t", &receiver.address.to_string(), "-k"]);
        command.arg(folder.shared_key()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"x").unwrap();
        // From here on, the process handles signals.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        signal(&child, "HUP");
        if code == 129 {
            // For the receiver, that is a client that has gone.
            receiver.log.wait_for(" reason=aborted-peer-reset ");
        } else {
            stdin.write_all(b"y").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            drop(stdin);
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{how}");
    }
}
