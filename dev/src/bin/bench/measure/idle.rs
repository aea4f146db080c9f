//! Connections that are open and quiet.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::{Load, Values, accept, connect, listen};
use crate::Result;
use crate::pattern::Place;
use crate::peers::Peer;

const SIZE: usize = 64;

pub fn memory(load: &Load, peer: &Peer) -> Result<Values> {
    Ok(vec![("idle/memory", hold(load, peer, load.connections)?)])
}

pub fn held(load: &Load, peer: &Peer) -> Result<Values> {
    let memory = hold(load, peer, load.held)?;
    Ok(vec![("held/count", load.held as f64), ("held/memory", memory)])
}

/// Opens this many connections, uses each of them, and later uses each again; returns KiB
/// for each connection.
fn hold(load: &Load, peer: &Peer, count: usize) -> Result<f64> {
    let listener = listen()?;
    let tunnel = peer.start(&load.folder, listener.local_addr()?)?;
    let server = thread::spawn(move || serve(&listener, count));
    let mut first = connect(&tunnel)?;
    exchange(&mut first, 0)?;
    // All connections share what the first one needs.
    let before = tunnel.memory()?;
    let mut streams = Vec::new();
    for id in 1..count {
        let mut stream = connect(&tunnel)?;
        exchange(&mut stream, id)?;
        streams.push(stream);
    }
    let after = tunnel.memory()?;
    for (id, stream) in (1..).zip(&mut streams) {
        exchange(stream, id)?;
    }
    drop((first, streams));
    server.join().map_err(|_| "a server of the load panicked")??;
    Ok((after - before) / (count - 1) as f64)
}

fn exchange(stream: &mut TcpStream, id: usize) -> Result<()> {
    let mut place = Place::start(id);
    stream.write_all(place.next().get(..SIZE).unwrap_or_default())?;
    let mut back = [0; SIZE];
    stream.read_exact(&mut back)?;
    Ok(place.check(&back)?)
}

/// Echoes once on each connection as it comes, and once again later.
fn serve(listener: &TcpListener, count: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = accept(listener)?;
        echo(&mut stream)?;
        streams.push(stream);
    }
    streams.iter_mut().skip(1).try_for_each(echo)
}

fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = [0; SIZE];
    stream.read_exact(&mut bytes)?;
    Ok(stream.write_all(&bytes)?)
}
