//! Bytes at full speed, verified as they arrive.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, Values, accept, connect, listen};
use crate::Result;
use crate::pattern::{CHUNK, Place};
use crate::peers::{Peer, Tunnel};

/// The streams of a run: `connections` from client to server, and as many back.
#[derive(Clone, Copy)]
struct Streams {
    connections: usize,
    ways: Ways,
    time: Duration,
    /// The bytes after which a stream ends, if its time is not up before: the bytes in
    /// the buffers of a thousand sockets have to arrive, too.
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    One,
    Both,
}

struct Moved {
    bytes: usize,
    time: Duration,
    cpu: Duration,
}

impl Moved {
    fn cpu_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / self.bytes as f64 * 1e9
    }

    fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }
}

pub fn one_and_four(load: &Load, peer: &Peer) -> Result<Values> {
    let one = run(load, peer, streams(load, 1))?;
    let four = run(load, peer, streams(load, 4))?;
    Ok(vec![
        ("bulk-1/cpu", one.cpu_per_gb()),
        ("bulk-1/speed", one.mb_per_second()),
        ("bulk-4/cpu", four.cpu_per_gb()),
        ("bulk-4/speed", four.mb_per_second()),
    ])
}

pub fn both_ways(load: &Load, peer: &Peer) -> Result<Values> {
    let moved = run(load, peer, Streams { ways: Ways::Both, ..streams(load, 1) })?;
    Ok(vec![("both-ways/cpu", moved.cpu_per_gb()), ("both-ways/speed", moved.mb_per_second())])
}

pub fn many(load: &Load, peer: &Peer) -> Result<Values> {
    // 1 MB each in the usual two seconds, which takes the slowest peer half a minute.
    let limit = (load.time.as_secs_f64() * 500_000.0) as usize;
    let moved = run(load, peer, Streams { limit, ..streams(load, load.connections) })?;
    Ok(vec![("many/cpu", moved.cpu_per_gb())])
}

pub fn threads(load: &Load, peer: &Peer) -> Result<Values> {
    let one = run(load, &peer.with(&["--threads", "1"]), streams(load, 4))?;
    let two = run(load, &peer.with(&["--threads", "2"]), streams(load, 4))?;
    Ok(vec![("threads-1/speed", one.mb_per_second()), ("threads-2/speed", two.mb_per_second())])
}

fn streams(load: &Load, connections: usize) -> Streams {
    Streams { connections, ways: Ways::One, time: load.time, limit: usize::MAX }
}

fn run(load: &Load, peer: &Peer, streams: Streams) -> Result<Moved> {
    let listener = listen()?;
    let tunnel = peer.start(&load.folder, listener.local_addr()?)?;
    let server = thread::spawn(move || serve(&listener, streams));
    let clients: Vec<TcpStream> =
        (0..streams.connections).map(|id| greet(&tunnel, id)).collect::<Result<_>>()?;
    let before = tunnel.cpu()?;
    let started = Instant::now();
    let back = each(&clients, |id, stream| client(stream, id, streams))?;
    // The connections are still open, so a process for each of them can still be asked.
    let (there, _servers) = join(server)?;
    let time = started.elapsed();
    Ok(Moved { bytes: back + there, time, cpu: tunnel.cpu_since(before)? })
}

/// Makes a connection through to the server, which learns its number.
pub(super) fn greet(tunnel: &Tunnel, id: usize) -> Result<TcpStream> {
    let mut stream = connect(tunnel)?;
    let hello = u64::try_from(id)?.to_le_bytes();
    stream.write_all(&hello)?;
    let mut back = [0; 8];
    stream.read_exact(&mut back)?;
    if back == hello { Ok(stream) } else { Err("the first bytes are not what was sent".into()) }
}

/// The server's part of the greeting.
pub(super) fn greeted(stream: &mut TcpStream) -> Result<usize> {
    let mut hello = [0; 8];
    stream.read_exact(&mut hello)?;
    stream.write_all(&hello)?;
    Ok(u64::from_le_bytes(hello).try_into()?)
}

/// Accepts all connections, and returns how many bytes arrived on them.
fn serve(listener: &TcpListener, streams: Streams) -> Result<(usize, Vec<TcpStream>)> {
    let mut connections = Vec::new();
    for _ in 0..streams.connections {
        let mut stream = accept(listener)?;
        greeted(&mut stream)?;
        connections.push(stream);
    }
    // Connections arrive in the order in which they were made.
    let bytes = each(&connections, |id, stream| server(stream, id, streams))?;
    Ok((bytes, connections))
}

fn client(stream: &TcpStream, id: usize, streams: Streams) -> Result<usize> {
    match streams.ways {
        Ways::One => send(stream, id, streams).map(|()| 0),
        Ways::Both => exchange(stream, id, streams),
    }
}

fn server(stream: &TcpStream, id: usize, streams: Streams) -> Result<usize> {
    match streams.ways {
        Ways::One => receive(stream, id, streams),
        Ways::Both => exchange(stream, id, streams),
    }
}

fn exchange(stream: &TcpStream, id: usize, streams: Streams) -> Result<usize> {
    thread::scope(|scope| {
        let sent = scope.spawn(|| send(stream, id, streams));
        let received = receive(stream, id, streams);
        sent.join().map_err(|_| "the sender of the load panicked")??;
        received
    })
}

fn send(mut stream: &TcpStream, id: usize, streams: Streams) -> Result<()> {
    let end = Instant::now() + streams.time;
    let mut place = Place::start(id);
    while place.position() < streams.limit && Instant::now() < end {
        let left = streams.limit - place.position();
        let next = place.next();
        let count = stream.write(next.get(..left).unwrap_or(next))?;
        place.advance(count);
    }
    Ok(stream.shutdown(Shutdown::Write)?)
}

fn receive(mut stream: &TcpStream, id: usize, streams: Streams) -> Result<usize> {
    let size = if streams.connections > 16 { CHUNK / 8 } else { CHUNK };
    let mut buffer = vec![0; size];
    let mut place = Place::start(id);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(place.position());
        }
        place.check(buffer.get(..count).unwrap_or_default())?;
    }
}

/// Runs one thread for each item, all started together; returns the sum of their results.
fn each(
    streams: &[TcpStream],
    work: impl Fn(usize, &TcpStream) -> Result<usize> + Sync,
) -> Result<usize> {
    let start = Barrier::new(streams.len());
    thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .enumerate()
            .map(|(id, stream)| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(id, stream)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread of the load panicked")?)
            .sum()
    })
}

fn join<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| "a server of the load panicked")?
}
