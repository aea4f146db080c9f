//! Redis through the tunnel, loaded by redis-benchmark. redis-benchmark counts the
//! replies without a look at their content: only these bytes are not verified.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Load, Values};
use crate::Result;
use crate::peers::{Peer, Tunnel};

/// The number of requests of each kind to ask for in a second, without pipelining.
const PER_SECOND: f64 = 20_000.0;
/// The kinds are SET and GET.
const KINDS: f64 = 2.0;

/// The options of redis-benchmark.
#[derive(Clone, Copy)]
struct Clients {
    count: usize,
    pipelined: usize,
    bytes: usize,
}

pub fn fifty(load: &Load, peer: &Peer) -> Result<Values> {
    let fifty = Clients { count: 50, pipelined: 1, bytes: 3 };
    let single = run(load, peer, fifty)?;
    let pipelined = run(load, peer, Clients { pipelined: 16, ..fifty })?;
    let large = run(load, peer, Clients { bytes: 4096, ..fifty })?;
    Ok(vec![
        ("redis/cpu", single.0),
        ("redis/speed", single.1),
        ("redis-p16/cpu", pipelined.0),
        ("redis-p16/speed", pipelined.1),
        ("redis-4k/cpu", large.0),
        ("redis-4k/speed", large.1),
    ])
}

pub fn many(load: &Load, peer: &Peer) -> Result<Values> {
    let many = Clients { count: load.connections, pipelined: 1, bytes: 3 };
    let (cpu, speed) = run(load, peer, many)?;
    Ok(vec![("redis-many/cpu", cpu), ("redis-many/speed", speed)])
}

/// CPU seconds for 100,000 requests, and requests a second.
fn run(load: &Load, peer: &Peer, clients: Clients) -> Result<(f64, f64)> {
    let tunnel = peer.start(&load.folder, load.redis)?;
    // A run that does little more than open the connections shows their cost, which is
    // subtracted.
    let few = clients.count * clients.pipelined;
    let faster = if clients.pipelined > 1 { 10.0 } else { 1.0 };
    let requests = few + (load.time.as_secs_f64() * PER_SECOND * faster) as usize;
    let (opening, _speed) = benchmark(&tunnel, clients, few)?;
    let (all, speed) = benchmark(&tunnel, clients, requests)?;
    let cpu = all.saturating_sub(opening).as_secs_f64();
    Ok((cpu / ((requests - few) as f64 * KINDS) * 1e5, speed))
}

/// The processor time of the tunnel, and requests a second.
fn benchmark(tunnel: &Tunnel, clients: Clients, requests: usize) -> Result<(Duration, f64)> {
    let before = tunnel.cpu()?;
    let options = format!(
        "-h 127.0.0.1 -p {} -t set,get --csv -c {} -P {} -d {} -n {requests}",
        tunnel.entry.port(),
        clients.count,
        clients.pipelined,
        clients.bytes
    );
    let said = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "redis-benchmark"])
        .args(options.split(' '))
        .stdin(Stdio::null())
        .output()?;
    let cpu = tunnel.cpu_since(before)?;
    let text = String::from_utf8(said.stdout)?;
    if !said.status.success() {
        return Err(format!("redis-benchmark: {}", String::from_utf8_lossy(&said.stderr)).into());
    }
    let rates: Vec<f64> = text.lines().skip(1).filter_map(rate).collect();
    if rates.len() as f64 != KINDS {
        return Err(format!("redis-benchmark said: {text}").into());
    }
    // Both kinds have the same number of requests.
    Ok((cpu, KINDS / rates.iter().map(|rate| 1.0 / rate).sum::<f64>()))
}

/// The second field of a line: `"SET","41339.39",…`.
fn rate(line: &str) -> Option<f64> {
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}
