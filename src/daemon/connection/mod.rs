//! One life: accepted, handshake, relay, closed.
//!
//! ```text
//! accepted ┬ receiver: handshake ─ target ┬ relay ─ close reason
//!          └ sender:   target ─ handshake ┘
//! ```
//!
//! With `--prewarm`, a session of the sender has been to target and handshake before.

pub(crate) mod close_reason;
pub(crate) mod context;
mod guarded;
mod handshake;
pub(crate) mod handshake_error;
mod log_limits;
mod observer;
pub(crate) mod prewarm;
mod receiver;
pub(crate) mod sender;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::time::Instant;
use tracing::field::display;
use tracing::{Level, debug, info, warn};

use self::close_reason::CloseReason;
use self::context::{ConnectionPermit, Context};
use self::guarded::Guarded;
use self::receiver::receive;
use self::sender::send;
use crate::config::as_given;
use crate::daemon::limits::pre_auth::PreAuthSlot;
use crate::daemon::net::loops::is_own;
use crate::daemon::net::peer::Peer;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::Stream;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Relay, Tunnel};
use crate::protocol::{KeyId, Suite};

pub(crate) use self::log_limits::LogLimits;
pub(crate) use self::observer::{Observer, Totals};

/// A connection that was just accepted, of which nothing has been read.
pub(crate) struct Accepted {
    /// Counts up from 1; the same in all log lines of a connection.
    pub(crate) id: u64,
    pub(crate) at: Instant,
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
}

/// What a connection was let in for.
pub(crate) enum Entry {
    /// A client of a sender.
    Client(ConnectionPermit),
    /// The peer of a receiver, until it proves the key.
    Stranger(PreAuthSlot),
}

/// A connection that has all it needs. Dropped in this order: first the sockets.
struct Open {
    local: LocalStream,
    tunnel: Tunnel,
    permit: ConnectionPermit,
}

/// What the log says of a connection beside why it ended.
#[derive(Debug, Default)]
struct ConnectionStats {
    key_id: Option<KeyId>,
    suite: Option<Suite>,
    /// The last address of the target's name that was tried.
    address: Option<SocketAddr>,
}

/// Serves one connection to its end, and logs it. Taken apart first: an async
/// function would keep room for its parameters beside what it makes of them.
pub(crate) fn run(
    context: Arc<Context>,
    accepted: Accepted,
    entry: Entry,
) -> impl Future<Output = ()> + Send {
    let Accepted { id, at, socket, peer } = accepted;
    async move {
        let mut stats = ConnectionStats::default();
        // Boxed, so that what the beginning takes is given back once the connection is open.
        let begun = Box::pin(begin(&context, (id, at), (socket, &peer), entry, &mut stats)).await;
        let reason = match begun {
            Err(reason) => reason,
            Ok(mut open) => {
                let result = open.sockets.run(context.config.role, &context.shutdown).await;
                // Boxed, so that the future of an open connection keeps no room for it.
                match Box::pin(open.sockets.close(result)).await {
                    Ok(()) => CloseReason::Finished,
                    Err(error) => error.into(),
                }
            }
        };
        log(&context, (id, &peer), (&reason, &stats), at.elapsed());
    }
}

/// From an accepted socket to an open connection. That one is boxed: a future has room
/// for each place that something is moved to.
async fn begin(
    context: &Arc<Context>,
    (id, at): (u64, Instant),
    (socket, peer): (Socket, &Peer),
    entry: Entry,
    stats: &mut ConnectionStats,
) -> Result<Box<Guarded<Relay, ConnectionPermit>>, CloseReason> {
    let stream = accept(context, socket, peer)?;
    let Open { local, tunnel, permit } = match entry {
        Entry::Client(guard) => {
            send(context, Guarded { sockets: LocalStream(stream), guard }, stats).await?
        }
        Entry::Stranger(guard) => {
            receive(context, Guarded { sockets: TunnelStream(stream), guard }, at, stats).await?
        }
    };
    let traffic = context.observer.opened(id);
    let relay = Relay::new(local, tunnel, traffic, &context.config.tunnel);
    Ok(Box::new(Guarded { sockets: relay, guard: permit }))
}

/// Resets a connection that cannot be let in, and logs it.
pub(crate) fn turn_away(context: &Context, accepted: Accepted, reason: &CloseReason) {
    let Accepted { id, at, socket, peer } = accepted;
    // Where it can't be set, the peer is gone already.
    let _gone = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
    log(context, (id, &peer), (reason, &ConnectionStats::default()), at.elapsed());
}

fn accept(context: &Context, socket: Socket, peer: &Peer) -> Result<Stream, CloseReason> {
    let is_own = is_own(&socket, peer).map_err(RelayError::Local)?;
    let stream = Stream::accepted(socket, context.config.tunnel.keepalive)
        .map_err(CloseReason::of_accepted)?;
    if is_own { Err(CloseReason::Loop) } else { Ok(stream) }
}

fn log(
    context: &Context,
    (id, peer): (u64, &Peer),
    (reason, stats): (&CloseReason, &ConnectionStats),
    took: Duration,
) {
    let (sent, received) = context.observer.closed(id, peer, reason);
    let Some(suppressed) = context.log_limits.allow(reason) else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let ConnectionStats { key_id, suite, address } = stats;
    let (key_id, suite, address) = (key_id.map(display), suite.map(display), address.map(display));
    let target = &context.config.tunnel.target;
    let hint = reason.hint().map(as_given);
    let hint = hint.as_deref();
    let message = reason.to_string();
    let message = as_given(&message);
    // In seconds, to the millisecond.
    let took = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                hint, reason = %reason.name(), id, %peer, %target, address, key_id, suite, sent,
                received, took, suppressed, "{message}"
            )
        };
    }
    match reason.level() {
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}
