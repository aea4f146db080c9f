//! Connections leave nothing behind, in whichever order they end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use super::{knob, raise_own_limit, threads};
use crate::support::{Daemon, End, Folder, Pipe, Server, read_to_end, reset, wait_until};

/// The number of clients at once.
const CROWD: usize = 8;
/// The difference of memory that the allocator itself may cause.
const SLACK_KIB: u64 = 6 * 1024;

/// How a connection ends.
const ENDINGS: [fn(&Pipe); 9] = [
    client_first,
    target_first,
    reset_by_client,
    reset_by_target,
    half_closed_then_reset,
    end_and_reset_at_once,
    reset_before_the_handshake_is_over,
    cut_in_the_first_message,
    silent_stranger,
];

#[test]
fn nothing_is_left_of_connections_however_they_end() {
    let count = knob("TEST_CONNECTIONS", 10_000);
    raise_own_limit(2000);
    let folder = Folder::new();
    let server = Server::start(serve);
    let more = ["--threads", "2", "--drain-timeout", "60"];
    let mut pipe = Pipe::with(&folder, server.address, &more);
    let idle = holdings(&pipe).map(|(descriptors, _)| descriptors);
    let is_idle = |pipe: &Pipe| holdings(pipe).map(|(descriptors, _)| descriptors) == idle;

    end_many(&pipe, count / 10);
    wait_until("descriptors are given back", || is_idle(&pipe));
    let before = holdings(&pipe);
    let threads_before = [threads(&pipe.sender), threads(&pipe.receiver)];
    let started = Instant::now();
    end_many(&pipe, count);
    wait_until("descriptors are given back", || is_idle(&pipe));
    let after = holdings(&pipe);
    println!(
        "{count} connections in {:?}: sender and receiver (descriptors, KiB) {before:?} to {after:?}",
        started.elapsed()
    );
    for (before, after) in before.iter().zip(after) {
        assert!(after.1 < before.1 + SLACK_KIB, "{} to {} KiB", before.1, after.1);
    }
    assert_eq!([threads(&pipe.sender), threads(&pipe.receiver)], threads_before);
    // With a leaked task, the process would wait for the whole drain timeout.
    for end in [&mut pipe.sender, &mut pipe.receiver] {
        end.signal("TERM");
        assert!(end.wait().success());
    }
}

/// Descriptors and KiB of memory of the sender and of the receiver.
fn holdings(pipe: &Pipe) -> [(usize, u64); 2] {
    [&pipe.sender, &pipe.receiver].map(|end: &Daemon| (end.descriptors(), end.resident_kib()))
}

fn end_many(pipe: &Pipe, count: usize) {
    thread::scope(|scope| {
        for first in 0..CROWD {
            scope.spawn(move || {
                for number in (first..count).step_by(CROWD) {
                    ENDINGS[number % ENDINGS.len()](pipe);
                }
            });
        }
    });
}

/// The target: the first byte tells it how to end the connection.
fn serve(mut stream: TcpStream) {
    let mut wish = [0];
    match stream.read(&mut wish) {
        Ok(1) => {}
        // The client left before it sent a byte.
        _ => return,
    }
    match &wish {
        b"c" => {
            let _told = stream.write_all(b"c");
            // Read until the client ends the connection in any way.
            while matches!(stream.read(&mut [0; 100]), Ok(1..)) {}
        }
        b"t" => {
            let _told = stream.write_all(b"bye");
        }
        _ => reset(stream),
    }
}

/// A connection whose target ends as `wish` says.
fn asking(pipe: &Pipe, wish: &[u8]) -> TcpStream {
    let mut client = pipe.connect();
    client.write_all(wish).unwrap();
    client
}

fn established(pipe: &Pipe) -> TcpStream {
    let mut client = asking(pipe, b"c");
    client.read_exact(&mut [0]).unwrap();
    client
}

fn client_first(pipe: &Pipe) {
    let mut client = established(pipe);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).1, End::Clean);
}

fn target_first(pipe: &Pipe) {
    assert_eq!(read_to_end(&mut asking(pipe, b"t")), (b"bye".to_vec(), End::Clean));
}

fn reset_by_client(pipe: &Pipe) {
    reset(established(pipe));
}

fn reset_by_target(pipe: &Pipe) {
    assert_eq!(read_to_end(&mut asking(pipe, b"r")).1, End::Reset);
}

fn half_closed_then_reset(pipe: &Pipe) {
    let mut client = established(pipe);
    client.shutdown(Shutdown::Write).unwrap();
    client.set_nonblocking(true).unwrap();
    let _nothing_yet = client.read(&mut [0]);
    thread::yield_now();
    reset(client);
}

/// Ends and resets before the other end has received anything.
fn end_and_reset_at_once(pipe: &Pipe) {
    let client = asking(pipe, b"c");
    client.shutdown(Shutdown::Write).unwrap();
    reset(client);
}

fn reset_before_the_handshake_is_over(pipe: &Pipe) {
    reset(pipe.connect());
}

fn cut_in_the_first_message(pipe: &Pipe) {
    let mut stranger = pipe.receiver.connect();
    stranger.write_all(&[2; 20]).unwrap();
    reset(stranger);
}

fn silent_stranger(pipe: &Pipe) {
    drop(pipe.receiver.connect());
}
