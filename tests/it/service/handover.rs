//! `--handover`: one process that systemd knows, and one that serves. `hosts::restarts`
//! tests the part of systemd.

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc::{SIGKILL, c_int, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::activation::activated_as;
use super::said;
use crate::support::hop::{Act, Hop, Way};
use crate::support::{
    Daemon, End, Folder, PATIENCE, SPIPED, Server, connect, nobody, read_to_end, round_trip,
    wait_until,
};

/// A spiped with `--handover`; its worker is ended, too.
struct Kept {
    keeper: Daemon,
    worker: u32,
}

impl Kept {
    fn receiver(key: &Path, target: impl ToString) -> Self {
        Self::of(Daemon::receiver(key, target, &["--handover", "--drain-timeout", "60"]))
    }

    fn of(keeper: Daemon) -> Self {
        let id = keeper.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let worker = children.trim().parse().expect(&children);
        Self { keeper, worker }
    }

    fn worker_runs(&self) -> bool {
        // A dead process that nobody has waited for still exists.
        fs::read_to_string(format!("/proc/{}/stat", self.worker))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn signal_worker(&self, number: c_int) {
        #[expect(unsafe_code, reason = "nix has a crate of its own version here")]
        // SAFETY: the call takes two numbers.
        let _gone = unsafe { kill(self.worker.try_into().unwrap(), number) };
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.signal_worker(SIGKILL);
    }
}

#[test]
fn it_ends_as_its_worker_does() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let mut kept = Kept::receiver(&key, Server::echo().address);
    kept.keeper.signal("TERM");
    assert!(kept.keeper.wait().success());
    assert!(!kept.worker_runs());

    let mut kept = Kept::receiver(&key, Server::echo().address);
    kept.signal_worker(SIGKILL);
    assert_eq!(kept.keeper.wait().signal(), Some(SIGKILL));

    let output = Command::new(SPIPED)
        .args(["-F", "--handover", "-d", "-s", "127.0.0.1:0", "-t", &nobody().to_string(), "-k"])
        .arg(folder.path("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    let output = Command::new(SPIPED)
        .args(["--handover", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"])
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(said(&output).contains("--handover is given without -F"), "{output:?}");
}

#[test]
fn hup_reaches_the_worker() {
    let folder = Folder::new();
    let kept = Kept::receiver(&folder.shared_key(), Server::echo().address);
    kept.keeper.signal("HUP");
    kept.keeper.log.wait_for("keys reloaded");
}

/// Open connections go on, accepted ones are served, and no new ones come.
#[test]
fn once_handed_over_it_ends_at_once_and_its_worker_with_the_last_connection() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let target = Server::echo();
    let mut kept = Kept::receiver(&key, target.address);
    // Message 1 of the second connection is held back until the end of this test.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(Some(held));
    let hop = Hop::tampering(kept.keeper.address, move |number| {
        let held = if number == 1 { held.lock().unwrap().take() } else { None };
        Box::new(move |unit| {
            if unit.way == Way::ToReceiver
                && unit.number == 0
                && let Some(held) = &held
            {
                let _released = held.recv();
            }
            vec![Act::Forward(unit.bytes)]
        })
    });
    let sender = Daemon::sender(&key, hop.address, &[]);
    let mut open = sender.connect();
    round_trip(&mut open, b"before");
    let descriptors = worker_descriptors(&kept);
    let mut late = sender.connect();
    wait_until("it is accepted", || worker_descriptors(&kept) > descriptors);

    kept.keeper.signal("USR1");
    assert_eq!(kept.keeper.wait().code(), Some(75));
    kept.keeper.log.wait_for("the next process takes over new connections: ");
    wait_until("connects are refused", || TcpStream::connect(kept.keeper.address).is_err());
    // This is longer than handshakes have at TERM.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    release.send(()).unwrap();
    round_trip(&mut late, b"accepted before, served after");
    round_trip(&mut open, b"after");
    drop(late);
    assert!(kept.worker_runs());
    drop(open);
    wait_until("it ends with the last", || !kept.worker_runs());
}

#[test]
fn term_ends_what_was_handed_over_at_once() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let mut kept = Kept::receiver(&key, Server::echo().address);
    let sender = Daemon::sender(&key, kept.keeper.address, &[]);
    let mut open = sender.connect();
    round_trip(&mut open, b"before");
    kept.keeper.signal("USR1");
    assert_eq!(kept.keeper.wait().code(), Some(75));
    kept.keeper.log.wait_for("the next process takes over new connections: ");
    kept.signal_worker(nix::libc::SIGTERM);
    assert_eq!(read_to_end(&mut open), (vec![], End::Reset));
    wait_until("it ends", || !kept.worker_runs());
}

fn worker_descriptors(kept: &Kept) -> usize {
    fs::read_dir(format!("/proc/{}/fd", kept.worker)).unwrap().count()
}

/// The socket on which systemd would listen, and the descriptors that it keeps.
struct Store {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Store {
    fn new(folder: &Folder) -> Self {
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// The next message, with its descriptors.
    fn next(&self) -> (String, Vec<OwnedFd>) {
        let mut text = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!([c_int; 8]);
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags).unwrap();
        let mut descriptors = Vec::new();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                #[expect(unsafe_code, reason = "there is no safe way to adopt a descriptor")]
                // SAFETY: the kernel has just made the descriptors for this process.
                descriptors
                    .extend(numbers.iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) }));
            }
        }
        let count = message.bytes;
        (String::from_utf8(text[..count].to_vec()).unwrap(), descriptors)
    }
}

#[test]
fn its_listening_socket_is_kept_for_the_next_process() {
    let folder = Folder::new();
    let store = Store::new(&folder);
    let key = folder.shared_key();
    let target = Server::echo();
    let source = nobody();
    let arguments = |source: SocketAddr| {
        let words = ["--handover", "-d", "-s", &source.to_string(), "-t"].map(ToOwned::to_owned);
        let more = [target.address.to_string(), "-k".into(), key.to_str().unwrap().into()];
        [words.as_slice(), &more].concat()
    };
    let told = |mut command: Command| {
        command.env("NOTIFY_SOCKET", &store.path);
        Kept::of(Daemon::spawn(command))
    };
    let mut command = Command::new(SPIPED);
    command.arg("-F").args(arguments(source));
    let mut first = told(command);
    let (text, mut kept) = store.next();
    assert_eq!(text, "FDSTORE=1\nFDNAME=listener\nFDPOLL=0\n");
    let listener = kept.pop().unwrap();
    assert_eq!(store.next().0, "READY=1\n");

    // A connection waits while no process serves.
    first.keeper.signal("TERM");
    assert!(first.keeper.wait().success());
    let sender = Daemon::sender(&key, source, &["-o", "60"]);
    let mut waiting = sender.connect();
    waiting.write_all(b"hello").unwrap();
    let stored = |source| activated_as("listener", &[listener.as_fd()], &arguments(source));
    let next = told(stored(source));
    waiting.read_exact(&mut [0; 5]).unwrap();
    drop(next);

    // With another source, the kept socket is given up, and nothing listens on it.
    while store.next().0 != "READY=1\n" {}
    let other = nobody();
    let another = std::thread::scope(|scope| {
        let given_up = scope.spawn(|| {
            let texts = std::iter::repeat_with(|| store.next());
            let mut texts = texts.skip_while(|(text, _)| !text.starts_with("FDSTOREREMOVE"));
            assert_eq!(texts.next().unwrap().0, "FDSTOREREMOVE=1\nFDNAME=listener\n");
            let (barrier, descriptors) = texts.next().unwrap();
            assert_eq!((barrier.as_str(), descriptors.len()), ("BARRIER=1\n", 1));
        });
        let another = told(stored(other));
        given_up.join().unwrap();
        another
    });
    drop(listener);
    // The worker of the second process may still be ending.
    wait_until("nobody listens there", || TcpStream::connect(source).is_err());
    drop(connect(another.keeper.address));
    assert_eq!(another.keeper.address, other);
}

/// No process would accept connections there any more.
#[test]
fn what_was_kept_is_given_up_for_a_unix_socket() {
    let folder = Folder::new();
    let store = Store::new(&folder);
    let key = folder.shared_key();
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = folder.path("source");
    let source = path.to_str().unwrap();
    let arguments =
        ["--handover", "-d", "-s", source, "-t", "127.0.0.1:1", "-k", key.to_str().unwrap()];
    let mut command = activated_as("listener", &[kept.as_fd()], &arguments);
    command.env("NOTIFY_SOCKET", &store.path);
    let daemon = Kept::of(Daemon::spawn(command));
    daemon.keeper.log.wait_for(&format!("receiver listening on {source} "));
    assert_eq!(store.next().0, "FDSTOREREMOVE=1\nFDNAME=listener\n");
    let at = kept.local_addr().unwrap();
    drop(kept);
    // The message that has it may still be in the socket.
    wait_until("nobody listens there", || TcpStream::connect(at).is_err());
}

/// The sockets of a socket unit take precedence over kept ones.
#[test]
fn what_was_kept_is_given_up_for_a_socket_unit() {
    let folder = Folder::new();
    let store = Store::new(&folder);
    let key = folder.shared_key();
    let of_unit = TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let names = "spiped-receive@x.socket:listener";
    let arguments = ["--handover", "-d", "-t", "127.0.0.1:1", "-k", key.to_str().unwrap()];
    let mut command = activated_as(names, &[of_unit.as_fd(), kept.as_fd()], &arguments);
    command.env("NOTIFY_SOCKET", &store.path);
    let daemon = Kept::of(Daemon::spawn(command));
    assert_eq!(daemon.keeper.address, of_unit.local_addr().unwrap());
    assert_eq!(store.next().0, "FDSTOREREMOVE=1\nFDNAME=listener\n");
    assert_eq!(store.next().0, "READY=1\n");
    let at = kept.local_addr().unwrap();
    drop(kept);
    // The message that has it may still be in the socket.
    wait_until("nobody listens there", || TcpStream::connect(at).is_err());
}
