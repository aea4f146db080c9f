//! A thousand clients at the same instant.

use std::io::{Read, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::{knob, limited, raise_own_limit};
use crate::support::{Folder, Pipe, Server};

/// The number of threads that connect.
const CROWD: usize = 20;

#[test]
fn a_thousand_connections_at_once_are_served() {
    let folder = Folder::new();
    let server = Server::echo();
    storm(&Pipe::to(&folder, server.address));
}

/// To the receiver, all clients come from one address, and they are more than the slots
/// for peers that have not proved the key (150): they must not take slots from each
/// other.
#[test]
fn a_storm_larger_than_the_slots_for_strangers_is_served() {
    let folder = Folder::new();
    let server = Server::echo();
    let key = folder.shared_key();
    let receiver = limited(2400, "-d", &key, server.address);
    let sender = limited(2400, "-e", &key, receiver.address);
    storm(&Pipe { receiver, sender });
}

fn storm(pipe: &Pipe) {
    let each = knob("TEST_STORM", 1000).div_ceil(CROWD);
    let all = each * CROWD;
    raise_own_limit(4 * all);
    let start = Barrier::new(CROWD + 1);
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let started = Instant::now();
                    serve_each(pipe, each);
                    started.elapsed()
                })
            })
            .collect();
        start.wait();
        slowest = crowd.into_iter().map(|one| one.join().unwrap()).max().unwrap();
    });
    println!("{all} connections at the same instant: the last was served after {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert_eq!(pipe.sender.log.count("warn") + pipe.receiver.log.count("warn"), 0);
}

/// Makes this many connections, all open at once; each gets its own number back.
fn serve_each(pipe: &Pipe, count: usize) {
    let mut clients: Vec<_> = (0..count).map(|_| pipe.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&number.to_be_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut back = number.wrapping_add(1).to_be_bytes();
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, number.to_be_bytes());
    }
}
