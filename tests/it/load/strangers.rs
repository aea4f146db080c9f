//! Thousands of peers without the key.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{knob, limited_with, raise_own_limit};
use crate::support::{Daemon, Folder, Pipe, Server, round_trip, wait_until};

/// With as many descriptors, an eighth of them is for strangers.
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
    let count = knob("SPIPED_TEST_STRANGERS", 5000);
    raise_own_limit(count + 1000);
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let receiver = limited_with(DESCRIPTORS, "-d", &key, target.address, &["-o", "600"]);
    let sender = Daemon::sender(&key, receiver.address, &["-o", "600"]);
    let pipe = Pipe { receiver, sender };
    round_trip(&mut pipe.connect(), b"warm");
    wait_until("that is over", || pipe.receiver.log.count("INFO closed") == 1);
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

/// Strangers connect, as fast as they can, and stay; a client connects all
/// the time, and once after the last of them. How long it waited each time.
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

/// One that says nothing, or half a message, or a whole one without the key.
fn stranger(from: Ipv4Addr, to: SocketAddr, number: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let said = [0, 20, 0, 49][number % 4];
    // It may have been closed already.
    let _said = stream.write_all(&[2; 49][..said]);
    stream
}
