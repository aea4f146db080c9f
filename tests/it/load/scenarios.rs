//! Events in the long life of a pipe.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{is_reset, knob};
use crate::support::{Folder, Pipe, Server, noise, round_trip, wait_until};

const MIB: usize = 1024 * 1024;

/// A target that comes and goes 100 times.
#[test]
fn a_target_that_comes_and_goes_is_served_while_it_is_there() {
    let folder = Folder::new();
    let path = folder.path("target.socket");
    let pipe = Pipe::to(&folder, path.display());
    let held = || [pipe.sender.descriptors(), pipe.receiver.descriptors()];
    let idle = held();
    for _ in 0..100 {
        let target = listen_again(&path);
        let serving = thread::spawn(move || {
            let (mut stream, _) = target.accept().unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        round_trip(&mut pipe.connect(), b"there");
        serving.join().unwrap();
        // The socket's file still exists: a connect is refused.
        assert!(is_reset(pipe.sender.address));
        wait_until("descriptors are given back", || held() == idle);
    }
    // The log has at most 20 lines a second about it.
    assert!((20..=100).contains(&pipe.receiver.log.count("reason=target-refused")));
}

fn listen_again(path: &Path) -> UnixListener {
    let _not_yet_there = std::fs::remove_file(path);
    UnixListener::bind(path).unwrap()
}

/// Both directions move bytes at once, and neither waits for the other.
#[test]
fn twenty_connections_in_both_directions_at_once() {
    let folder = Folder::new();
    let server = Server::start(|stream| {
        let seed = stream.peer_addr().unwrap().port();
        let mut writing = stream.try_clone().unwrap();
        let writer = thread::spawn(move || writing.write_all(&noise(seed.into(), MIB)).unwrap());
        let mut came = vec![0; MIB];
        (&stream).read_exact(&mut came).unwrap();
        writer.join().unwrap();
        // The client's seed and the bytes that came are the proof.
        (&stream).write_all(&seed.to_be_bytes()).unwrap();
        (&stream).write_all(&came).unwrap();
    });
    let pipe = Pipe::to(&folder, server.address);
    thread::scope(|scope| {
        for number in 0..20 {
            let pipe = &pipe;
            scope.spawn(move || {
                let client = pipe.connect();
                let sent = noise(1_000_000 + number, MIB);
                let mut got = vec![0; MIB];
                let (mut seed, mut proof) = ([0; 2], vec![0; MIB]);
                thread::scope(|scope| {
                    scope.spawn(|| (&client).write_all(&sent).unwrap());
                    (&client).read_exact(&mut got).unwrap();
                });
                (&client).read_exact(&mut seed).unwrap();
                (&client).read_exact(&mut proof).unwrap();
                assert!(got == noise(u16::from_be_bytes(seed).into(), MIB), "to the client");
                assert!(proof == sent, "to the target");
            });
        }
    });
}

/// Fifty clients write without end, and nobody reads: the clients have to wait, and
/// neither end keeps more of their bytes than its buffers hold.
#[test]
fn fifty_streams_that_nobody_reads_do_not_grow_memory() {
    const CLIENTS: usize = 50;
    let folder = Folder::new();
    let server = Server::start(|stream| {
        thread::sleep(Duration::from_mins(10));
        drop(stream);
    });
    let pipe = Pipe::to(&folder, server.address);
    let sent = AtomicUsize::new(0);
    let clients: Vec<_> = (0..CLIENTS).map(|_| pipe.connect()).collect();
    thread::scope(|scope| {
        for mut client in &clients {
            let sent = &sent;
            scope.spawn(move || {
                client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                while let Ok(count) = client.write(&[0; 16_000]) {
                    sent.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
    });
    let memory = [pipe.sender.resident_kib(), pipe.receiver.resident_kib()];
    println!(
        "{CLIENTS} streams that nobody reads: {} MiB went in, sender and receiver have {memory:?} KiB",
        sent.load(Ordering::Relaxed) / MIB
    );
    assert!(memory.iter().all(|kib| *kib < 60 * 1024), "{memory:?}");
    // The pipe still serves others, so the clients wait for their reader only.
    assert!(pipe.sender.log.count("warn") + pipe.receiver.log.count("warn") == 0);
}

/// A connection may be silent for longer than any time limit.
#[test]
fn an_idle_connection_is_left_alone() {
    let folder = Folder::new();
    let server = Server::echo();
    let pipe = Pipe::with(&folder, server.address, &["-o", "0.3", "--drain-timeout", "0.3"]);
    let mut client = pipe.connect();
    round_trip(&mut client, b"before");
    thread::sleep(Duration::from_secs(knob("TEST_IDLE", 2).try_into().unwrap()));
    round_trip(&mut client, b"after");
    assert_eq!(pipe.sender.log.count("closed") + pipe.receiver.log.count("closed"), 0);
}
