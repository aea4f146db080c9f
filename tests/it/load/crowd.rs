//! A small request, and a new connection, beside many flows that move bytes at full
//! speed, all on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{knob, raise_own_limit};
use crate::support::{Folder, Pipe, Server, round_trip, wait_until};

const BULK: &[u8] = b"bulk";
const PING: &[u8] = b"ping";

#[test]
fn small_requests_do_not_wait_for_all_large_flows() {
    let flows = knob("TEST_FLOWS", 200);
    raise_own_limit(flows * 4 + 200);
    let folder = Folder::new();
    let (received, receive) = channel();
    let received = Mutex::new(received);
    let server = Server::start(move |mut stream| {
        let mut word = [0; 4];
        while stream.read_exact(&mut word).is_ok() {
            stream.write_all(&word).unwrap();
            if word == BULK {
                return received.lock().unwrap().send(stream).unwrap();
            }
        }
    });
    let pipe = Pipe::with(&folder, server.address, &["--threads", "1"]);
    let bytes = Arc::<Mutex<usize>>::default();
    let counted = Arc::clone(&bytes);
    let mut buffer = vec![0; 256 * 1024];
    // All flows share one thread of the test, so that few threads compete for the
    // processor.
    thread::spawn(move || {
        each_in_turn(&receive, |mut stream| {
            let read = stream.read(&mut buffer);
            *counted.lock().unwrap() += *read.as_ref().unwrap_or(&0);
            read
        });
    });
    let clients: Vec<_> = (0..flows)
        .map(|_| {
            let mut client = pipe.connect();
            round_trip(&mut client, BULK);
            client
        })
        .collect();
    let (given, give) = channel();
    for client in clients {
        given.send(client).unwrap();
    }
    let chunk = vec![7; 256 * 1024];
    thread::spawn(move || each_in_turn(&give, |mut stream| stream.write(&chunk)));
    wait_until("bytes move", || *bytes.lock().unwrap() > flows * 256 * 1024);

    let mut pings = vec![];
    let mut connections = vec![];
    for _ in 0..11 {
        let started = Instant::now();
        let mut client = pipe.connect();
        round_trip(&mut client, PING);
        connections.push(started.elapsed());
        let started = Instant::now();
        round_trip(&mut client, PING);
        pings.push(started.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (ping, connection) = (median(&mut pings), median(&mut connections));
    println!("beside {flows} flows: a ping {ping:?}, a new connection {connection:?}");
    // The limit allows for a busy machine and a debug build; `scripts/bench --only crowd`
    // measures.
    assert!(ping < Duration::from_millis(250), "{ping:?}");
    assert!(connection < Duration::from_millis(500), "{connection:?}");
}

/// Calls `work` on each of the streams, again and again, until one call fails.
fn each_in_turn(
    streams: &Receiver<TcpStream>,
    mut work: impl FnMut(&TcpStream) -> std::io::Result<usize>,
) {
    let mut all = vec![];
    loop {
        for stream in streams.try_iter() {
            stream.set_nonblocking(true).unwrap();
            all.push(stream);
        }
        let mut is_idle = true;
        for stream in &all {
            match work(stream) {
                Ok(_) => is_idle = false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_the_pipe_is_gone) => return,
            }
        }
        if is_idle {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
