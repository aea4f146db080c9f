//! The life of a connection: accepted, handshake, relay, closed.
//!
//! ```text
//! accepted ┬ receiver: handshake ─ target ┬ relay ─ close reason
//!          └ sender:   target ─ handshake ┘
//! ```
//!
//! With `--prewarm`, a sender's session has been through target and handshake before.

pub(crate) mod accepted;
pub(crate) mod carriers;
pub(crate) mod close_reason;
pub(crate) mod context;
mod first_answer;
mod guarded;
mod handshake;
pub(crate) mod handshake_error;
pub(crate) mod log;
mod log_limits;
pub(crate) mod not_allowed;
pub(crate) mod observer;
pub(crate) mod permit;
pub(crate) mod prewarm;
pub(crate) mod prewarmed;
mod proxy_header;
mod reach;
mod receiver;
pub(crate) mod sender;
mod snapshot;

use std::sync::Arc;

use socket2::Socket;
use tokio::time::Instant;

use self::accepted::Accepted;
use self::carriers::answer::Carry;
use self::carriers::join::join;
use self::close_reason::CloseReason;
use self::context::Context;
use self::guarded::Guarded;
use self::log::{ConnectionStats, log};
use self::permit::ConnectionPermit;
use self::proxy_header::proxy_header;
use self::receiver::{Received, receive};
use self::sender::{Carried, carry, open_stream, send};
use crate::config::{Config, Role, TellClient};
use crate::daemon::carrier::moves::{Joining, Moves};
use crate::daemon::limits::pre_auth::PreAuthSlot;
use crate::daemon::net::loops::is_own;
use crate::daemon::net::peer::Peer;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::Stream;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::traffic::Traffic;
use crate::daemon::relay::{Ending, FirstRecord, Relay};
use crate::daemon::runtime::workers::Home;
use crate::protocol::Extensions;

pub(crate) use self::log_limits::LogLimits;
pub(crate) use self::observer::Observer;

/// What a connection was admitted with.
pub(crate) enum Admitted {
    /// A client of a sender.
    Client(ConnectionPermit),
    /// A peer of a receiver, until it proves the key.
    Stranger(PreAuthSlot),
}

/// What a connection is once it has begun.
enum Begun {
    Relay(Box<Guarded<Relay, ConnectionPermit>>),
    Stream(Box<Guarded<Carried, ConnectionPermit>>),
    Carrier(Box<Carry>),
    /// The session is another connection's from now on.
    Joined,
}

/// Serves one connection to its end, and logs it. Not an async function: its future would
/// reserve space for the parameters as well as for what they are taken apart into.
pub(crate) fn run(
    context: Arc<Context>,
    accepted: Accepted,
    admitted: Admitted,
    home: Home,
) -> impl Future<Output = ()> + Send {
    let Accepted { id, at, socket, peer } = accepted;
    async move {
        let mut stats = ConnectionStats::default();
        // Boxed, so that its memory is freed once the connection is open.
        let begun =
            Box::pin(begin(&context, (id, at), (socket, &peer), admitted, (&home, &mut stats)))
                .await;
        let reason = match begun {
            Err(reason) => reason,
            Ok(Begun::Carrier(carry)) => return Box::pin(carry.run(&context, peer, home)).await,
            Ok(Begun::Joined) => return,
            // Boxed, so that each has the size of its own.
            Ok(Begun::Stream(stream)) => Box::pin(relay_stream(&context, stream)).await,
            Ok(Begun::Relay(relay)) => Box::pin(relay_own(&context, (&peer, &stats), relay)).await,
        };
        log(&context, (id, &peer), (&reason, &stats), at.elapsed());
    }
}

/// Relays a connection that has a session of its own, to its end.
async fn relay_own(
    context: &Context,
    (peer, stats): (&Peer, &ConnectionStats),
    mut relay: Box<Guarded<Relay, ConnectionPermit>>,
) -> CloseReason {
    let ending = Ending { shutdown: &context.shutdown, key: stats.key.as_deref() };
    let first = match context.config.role {
        Role::Decrypt => FirstRecord::Opened,
        Role::Encrypt => FirstRecord::Open(extensions(&context.config, peer)),
    };
    let result = match relay.sockets.queue(first) {
        Ok(()) => relay.sockets.run(context.config.role, &ending).await,
        Err(error) => Err(error),
    };
    // Boxed, so that the open connection's future does not reserve space for it.
    let closed = Box::pin(relay.sockets.close(result)).await;
    closed.map_or_else(CloseReason::from, |()| CloseReason::Finished)
}

/// Relays a client's connection that is a stream of a carrier, to its end.
async fn relay_stream(
    context: &Arc<Context>,
    stream: Box<Guarded<Carried, ConnectionPermit>>,
) -> CloseReason {
    let Guarded { sockets: Carried { relay, carrier, id }, guard: _permit } = *stream;
    let join = || -> Joining { Box::pin(join(Arc::clone(context), Arc::clone(&carrier), id)) };
    let moves = Moves {
        role: context.config.role,
        ending: Ending::by(&context.shutdown),
        config: &context.config.tunnel,
        join: Some(&join),
    };
    let result = relay.run(&moves).await;
    result.map_or_else(CloseReason::from, |()| CloseReason::Finished)
}

/// What a sender tells of its client.
fn extensions(config: &Config, peer: &Peer) -> Extensions {
    match config.connections.tell_client {
        TellClient::No => Extensions::default(),
        TellClient::Yes => Extensions { client: Some(peer.as_client()) },
    }
}

/// From an accepted socket to an open connection. The result is boxed, since a future
/// reserves space for each place that a value is moved to.
async fn begin(
    context: &Arc<Context>,
    (id, at): (u64, Instant),
    (socket, peer): (Socket, &Peer),
    admitted: Admitted,
    (home, stats): (&Home, &mut ConnectionStats),
) -> Result<Begun, CloseReason> {
    let stream = accept(context, socket, peer)?;
    let Guarded { sockets: (local, tunnel), guard: permit } = match admitted {
        Admitted::Client(guard) => {
            let client = Guarded { sockets: LocalStream(stream), guard };
            let extensions = extensions(&context.config, peer);
            if let Some(opened) = open_stream(context, home, extensions) {
                let stream = carry(client, opened, stats)?;
                stats.open(context, (id, peer), stream.sockets.relay.traffic());
                return Ok(Begun::Stream(Box::new(stream)));
            }
            send(context, client, stats).await?
        }
        Admitted::Stranger(guard) => {
            let stranger = Guarded { sockets: TunnelStream(stream), guard };
            match receive(context, stranger, at, stats).await? {
                Received::Connection(established) => *established,
                Received::Carrier(carry) => return Ok(Begun::Carrier(carry)),
                Received::Joined => return Ok(Begun::Joined),
            }
        }
    };
    let traffic = Arc::<Traffic>::default();
    stats.open(context, (id, peer), Arc::clone(&traffic));
    let header = proxy_header(context, (peer, tunnel.stream.local_address()), stats);
    let mut relay = Relay::new(local, tunnel, traffic, &context.config.tunnel);
    if let Some(header) = header {
        relay.queue_header(&header);
    }
    Ok(Begun::Relay(Box::new(Guarded { sockets: relay, guard: permit })))
}

fn accept(context: &Context, socket: Socket, peer: &Peer) -> Result<Stream, CloseReason> {
    let is_own = is_own(&socket, peer).map_err(RelayError::Local)?;
    let stream = Stream::accepted(socket, context.config.tunnel.keepalive)
        .map_err(CloseReason::of_accepted)?;
    if is_own { Err(CloseReason::Loop) } else { Ok(stream) }
}
