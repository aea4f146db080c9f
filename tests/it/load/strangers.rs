//! Thousands of peers without the key.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{knob, limited_with, raise_own_limit, talk};
use crate::support::{Daemon, EndWhenDropped, Folder, Pipe, Server, round_trip, wait_until};

/// An eighth of this many descriptors is for strangers.
const DESCRIPTORS: usize = 8192;
const PLACES: usize = DESCRIPTORS / 8;

#[test]
fn thousands_of_strangers_from_one_address_keep_nobody_waiting() {
    crowd(|_| Ipv4Addr::LOCALHOST);
}

#[test]
fn thousands_of_strangers_from_many_addresses_keep_nobody_waiting() {
    crowd(|number| Ipv4Addr::new(127, 0, 1, u8::try_from(number % 250 + 1).unwrap()));
}

fn crowd(from: fn(usize) -> Ipv4Addr) {
    let count = knob("TEST_STRANGERS", 5000);
    raise_own_limit(count + 1000);
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let receiver = limited_with(DESCRIPTORS, "-d", &key, target.address, &["-o", "600"]);
    let sender = Daemon::sender(&key, receiver.address, &["-o", "600"]);
    let pipe = Pipe { receiver, sender };
    round_trip(&mut pipe.connect(), b"warm");
    wait_until("that is over", || pipe.receiver.log.count("reason=finished") == 1);
    let (descriptors, memory) = (pipe.receiver.descriptors(), pipe.receiver.resident_kib());

    let (strangers, waits) = come_while_a_client_asks(&pipe, count, from);
    let wait = waits.iter().max().unwrap();
    let (crowded, most) = (pipe.receiver.descriptors(), pipe.receiver.resident_kib());
    println!(
        "{count} strangers: of {} keyed peers the slowest waited {wait:?}; \
         {descriptors} to {crowded} descriptors, {memory} to {most} KiB",
        waits.len()
    );
    assert!(*wait < Duration::from_secs(1), "{wait:?}");
    assert!(crowded < descriptors + PLACES + 20, "{crowded} descriptors");
    assert!(most < 60 * 1024, "{most} KiB");
    assert_eq!(target.accepted(), waits.len() + 1, "a stranger reached the target");

    drop(strangers);
    wait_until("all is given back", || pipe.receiver.descriptors() == descriptors);
    println!("afterwards {} KiB", pipe.receiver.resident_kib());
}

/// The source address of an attacker; all others are on 127.0.0.1.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// One address has more silent peers than slots. The surplus is parked; while these peers
/// wait, and before any slot is taken away, other peers are served.
#[test]
fn peers_beyond_the_quota_of_their_address_keep_no_other_waiting() {
    raise_own_limit(2000);
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    // 128 descriptors for strangers give 112 slots, 56 of them for one address.
    let receiver = limited_with(1024, "-d", &key, target.address, &["-o", "60"]);
    let pipe = Pipe { sender: Daemon::sender(&key, receiver.address, &[]), receiver };
    round_trip(&mut pipe.connect(), b"warm");

    let mut waits = Vec::new();
    let mut undisturbed = 0;
    for _ in 0..10 {
        let strangers: Vec<_> =
            (0..200).map(|_| stranger(ATTACKER, pipe.receiver.address, 0)).collect();
        let started = Instant::now();
        round_trip(&mut pipe.connect(), b"let me in");
        waits.push(started.elapsed());
        // All peers are still there: none was evicted, and none was turned away.
        if strangers.iter().all(is_open) {
            undisturbed += 1;
        }
        assert!(pipe.receiver.descriptors() >= 200, "they are not all accepted");
        drop(strangers);
        wait_until("they are gone", || pipe.receiver.descriptors() < 60);
    }
    waits.sort();
    println!("beside 200 strangers of one address others waited {waits:?}");
    // A machine that is busy elsewhere may need longer than a moment, but not always.
    assert!(undisturbed > 0, "others waited until strangers had to go: {waits:?}");
    assert_eq!(pipe.receiver.log.count("reason=no-slot"), 0);
}

/// A flood of connections from one address takes no descriptors that connections need.
#[test]
fn parked_peers_give_way_to_connections() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let receiver = limited_with(256, "-d", &key, target.address, &["-o", "60"]);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let line = receiver.log.wait_for("listening on");
    let count: usize = line.split("connections=").nth(1).unwrap().parse().unwrap();
    let is_over = AtomicBool::new(false);
    let mut most = 0;
    thread::scope(|scope| {
        let _end = EndWhenDropped(&is_over);
        scope.spawn(|| {
            let mut strangers = VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                strangers.push_back(stranger(ATTACKER, receiver.address, 0));
                if strangers.len() > 400 {
                    strangers.pop_front();
                }
            }
        });
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = sender.connect();
            round_trip(&mut client, b"let me in");
            clients.push(client);
            most = most.max(receiver.descriptors());
        }
        talk(&mut clients, b"still");
    });
    println!("{count} connections beside a flood: at most {most} descriptors");
    assert_eq!(target.accepted(), count);
    assert_eq!(receiver.log.count("cannot accept") + receiver.log.count("cannot be reached"), 0);
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Strangers connect as fast as they can, and stay; a client connects all the time, and
/// once after the last stranger. Returns how long the client waited each time.
fn come_while_a_client_asks(
    pipe: &Pipe,
    count: usize,
    from: fn(usize) -> Ipv4Addr,
) -> (Vec<TcpStream>, Vec<Duration>) {
    const CROWD: usize = 2;
    let strangers = Mutex::new(Vec::new());
    let are_all_there = AtomicBool::new(false);
    let mut waits = Vec::new();
    thread::scope(|scope| {
        let (strangers, are_all_there) = (&strangers, &are_all_there);
        let address = pipe.receiver.address;
        let crowd: Vec<_> = (0..CROWD)
            .map(|first| {
                scope.spawn(move || {
                    for number in (first..count).step_by(CROWD) {
                        let stranger = stranger(from(number), address, number);
                        strangers.lock().unwrap().push(stranger);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            for one in crowd {
                one.join().unwrap();
            }
            are_all_there.store(true, Ordering::Release);
        });
        loop {
            let is_last = are_all_there.load(Ordering::Acquire);
            let started = Instant::now();
            round_trip(&mut pipe.connect(), b"let me in");
            waits.push(started.elapsed());
            if is_last {
                break;
            }
        }
    });
    (strangers.into_inner().unwrap(), waits)
}

/// A stranger that sends nothing, half a message, or a whole message without the key.
fn stranger(from: Ipv4Addr, to: SocketAddr, number: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    // A stranger that is turned away at once may see the reset already here.
    if let Err(error) = socket.connect(&to.into()) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let mut stream = TcpStream::from(socket);
    let said = [0, 20, 0, 57][number % 4];
    // The connection may have been closed already.
    let _said = stream.write_all(&[2; 57][..said]);
    stream
}
