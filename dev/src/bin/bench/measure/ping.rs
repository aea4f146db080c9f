//! 64 bytes there and back again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, Values, accept, connect, listen, percentile};
use crate::Result;
use crate::pattern::Place;
use crate::peers::Peer;

const SIZE: usize = 64;
/// Exchanges before the measurement starts.
const WARM_UP: usize = 200;
/// The pause between exchanges of sparse traffic.
const PAUSE: Duration = Duration::from_millis(5);

/// One exchange after the other.
pub fn continuous(load: &Load, peer: &Peer) -> Result<Values> {
    let mut times = continuous_times(load, peer)?;
    let mut microseconds = |part| percentile(&mut times, part).as_secs_f64() * 1e6;
    Ok(vec![("ping/p50", microseconds(0.5)), ("ping/p99", microseconds(0.99))])
}

/// The time of each exchange.
pub(super) fn continuous_times(load: &Load, peer: &Peer) -> Result<Vec<Duration>> {
    Ok(run(load, peer, Duration::ZERO)?.0)
}

/// One exchange every few milliseconds.
pub fn sparse(load: &Load, peer: &Peer) -> Result<Values> {
    let (mut times, cpu) = run(load, peer, PAUSE)?;
    Ok(vec![
        ("sparse/cpu", cpu.as_secs_f64() * 1e6 / times.len() as f64),
        ("sparse/p50", percentile(&mut times, 0.5).as_secs_f64() * 1e6),
    ])
}

fn run(load: &Load, peer: &Peer, pause: Duration) -> Result<(Vec<Duration>, Duration)> {
    let listener = listen()?;
    let tunnel = peer.start(&load.folder, listener.local_addr()?)?;
    // The thread ends with the connection, however the connection ends.
    thread::spawn(move || echo(accept(&listener)?));
    let mut stream = connect(&tunnel)?;
    let mut place = Place::start(0);
    for _ in 0..WARM_UP {
        exchange(&mut stream, &mut place)?;
    }
    let (before, started) = (tunnel.cpu()?, Instant::now());
    let mut times = Vec::new();
    while started.elapsed() < load.time {
        thread::sleep(pause);
        times.push(exchange(&mut stream, &mut place)?);
    }
    Ok((times, tunnel.cpu_since(before)?))
}

pub(super) fn exchange(stream: &mut TcpStream, place: &mut Place) -> Result<Duration> {
    let started = Instant::now();
    stream.write_all(place.next().get(..SIZE).unwrap_or_default())?;
    let mut back = [0; SIZE];
    stream.read_exact(&mut back)?;
    let time = started.elapsed();
    place.check(&back)?;
    Ok(time)
}

/// Sends everything back until the connection ends.
pub(super) fn echo(mut stream: TcpStream) -> Result<()> {
    let mut bytes = [0; SIZE];
    loop {
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)?;
    }
}
