//! Connections that live for one byte there and back, 32 of them at once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, Values, accept, connect, listen, percentile};
use crate::Result;
use crate::peers::{Peer, Tunnel};

const AT_ONCE: usize = 32;
/// With more connections, ports would be needed again while they are still in `TIME_WAIT`.
const MOST: usize = 10_000;

pub fn run(load: &Load, peer: &Peer) -> Result<Values> {
    let listener = listen()?;
    let tunnel = peer.start(&load.folder, listener.local_addr()?)?;
    for _ in 0..AT_ONCE {
        let listener = listener.try_clone()?;
        // The thread ends when no more connections come.
        thread::spawn(move || while answer(&listener).is_ok() {});
    }
    one(&tunnel, 0)?;
    let before = tunnel.cpu()?;
    let mut times = clients(load, &tunnel)?;
    let cpu = tunnel.cpu_since(before)?;
    Ok(vec![
        ("short/cpu", cpu.as_secs_f64() * 1e3 / times.len() as f64),
        ("short/p50", percentile(&mut times, 0.5).as_secs_f64() * 1e3),
        ("short/p99", percentile(&mut times, 0.99).as_secs_f64() * 1e3),
    ])
}

/// The times to the first byte of all connections.
fn clients(load: &Load, tunnel: &Tunnel) -> Result<Vec<Duration>> {
    let (end, made) = (Instant::now() + load.time, AtomicUsize::new(0));
    let client = || {
        let mut times = Vec::new();
        while Instant::now() < end {
            let number = made.fetch_add(1, Ordering::Relaxed);
            if number >= MOST {
                break;
            }
            times.push(one(tunnel, number)?);
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(client)).collect();
        let times: Result<Vec<_>> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a client of the load panicked")?)
            .collect();
        Ok(times?.concat())
    })
}

fn one(tunnel: &Tunnel, number: usize) -> Result<Duration> {
    let started = Instant::now();
    let mut stream = connect(tunnel)?;
    let sent = [number.to_le_bytes()[0]];
    stream.write_all(&sent)?;
    let mut back = [0];
    stream.read_exact(&mut back)?;
    let time = started.elapsed();
    if back == sent { Ok(time) } else { Err("a byte came back changed".into()) }
}

fn answer(listener: &TcpListener) -> std::io::Result<()> {
    let mut stream = accept(listener)?;
    let mut byte = [0];
    // A client that gives up reports that itself.
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            break;
        }
    }
    Ok(())
}
