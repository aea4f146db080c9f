//! Clients that are slow, hostile or gone cost the pipe nothing.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{get, status_of};
use crate::support::{
    Daemon, EndWhenDropped, Folder, Server, connect, noise, round_trip, wait_until,
};

/// Runs `attack` on the status of a receiver while round trips go through it.
fn beside_round_trips(attack: impl FnOnce(SocketAddr)) {
    let (folder, target) = (Folder::new(), Server::echo());
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, target.address, &["--status", "127.0.0.1:0"]);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let (at, over) = (status_of(&receiver), AtomicBool::new(false));
    thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let (mut held, mut count) = (sender.connect(), 0_u64);
            while !over.load(Ordering::Relaxed) || count < 200 {
                round_trip(&mut held, &noise(count, 1000));
                round_trip(&mut sender.connect(), &noise(count, 10));
                count += 1;
            }
        });
        let end = EndWhenDropped(&over);
        attack(at);
        drop(end);
        pings.join().unwrap();
    });
    assert_eq!(get(at, "/readyz").code, 200);
    assert!(get(at, "/metrics").body.contains("\nspiped_connections_opened_total"));
    wait_until("its descriptors are closed", || receiver.descriptors() < 40);
}

#[test]
fn a_hundred_clients_that_do_not_read_keep_nobody_out() {
    beside_round_trips(|at| {
        let request = "GET /status?connections HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let slow: Vec<_> = (0..100)
            .map(|number| {
                let mut stream = connect(at);
                // Some have sent nothing, some a part of a request, some a whole one.
                let _closed = stream.write_all(&request.as_bytes()[..number % (request.len() + 1)]);
                stream
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(get(at, "/livez").code, 200);
        }
        drop(slow);
    });
}

#[test]
fn a_request_of_10_mb_and_floods_of_headers_are_cut() {
    beside_round_trips(|at| {
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let mut stream = connect(at);
                    let head = match number % 3 {
                        0 => "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n",
                        1 => "GET /status HTTP/1.1\r\n",
                        _ => "GET /",
                    };
                    let line = b"x-header: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
                    stream.write_all(head.as_bytes()).unwrap();
                    // The server has had enough before that.
                    let mut left = 10_000_000 / line.len();
                    while left > 0 && stream.write_all(line).is_ok() {
                        left -= 1;
                    }
                    let mut answer = Vec::new();
                    let _reset = stream.read_to_end(&mut answer);
                    let answer = String::from_utf8_lossy(&answer);
                    let codes = [" 403 ", " 405 ", " 431 ", " 400 ", " 414 "];
                    let is_refused = codes.iter().any(|code| answer[..].contains(code));
                    assert!(answer.is_empty() || is_refused, "{answer}");
                });
            }
        });
    });
}

#[test]
fn a_client_that_takes_too_long_is_cut() {
    beside_round_trips(|at| {
        let mut slow = connect(at);
        slow.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n").unwrap();
        let mut answer = Vec::new();
        // One byte at a time gains nothing.
        loop {
            let written = slow.write_all(b"x");
            slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let read = slow.read_to_end(&mut answer);
            match (written, read) {
                (Ok(()), Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    });
}
