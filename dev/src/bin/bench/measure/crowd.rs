//! 64 bytes there and back, and new connections, while many other flows move bytes at
//! full speed, all on one thread of ours.
//!
//! The flows share two threads of the bench, so that few threads compete for the
//! processor, and the waiting time is that of the tunnel.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bulk::{greet, greeted};
use super::ping::{echo, exchange};
use super::{Load, Values, accept, listen, percentile};
use crate::Result;
use crate::pattern::{CHUNK, Place};
use crate::peers::{Peer, Tunnel};

const FLOWS: usize = 300;
/// The number of exchanges before each new connection.
const EXCHANGES: usize = 8;

/// One of the many flows, with its number.
type Flow = (usize, TcpStream);

/// The result of the many flows.
#[derive(Default)]
struct Moved {
    bytes: AtomicUsize,
    failure: Mutex<Option<String>>,
}

/// The times of exchanges and of new connections.
#[derive(Default)]
struct Times {
    exchanges: Vec<Duration>,
    connections: Vec<Duration>,
}

pub fn run(load: &Load, peer: &Peer) -> Result<Values> {
    let listener = listen()?;
    let tunnel = peer.with(&["--threads", "1"]).start(&load.folder, listener.local_addr()?)?;
    let flows = load.connections.min(FLOWS);
    let moved = Arc::<Moved>::default();
    let (to_receive, received) = unbounded_channel();
    let (to_send, sent) = unbounded_channel();
    // The threads end with the tunnel.
    thread::spawn(move || serve(&listener, flows, &to_receive));
    let counted = Arc::clone(&moved);
    thread::spawn(move || drive(received, move |flow| receive(flow, Arc::clone(&counted))));
    thread::spawn(move || drive(sent, send));
    let many: Vec<Flow> =
        (0..flows).map(|number| Ok((number, greet(&tunnel, number)?))).collect::<Result<_>>()?;
    many.into_iter().try_for_each(|flow| to_send.send(flow))?;
    // After this pause, the sockets hold about as many bytes at the start of the
    // measurement as at its end.
    thread::sleep(load.time * 2);

    let (cpu, bytes) = (tunnel.cpu()?, moved.bytes.load(Ordering::Relaxed));
    let mut times = Times::measure(load.time, &tunnel, flows)?;
    let cpu = tunnel.cpu_since(cpu)?;
    let bytes = moved.bytes.load(Ordering::Relaxed) - bytes;
    if let Some(failure) = &*moved.failure.lock().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure.clone().into());
    }
    let ms = |times: &mut [Duration], part| percentile(times, part).as_secs_f64() * 1e3;
    Ok(vec![
        ("crowd/ping-p50", ms(&mut times.exchanges, 0.5)),
        ("crowd/ping-p99", ms(&mut times.exchanges, 0.99)),
        ("crowd/new-p50", ms(&mut times.connections, 0.5)),
        ("crowd/new-p99", ms(&mut times.connections, 0.99)),
        ("crowd/cpu", cpu.as_secs_f64() / bytes as f64 * 1e9),
    ])
}

impl Times {
    fn measure(time: Duration, tunnel: &Tunnel, flows: usize) -> Result<Self> {
        let mut times = Self::default();
        let started = Instant::now();
        while started.elapsed() < time || times.connections.is_empty() {
            let begun = Instant::now();
            let mut stream = greet(tunnel, flows)?;
            times.connections.push(begun.elapsed());
            let mut place = Place::start(flows);
            for _ in 0..EXCHANGES {
                times.exchanges.push(exchange(&mut stream, &mut place)?);
            }
        }
        Ok(times)
    }
}

/// Hands the many flows over, and echoes on all other connections.
fn serve(listener: &TcpListener, flows: usize, receive: &UnboundedSender<Flow>) -> Result<()> {
    loop {
        let mut stream = accept(listener)?;
        let number = greeted(&mut stream)?;
        if number < flows {
            receive.send((number, stream))?;
        } else {
            thread::spawn(move || echo(stream));
        }
    }
}

/// A thread that works on all flows that it is given, until no more can come.
fn drive<W: Future<Output = ()> + Send + 'static>(
    mut flows: UnboundedReceiver<Flow>,
    work: impl Fn((usize, tokio::net::TcpStream)) -> W,
) -> io::Result<()> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        while let Some((number, stream)) = flows.recv().await {
            stream.set_nonblocking(true)?;
            tokio::spawn(work((number, tokio::net::TcpStream::from_std(stream)?)));
        }
        Ok(())
    })
}

async fn send((number, stream): (usize, tokio::net::TcpStream)) {
    let mut place = Place::start(number);
    // The receiving end reports what is wrong.
    while stream.writable().await.is_ok() {
        match stream.try_write(place.next()) {
            Ok(count) => place.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_gone) => break,
        }
    }
}

async fn receive((number, stream): (usize, tokio::net::TcpStream), moved: Arc<Moved>) {
    let mut buffer = vec![0; CHUNK / 4];
    let mut place = Place::start(number);
    let failure = loop {
        if let Err(error) = stream.readable().await {
            break error.to_string();
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => break "a stream ended".into(),
            Ok(count) => {
                if let Err(wrong) = place.check(buffer.get(..count).unwrap_or_default()) {
                    break wrong.to_string();
                }
                moved.bytes.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break error.to_string(),
        }
    };
    moved.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
}
