//! A lack of descriptors, and the limit of connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SysRng;
use spiped::protocol::{Extensions, Initiator, KEY_SECRETS, SharedKey};

use super::{is_reset, limited, limited_with, processor_time, raise_own_limit, talk, talkers};
use crate::support::net::{NOBODY, Resolver, ip, namespaces_can_be};
use crate::support::{Daemon, Folder, Pipe, SPIPED, SUITE, Server, need, patient, wait_until};

/// How long a starved end is watched.
const WATCHED: Duration = Duration::from_millis(1500);

#[test]
fn a_sender_without_a_free_descriptor_waits_and_goes_on() {
    starve(|pipe| &pipe.sender);
}

#[test]
fn a_receiver_without_a_free_descriptor_waits_and_goes_on() {
    starve(|pipe| &pipe.receiver);
}

/// Makes accept(2) fail for lack of a descriptor, by lowering the limit of the process
/// below what it holds.
fn starve(which: fn(&Pipe) -> &Daemon) {
    need("prlimit", "util-linux");
    let folder = Folder::new();
    let server = Server::echo();
    let mut pipe = Pipe::to(&folder, server.address);
    let mut clients = talkers(&pipe.sender, 20);
    let starved = which(&pipe);
    lower_limit(starved, starved.descriptors() - 10);

    let mut waiting = pipe.connect();
    waiting.write_all(b"waits").unwrap();
    starved.log.wait_for("cannot accept a connection");
    let (used, lines) = (processor_time(starved), starved.log.all().len());
    thread::sleep(WATCHED);
    let used = processor_time(starved).saturating_sub(used);
    let lines = starved.log.all().len() - lines;
    println!("starved for {WATCHED:?}: {used:?} of processor time, {lines} lines");
    assert!(used < WATCHED / 20, "{used:?}");
    assert!(lines <= 2, "{lines} lines");
    // Open connections do not notice.
    talk(&mut clients, b"still");

    let freed = Instant::now();
    // The first sockets have the lowest descriptors, and these are what the limit counts.
    clients.drain(..5);
    let mut back = [0; 5];
    waiting.read_exact(&mut back).unwrap();
    let took = freed.elapsed();
    println!("served {took:?} after there were descriptors again");
    assert!(&back == b"waits" && took < Duration::from_secs(1), "{took:?}");
    assert!(pipe.sender.is_running() && pipe.receiver.is_running());
}

fn lower_limit(daemon: &Daemon, descriptors: usize) {
    let limit = format!("--nofile={descriptors}:{descriptors}");
    let id = daemon.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
}

/// With more connections requested than descriptors allow, the end says so, serves as
/// many as it can, and never lacks a descriptor.
#[test]
fn a_limit_beyond_the_descriptors_is_cut_down() {
    let folder = Folder::new();
    let server = Server::echo();
    let key = folder.shared_key();
    let more = ["-n", "1000"];
    let receiver = limited_with(64, "-d", &key, server.address, &more);
    let sender = limited_with(64, "-e", &key, receiver.address, &more);
    receiver.log.wait_for("64 file descriptors allow 10 connections, not the 1000 of -n");
    sender.log.wait_for("64 file descriptors allow 14 connections, not the 1000 of -n");
    let mut clients = talkers(&sender, 10);
    for _ in 0..20 {
        assert!(is_reset(sender.address), "more are served than there is room for");
    }
    talk(&mut clients, b"still");
    assert_eq!(sender.log.count("cannot accept") + receiver.log.count("cannot accept"), 0);
}

/// However few descriptors there are, the end serves, or prints the reason and ends with
/// the right exit code.
#[test]
fn a_start_without_enough_descriptors_says_so() {
    let folder = Folder::new();
    let server = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut starts = 0;
    for limit in (4..12).chain((12..64).step_by(4)) {
        let start = |program: &str, more: &[&str]| {
            let mut command = Command::new("sh");
            let script = format!("ulimit -n {limit}; exec \"$@\"");
            command.args(["-c", &script, "sh", program]).args(more);
            let target = receiver.address.to_string();
            command.args(["-t", &target, "-k"]).arg(folder.shared_key());
            command
        };
        let spipe = folder.spipe();
        let mut spipe = start(spipe.to_str().unwrap(), &[]);
        let output = spipe.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!([Some(0), Some(66), Some(71)].contains(&output.status.code()), "{limit}: {said}");
        assert!(!said.contains("panic"), "{limit}: {said}");

        let options = ["-F", "-e", "-s", "127.0.0.1:0", "--threads", "2"];
        let mut daemon = Daemon::launch(start(SPIPED, &options));
        wait_until("it serves or has ended", || {
            daemon.log.count(" listening on ") > 0 || !daemon.is_running()
        });
        if daemon.is_running() {
            starts += 1;
            daemon.wait_until_listening();
            crate::support::round_trip(&mut daemon.connect(), b"served");
        } else {
            assert!([Some(66), Some(71)].contains(&daemon.wait().code()), "{limit}");
            daemon.log.wait_for("hint: ");
            assert_eq!(daemon.log.count("panic"), 0, "{limit}");
            assert_eq!(starts, 0, "fewer were enough");
        }
    }
    assert!(starts > 0);
}

#[test]
fn beyond_the_limit_a_sender_refuses_at_once_and_counts() {
    beyond_the_limit("-e", "the connection limit of 5 is reached");
}

#[test]
fn beyond_the_limit_a_receiver_refuses_at_once_and_counts() {
    beyond_the_limit("-d", "the connection limit of 5 is reached");
}

fn beyond_the_limit(role: &str, reason: &str) {
    raise_own_limit(1000);
    let folder = Folder::new();
    let server = Server::echo();
    let key = folder.shared_key();
    let more = |of: &str| if of == role { &["-n", "5"][..] } else { &[] };
    let receiver = Daemon::receiver(&key, server.address, more("-d"));
    let sender = Daemon::sender(&key, receiver.address, more("-e"));
    let at_limit = if role == "-e" { &sender } else { &receiver };
    let mut clients = talkers(&sender, 5);

    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let refused = Instant::now();
        assert!(is_reset(sender.address));
        slowest = slowest.max(refused.elapsed());
    }
    let lines = at_limit.log.count(reason);
    println!("{role}: 300 refused, the slowest after {slowest:?}; {lines} lines");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(lines <= 2 + usize::try_from(started.elapsed().as_secs()).unwrap(), "{lines} lines");
    wait_until("a line counts the others", || {
        is_reset(sender.address) && at_limit.log.count("suppressed=") > 0
    });
    assert_eq!(server.accepted(), 5);
    drop(clients.pop());
    wait_until("there is room for one again", || is_served(&sender));
    talk(&mut clients, b"still");
}

fn is_served(sender: &Daemon) -> bool {
    let mut client = patient(TcpStream::connect(sender.address).unwrap());
    let mut back = [0; 5];
    client.write_all(b"again").is_ok() && client.read_exact(&mut back).is_ok()
}

/// Peers that hold the key connect at the connection limit, and stay although they have
/// been told: they take no descriptors that belong to others.
#[test]
fn refused_key_holders_stay_within_the_descriptors() {
    const DESCRIPTORS: usize = 256;
    let folder = Folder::new();
    let server = Server::echo();
    let key = folder.shared_key();
    let receiver = limited(DESCRIPTORS, "-d", &key, server.address);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let line = receiver.log.wait_for("listening on");
    let count = line.split("connections=").nth(1).unwrap().parse().unwrap();
    let mut clients = talkers(&sender, count);
    let full = receiver.descriptors();

    let key = SharedKey::from_key_file(&std::fs::read(&key).unwrap(), Box::new([0; KEY_SECRETS]))
        .unwrap();
    let mut most = 0;
    let refused: Vec<_> = (0..60)
        .filter_map(|_| {
            let refused = key_holder(&receiver, &key);
            most = most.max(receiver.descriptors());
            refused
        })
        .collect();
    receiver.log.wait_for("reason=connection-limit");
    println!(
        "{count} connections: {full} descriptors; with {} that were refused at most {most}",
        refused.len()
    );
    assert!(most <= full + DESCRIPTORS / 8, "{most} descriptors");
    drop(clients.pop());
    wait_until("there is room for one again", || is_served(&sender));
    assert_eq!(receiver.log.count("reason=target-unreachable"), 0);
    assert_eq!(receiver.log.count("cannot accept"), 0);
    drop(refused);
}

/// A peer that has proved the key, and does not close whatever it is told; `None` if the
/// peer got no permit.
fn key_holder(receiver: &Daemon, key: &SharedKey) -> Option<TcpStream> {
    let mut stream = receiver.connect();
    let (initiator, message_1) = Initiator::start(SUITE, key, &mut SysRng).unwrap();
    let mut message_2 = vec![0; SUITE.message_2()];
    stream.write_all(&message_1).and_then(|()| stream.read_exact(&mut message_2)).ok()?;
    let mut session = initiator.finish(&message_2).unwrap();
    stream.write_all(&session.sealer.seal_open(Extensions::default()).unwrap()).ok()?;
    Some(stream)
}

/// A name with 20 addresses that do not answer: each address is tried, but never so many
/// at once that connections lack descriptors.
#[test]
fn connects_to_many_addresses_stay_within_the_descriptors() {
    const DESCRIPTORS: usize = 512;
    const CLIENTS: usize = 30;
    if !namespaces_can_be("connects to many addresses at once") {
        return;
    }
    Resolver::with(|resolver| {
        ip("link add void0 type veth peer name void1");
        ip("address add 192.0.2.1/24 dev void0");
        ip("link set void0 up");
        ip("link set void1 up");
        let silent: Vec<_> = (2..22).map(|last| format!("192.0.2.{last}")).collect();
        for address in &silent {
            ip(&format!("neighbour add {address} lladdr {NOBODY} nud permanent dev void0"));
        }
        resolver.say(&silent.iter().map(String::as_str).collect::<Vec<_>>());
        resolver.start();
        let key = resolver.folder.shared_key();
        let sender = limited_with(DESCRIPTORS, "-e", &key, "target.test:6379", &["-o", "4"]);
        sender.log.wait_for("the name target.test resolves");
        let idle = sender.descriptors();
        let clients: Vec<_> = (0..CLIENTS).map(|_| sender.connect()).collect();
        let mut most = 0;
        wait_until("they are given up", || {
            most = most.max(sender.descriptors());
            sender.log.count("reason=receiver-timeout") > 0
        });
        println!("{CLIENTS} connects to 20 silent addresses: {idle} to {most} descriptors");
        assert!(most > idle + 2 * CLIENTS, "one address after the other");
        assert!(most <= idle + 2 * CLIENTS + DESCRIPTORS / 32, "{most} descriptors");
        drop(clients);
        wait_until("all are given back", || sender.descriptors() == idle);
    });
}

/// The kernel refuses every accept for reasons of its own, as in a sandbox: the end logs
/// that, and does not spin.
#[test]
fn a_forbidden_accept_is_logged_and_retried_slowly() {
    let folder = Folder::new();
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:9", "-k"]);
    command.arg(folder.shared_key());
    forbid_accept(&mut command);
    let mut receiver = Daemon::spawn(command);
    let _waiting = receiver.connect();
    let line = receiver.log.wait_for("cannot accept a connection: Operation not permitted");
    assert!(line.contains("warn") && line.contains("hint="), "{line}");
    let used = processor_time(&receiver);
    thread::sleep(WATCHED);
    let used = processor_time(&receiver).saturating_sub(used);
    println!("{used:?} of processor time in {WATCHED:?}");
    assert!(used < WATCHED / 20, "{used:?}");
    assert_eq!(receiver.log.count("cannot accept"), 1);
    receiver.signal("TERM");
    assert!(receiver.wait().success());
}

/// Makes accept4(2) fail with EPERM in a process, by a filter of seccomp(2).
fn forbid_accept(command: &mut Command) {
    use nix::libc;
    use std::os::unix::process::CommandExt;

    let of = |code: u32, jump_true: u8, jump_false: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let accept = u32::try_from(libc::SYS_accept4).unwrap();
    let forbidden = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    // The filter first sees the number of the system call.
    let mut filter = [
        of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        of(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, accept),
        of(libc::BPF_RET | libc::BPF_K, 0, 0, forbidden),
        of(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        nix::sys::prctl::set_no_new_privs()?;
        #[expect(unsafe_code, reason = "neither std nor nix has seccomp")]
        // SAFETY: the program and its filter live until the call has copied them.
        let done = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        nix::errno::Errno::result(done)?;
        Ok(())
    };
    #[expect(unsafe_code, reason = "what is set between fork and exec")]
    // SAFETY: it makes two system calls, and allocates nothing.
    unsafe {
        command.pre_exec(install)
    };
}
