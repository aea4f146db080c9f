//! The measures: each starts a tunnel in front of a server of its own, loads the tunnel,
//! and returns its figures.

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

/// The load for each peer.
#[derive(Clone, Debug)]
pub struct Load {
    /// How long each measure loads the peer.
    pub time: Duration,
    /// The number of connections that "many" means.
    pub connections: usize,
    /// The number of idle connections to hold.
    pub held: usize,
    /// The folder for keys, certificates, configurations and logs of the peers.
    pub folder: PathBuf,
    /// The address of redis-server.
    pub redis: SocketAddr,
}

/// A name of `--only`, and its measure.
pub struct Measure {
    /// The name.
    pub name: &'static str,
    of: Of,
    run: fn(&Load, &Peer) -> Result<Values>,
}

/// The peers for which a measure has a meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    /// Peers whose processes outlive a connection.
    Lasting,
    /// Likewise, and only peers that have processes at all.
    Tunnels,
    Ours,
}

/// Values by the ids of their figures, see `report::figures`.
pub type Values = Vec<(&'static str, f64)>;

/// All measures.
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
    /// Whether the measure has no meaning for a peer.
    pub fn leaves_out(&self, peer: &Peer) -> bool {
        match self.of {
            Of::All => false,
            Of::Lasting => peer.forks(),
            Of::Tunnels => peer.is_direct() || peer.forks(),
            Of::Ours => !peer.is_ours(),
        }
    }

    /// Loads the peer.
    ///
    /// # Errors
    /// If the peer does not start, a byte is wrong, or nothing arrives for a long time.
    pub fn run(&self, load: &Load, peer: &Peer) -> Result<Values> {
        (self.run)(load, peer)
    }
}

/// A server's listener, whose accept and connections time out.
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

/// The time at this part of the sorted times: 0.5 is the median.
fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let index = (times.len().saturating_sub(1) as f64 * part).round() as usize;
    times.get(index).copied().unwrap_or_default()
}
