//! Standard input and output in the states in which other programs hand them over:
//! shared, in non-blocking mode, a terminal, closed; and how each of them ends.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{failed, output, read_some, spipe, succeeded};
use crate::support::{
    Daemon, Folder, PATIENCE, SPIPED, Server, connect, noise, patient, read_to_end, signal,
    wait_until,
};

/// A server that sends this text and ends its direction; the channel gets what the server
/// then receives.
fn server(answer: Vec<u8>) -> (Server, mpsc::Receiver<Vec<u8>>) {
    let (sender, arrived) = mpsc::channel();
    let server = Server::start(move |mut stream| {
        stream.write_all(&answer).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sender.send(read_to_end(&mut stream).0).unwrap();
    });
    (server, arrived)
}

fn all_of(from: impl Read + Send + 'static) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    let mut from = from;
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        sender.send(bytes).unwrap();
    });
    receiver.recv_timeout(PATIENCE).expect("standard output does not end")
}

/// `socat - TCP:` behaves like this: each direction ends on its own.
#[test]
fn the_end_of_the_answer_is_seen_at_once_while_standard_input_goes_on() {
    let folder = Folder::new();
    let (server, arrived) = server(b"bye\n".to_vec());
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    assert_eq!(all_of(child.stdout.take().unwrap()), b"bye\n");
    child.stdin.as_mut().unwrap().write_all(b"after the end").unwrap();
    succeeded(child);
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"after the end");
}

/// inetd, `socat EXEC` and co-processes: one socket is standard input, standard output
/// and perhaps standard error, and stays open for input.
#[test]
fn one_socket_may_be_all_standard_streams() {
    let folder = Folder::new();
    let (server, arrived) = server(b"bye\n".to_vec());
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let tcp = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = connect(listener.local_addr().unwrap());
        let (theirs, _) = listener.accept().unwrap();
        (OwnedFd::from(ours), OwnedFd::from(theirs))
    };
    let unix = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (OwnedFd::from(ours), OwnedFd::from(theirs))
    };
    for ((ours, theirs), is_error) in
        [(tcp(), false), (tcp(), true), (unix(), false), (unix(), true)]
    {
        let mut command = spipe(&folder, receiver.address);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        if is_error {
            command.stderr(theirs.try_clone().unwrap());
        }
        let mut child = command.spawn().unwrap();
        // Each process holds a copy, which must not keep the socket open.
        drop((command, theirs));
        assert_eq!(all_of(File::from(ours.try_clone().unwrap())), b"bye\n");
        File::from(ours).write_all(b"after the end").unwrap();
        wait_until("spipe ends", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success());
        assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"after the end");
    }
}

/// Other processes may hold the socket, too, so closing the last descriptor here does not
/// end it.
#[test]
fn a_socket_as_standard_output_is_ended_whichever_direction_ends_last() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let (server, arrived) = server(b"bye\n".to_vec());
    let receiver = Daemon::receiver(&key, server.address, &[]);
    let down = Daemon::receiver(&key, crate::support::nobody(), &[]);
    for (target, answer, code) in [(&receiver, &b"bye\n"[..], 0), (&down, b"", 69)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = spipe(&folder, target.address);
        command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs.try_clone().unwrap()));
        let mut child = command.spawn().unwrap();
        assert_eq!(all_of(ours), answer);
        wait_until("spipe ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        drop(theirs);
    }
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"");
}

/// A failure does not end the shared socket like a success: the message still gets out.
#[test]
fn a_failure_is_told_where_standard_error_is_the_same_socket() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let nobody = crate::support::nobody();
    for _ in 0..10 {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let mut child = Command::new(folder.spipe())
            .args(["-t", &nobody.to_string(), "-k"])
            .arg(&key)
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        wait_until("spipe ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(69));
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert!(said.contains("target refused the connection"), "{said:?}");
    }
}

/// The three standard streams are one open file there, and a shell uses it afterwards.
#[test]
fn a_terminal_is_typed_at_after_the_end_of_the_answer() {
    let folder = Folder::new();
    let (server, arrived) = server(b"bye\n".to_vec());
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let terminal = nix::pty::openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut child = spipe(&folder, receiver.address)
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    let mut master = File::from(terminal.master.try_clone().unwrap());
    assert_eq!(read_some(master.try_clone().unwrap(), 5), b"bye\r\n");
    thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it ended with the answer");
    master.write_all(b"typed\n\x04").unwrap();
    wait_until("spipe ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"typed\n");
    // The terminal still works for its other users.
    let mut shell = File::from(terminal.slave);
    shell.write_all(b"$ ").unwrap();
    assert!(read_some(master, 9).ends_with(b"$ "));
}

fn set_nonblocking(fd: impl AsFd) {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap());
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap())
        .contains(OFlag::O_NONBLOCK)
}

/// Programs with an event loop hand streams over in non-blocking mode. The mode belongs
/// to them and stays.
#[test]
fn standard_streams_in_non_blocking_mode_are_waited_for() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let content = noise(5, 5_000_000);
    for is_socket in [false, true] {
        let pair = || {
            if is_socket {
                let (ours, theirs) = UnixStream::pair().unwrap();
                (OwnedFd::from(ours), OwnedFd::from(theirs))
            } else {
                let (from, to) = pipe().unwrap();
                (OwnedFd::from(from), OwnedFd::from(to))
            }
        };
        let ((input, to), (from, to_stdout)) = (pair(), pair());
        set_nonblocking(&input);
        set_nonblocking(&to_stdout);
        let child = spipe(&folder, receiver.address)
            .stdin(input.try_clone().unwrap())
            .stdout(to_stdout.try_clone().unwrap())
            .spawn()
            .unwrap();
        // For a while there is nothing to read, and later there is no reader.
        thread::sleep(Duration::from_millis(200));
        let sent = content.clone();
        let writer = thread::spawn(move || File::from(to).write_all(&sent));
        thread::sleep(Duration::from_millis(200));
        assert!(is_nonblocking(&input) && is_nonblocking(&to_stdout));
        drop((input, to_stdout));
        assert!(all_of(File::from(from)) == content, "not all came");
        writer.join().unwrap().unwrap();
        succeeded(child);
    }
}

#[test]
fn a_key_by_standard_input_in_non_blocking_mode_is_waited_for() {
    let folder = Folder::new();
    let key = std::fs::read(folder.shared_key()).unwrap();
    let id = Command::new(SPIPED).arg("keyid").arg(folder.shared_key()).output().unwrap().stdout;
    let (input, mut to) = pipe().unwrap();
    set_nonblocking(&input);
    let child = Command::new(SPIPED)
        .args(["keyid", "-"])
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for half in key.chunks(16) {
        thread::sleep(Duration::from_millis(100));
        to.write_all(half).unwrap();
    }
    drop(to);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, id, "{output:?}");
}

/// Everything that arrived before the tunnel was cut is authentic: a slow reader gets all
/// of it, and the exit code says that there may have been more.
#[test]
fn what_came_before_a_cut_is_still_written() {
    const COUNT: usize = 150_000;
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        stream.write_all(&noise(6, COUNT)).unwrap();
        read_to_end(&mut stream);
    });
    let mut receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    // All bytes are in this process, in its output, or in between.
    thread::sleep(Duration::from_millis(300));
    receiver.signal("KILL");
    receiver.wait();
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait for its reader");
    let rest = all_of(stdout);
    assert!([&first[..], &rest].concat() == noise(6, COUNT), "{} came", rest.len() + 1);
    failed(&output(child), 69, "truncated: ");
}

/// After a signal, the command does not wait for a reader that does not read.
#[test]
fn a_signal_ends_it_while_its_output_is_not_read() {
    let folder = Folder::new();
    let (server, arrived) = server(noise(7, 150_000));
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    drop(child.stdin.take());
    arrived.recv_timeout(PATIENCE).unwrap();
    receiver.log.wait_for(" reason=finished id=");
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "not all is written");
    signal(&child, "TERM");
    wait_until("spipe ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn what_standard_input_is_not_is_told() {
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let closed = |redirection: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec \"$@\" {redirection}")).arg("sh");
        command.arg(folder.spipe()).args(["-t", &receiver.address.to_string(), "-k"]);
        command.arg(folder.shared_key());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // An empty standard input is an end like any other.
    for redirection in ["<&-", ">&-", "<&- >&-"] {
        assert_eq!(succeeded(closed(redirection)), b"", "{redirection}");
    }
    for (redirection, reason) in [
        ("< /", "cannot read standard input: Is a directory"),
        ("0> /dev/null", "cannot read standard input: Bad file descriptor"),
    ] {
        failed(&output(closed(redirection)), 71, reason);
    }
}

/// The reader of standard output is gone and there is nothing to write: input is still
/// sent, because nobody wanted the answer.
#[test]
fn a_reader_that_is_gone_does_not_cut_what_is_sent() {
    let folder = Folder::new();
    let (sender, arrived) = mpsc::channel();
    let server = Server::start(move |stream: TcpStream| {
        sender.send(read_to_end(&mut patient(stream)).0).unwrap();
    });
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(50));
        stdin.write_all(b"sent").unwrap();
    }
    drop(stdin);
    assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"sent".repeat(5));
    assert!(output(child).status.success());
}

/// Where the server has ended its direction first, both directions have ended once the
/// last bytes are on their way: that they have arrived is told later.
#[test]
fn what_the_receiver_has_not_passed_on_is_no_success() {
    let folder = Folder::new();
    let (server, _arrived) = server(b"bye\n".to_vec());
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    let mut child = spipe(&folder, receiver.address).spawn().unwrap();
    assert_eq!(all_of(child.stdout.take().unwrap()), b"bye\n");
    let mut client = sender.connect();
    assert_eq!(read_to_end(&mut client).0, b"bye\n");
    receiver.signal("STOP");
    child.stdin.take().unwrap().write_all(b"the last words").unwrap();
    client.write_all(b"the last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "nobody has got it");
    assert_eq!(sender.log.count(" reason=finished "), 0);
    receiver.signal("KILL");
    assert_eq!(child.wait().unwrap().code(), Some(69));
    sender.log.wait_for(" reason=tunnel-failed ");
}

/// A server at its limit of clients accepts and closes. What comes for it is answered by a
/// reset, which the receiver sees at once, in the write itself or soon after it.
#[test]
fn what_a_server_that_has_closed_never_read_is_no_success() {
    let folder = Folder::new();
    let server = Server::start(drop);
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    for number in 0..20 {
        let mut child = spipe(&folder, receiver.address).spawn().unwrap();
        assert_eq!(all_of(child.stdout.take().unwrap()), b"");
        let comes_at_once = number % 2 == 0;
        if comes_at_once {
            receiver.signal("STOP");
        }
        // It may have ended already.
        let _broken = child.stdin.take().unwrap().write_all(b"the only copy");
        if comes_at_once {
            thread::sleep(Duration::from_millis(50));
            receiver.signal("CONT");
        }
        failed(&output(child), 69, "the peer beyond the tunnel reset its connection");
    }
}

/// Such proxies are usual: where one side ends its direction, they close both sides.
fn closing_proxy(to: std::net::SocketAddr) -> Server {
    Server::start(move |client| {
        let server = TcpStream::connect(to).unwrap();
        let copy = |mut from: &TcpStream, mut to: &TcpStream| {
            let _failed = std::io::copy(&mut from, &mut to);
            for side in [from, to] {
                let _closed = side.shutdown(Shutdown::Both);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| copy(&client, &server));
            copy(&server, &client);
        });
    })
}

#[test]
fn a_proxy_that_closes_both_sides_makes_no_false_success() {
    for is_killed in [true, false] {
        let folder = Folder::new();
        let (server, arrived) = server(b"bye\n".to_vec());
        let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
        let proxy = closing_proxy(receiver.address);
        let mut child = spipe(&folder, proxy.address).spawn().unwrap();
        assert_eq!(all_of(child.stdout.take().unwrap()), b"bye\n");
        receiver.signal("STOP");
        child.stdin.take().unwrap().write_all(b"the last words").unwrap();
        thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "nobody has got it");
        if is_killed {
            receiver.signal("KILL");
            failed(&output(child), 69, "truncated: ");
        } else {
            receiver.signal("CONT");
            succeeded(child);
            assert_eq!(arrived.recv_timeout(PATIENCE).unwrap(), b"the last words");
        }
    }
}
