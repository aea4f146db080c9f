//! The measures: each starts a tunnel before a server of its own, loads it,
//! and says its figures.

mod bulk;
mod busy;
mod crowd;
mod idle;
mod ping;
mod redis;
mod short;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::peers::{Peer, Tunnel};
use crate::process::loopback;
use crate::{PATIENCE, Result};

/// How much is asked of each peer.
#[derive(Clone, Debug)]
pub struct Load {
    /// How long each measure loads it.
    pub time: Duration,
    /// Connections, where there are many.
    pub connections: usize,
    /// Idle connections to hold.
    pub held: usize,
    /// Keys, certificates, configurations and logs of the peers.
    pub folder: PathBuf,
    /// Where redis-server listens.
    pub redis: SocketAddr,
}

/// A name of `--only`, and what is done for it.
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    of: Of,
    run: fn(&Load, &Peer) -> Result<Values>,
}

/// Of which peers there is something to know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    /// Those whose processes outlive a connection.
    Lasting,
    /// Of them, those that have processes.
    Tunnels,
    Ours,
}

/// Figures by their ids, those of `report::figures`.
pub type Values = Vec<(&'static str, f64)>;

/// All there are.
pub const MEASURES: &[Measure] = &[
    Measure { name: "bulk", of: Of::All, run: bulk::one_and_four },
    Measure { name: "both-ways", of: Of::All, run: bulk::both_ways },
    Measure { name: "ping", of: Of::All, run: ping::continuous },
    Measure { name: "busy", of: Of::All, run: busy::run },
    Measure { name: "sparse", of: Of::All, run: ping::sparse },
    Measure { name: "redis", of: Of::Lasting, run: redis::fifty },
    Measure { name: "short", of: Of::Lasting, run: short::run },
    Measure { name: "idle", of: Of::Tunnels, run: idle::memory },
    Measure { name: "held", of: Of::Ours, run: idle::held },
    Measure { name: "many", of: Of::Lasting, run: bulk::many },
    Measure { name: "crowd", of: Of::Lasting, run: crowd::run },
    Measure { name: "redis-many", of: Of::Lasting, run: redis::many },
    Measure { name: "threads", of: Of::Ours, run: bulk::threads },
];

impl Measure {
    /// Whether there is nothing to know of that peer.
    pub fn leaves_out(&self, peer: &Peer) -> bool {
        match self.of {
            Of::All => false,
            Of::Lasting => peer.forks(),
            Of::Tunnels => peer.is_direct() || peer.forks(),
            Of::Ours => !peer.is_ours(),
        }
    }

    /// Loads that peer.
    ///
    /// # Errors
    /// If it does not start, a byte is wrong, or nothing comes for long.
    pub fn run(&self, load: &Load, peer: &Peer) -> Result<Values> {
        (self.run)(load, peer)
    }
}

/// A listener of a server, whose accept and connections give up after a while.
fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&loopback(0).into())?;
    socket.listen(4096)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    patient(listener.accept()?.0)
}

fn connect(tunnel: &Tunnel) -> io::Result<TcpStream> {
    patient(TcpStream::connect(tunnel.entry)?)
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    let socket = SockRef::from(&stream);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(stream)
}

/// That part of the times, sorted or not: 0.5 for the median.
fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let index = (times.len().saturating_sub(1) as f64 * part).round() as usize;
    times.get(index).copied().unwrap_or_default()
}
