//! One life: accepted, handshake, relay, close.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::close::{Close, NoSession, Stranger, Unused, abort};
use super::deadline::Deadline;
use super::handshake::{first_record, initiate, respond};
use super::log_limit::LogLimit;
use super::relay::Relay;
use super::strangers::Place;
use super::stream::{Peer, Stream};
use super::target::Target;
use super::{ConnectionPlace, Shared, fastest_suite};
use crate::config::TunnelConfig;
use crate::protocol::{KeyId, Record, Session, SharedKey, Suite};

/// How long handshakes may take that are under way when the drain begins.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// A connection that was just accepted.
pub(super) struct Accepted {
    /// Counts up from 1; the same in all log lines of a connection.
    pub(super) id: u64,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    /// The place of a receiver's peer, until it proves the key.
    pub(super) stranger: Option<Place>,
}

/// What the log says of a connection beside why it ended.
#[derive(Debug, Default)]
struct Facts {
    key_id: Option<KeyId>,
    suite: Option<Suite>,
    /// Bytes of the stream out of the local socket, and into it.
    sent: u64,
    received: u64,
}

/// Serves one connection to its end, and logs it.
pub(super) async fn run(shared: Arc<Shared>, accepted: Accepted) {
    let started = Instant::now();
    let Accepted { id, socket, peer, stranger } = accepted;
    let mut facts = Facts::default();
    let close = match Stream::accepted(socket, shared.config.tunnel.keepalive) {
        Err(error) => Close::of_accepted(error),
        Ok(stream) => {
            // Boxed, so that what this takes is given back once it is open.
            let open = match stranger {
                None => Box::pin(send(&shared, stream, &mut facts)).await,
                Some(place) => Box::pin(receive(&shared, stream, place, &mut facts)).await,
            };
            match open {
                Err(close) => close,
                Ok(mut open) => {
                    let result = open.relay.run(shared.config.role, &shared.shutdown).await;
                    (facts.sent, facts.received) = open.relay.bytes();
                    // Boxed: else there were room for it for as long as it is open.
                    Box::pin(open.relay.close(result)).await
                }
            }
        }
    };
    log(&shared, (id, &peer), (&close, &facts), started.elapsed());
}

/// A connection that has all it needs.
struct Open<'a> {
    relay: Relay,
    _place: ConnectionPlace<'a>,
}

impl<'a> Open<'a> {
    /// Boxed: a future has room for each place that it is moved to.
    fn new(
        local: Stream,
        (tunnel, session): (Stream, Session),
        place: ConnectionPlace<'a>,
        shared: &Shared,
    ) -> Box<Self> {
        let relay = Relay::new(local, tunnel, session, &shared.config.tunnel);
        Box::new(Self { relay, _place: place })
    }
}

/// The sender's end: `local` is the client.
async fn send<'a>(
    shared: &'a Shared,
    local: Stream,
    facts: &mut Facts,
) -> Result<Box<Open<'a>>, Close> {
    let place = shared.connection_place().ok_or(Close::Limit(shared.places.connections))?;
    let (tunnel, session) = select! {
        session = connect_to_receiver(shared, facts) => session?,
        error = local.failed() => return Err(Close::Local(error)),
        () = shared.shutdown.begun() => return Err(Close::ShuttingDown),
    };
    Ok(Open::new(local, (tunnel, session), place, shared))
}

async fn connect_to_receiver(
    shared: &Shared,
    facts: &mut Facts,
) -> Result<(Stream, Session), Close> {
    let key = shared.key();
    facts.key_id = Some(key.id());
    let tunnel = match shared.prewarmed.take(key.id()) {
        Some(ready) => ready,
        None => connect(&shared.target, &key, &shared.config.tunnel).await?,
    };
    facts.suite = Some(tunnel.1.suite);
    Ok(tunnel)
}

/// Connects to a receiver and agrees on a session with it.
pub(super) async fn connect(
    target: &Target,
    key: &SharedKey,
    config: &TunnelConfig,
) -> Result<(Stream, Session), NoSession> {
    let tunnel = target.connect().await.map_err(NoSession::Connect)?;
    let suite = config.cipher.0.unwrap_or_else(fastest_suite);
    let session = initiate(&tunnel, key, suite, config.timeout.get()).await?;
    Ok((tunnel, session))
}

/// The receiver's end: `tunnel` is a stranger until it proves the key.
async fn receive<'a>(
    shared: &'a Shared,
    tunnel: Stream,
    place: Place,
    facts: &mut Facts,
) -> Result<Box<Open<'a>>, Close> {
    let key = shared.key.subscribe();
    let (mut session, record) = select! {
        authenticated = authenticate(shared, &tunnel, &place, &key, facts) => authenticated?,
        () = place.evicted() => return Err(Close::Stranger(Stranger::Evicted)),
        () = handshakes_are_over(shared) => return Err(Close::ShuttingDown),
    };
    drop(place);
    let Some(place) = shared.connection_place() else {
        return Err(refuse(tunnel, session, Close::Limit(shared.places.connections)).await);
    };
    if record == Record::Ready
        && let Err(close) = opened_later(shared, &tunnel, &mut session, key).await
    {
        return Err(refuse(tunnel, session, close).await);
    }
    let connected = select! {
        target = shared.target.connect() => target.map_err(Close::Target),
        () = shared.shutdown.begun() => Err(Close::ShuttingDown),
    };
    match connected {
        Ok(local) => Ok(Open::new(local, (tunnel, session), place, shared)),
        Err(close) => Err(refuse(tunnel, session, close).await),
    }
}

/// Waits for OPEN of a session that was made ready ahead of need: it may take as
/// long as it likes, or as the key is in force that it was made with.
async fn opened_later(
    shared: &Shared,
    tunnel: &Stream,
    session: &mut Session,
    mut key: watch::Receiver<Arc<SharedKey>>,
) -> Result<(), Close> {
    select! {
        biased;
        _ = key.changed() => Err(Unused::KeyReplaced.into()),
        record = first_record(tunnel, session) => match record {
            Ok(_open) => Ok(()),
            Err(Stranger::Record(error)) => Err(error.into()),
            Err(_gone) => Err(Unused::Closed.into()),
        },
        () = shared.drain.begun() => Err(Unused::ShuttingDown.into()),
    }
}

/// Who was accepted just before the drain began is served like those before.
async fn handshakes_are_over(shared: &Shared) {
    shared.drain.begun().await;
    select! {
        () = sleep(LAST_HANDSHAKES) => {}
        () = shared.shutdown.begun() => {}
    }
}

/// The handshake and the record that proves the peer live, all before one
/// deadline.
async fn authenticate(
    shared: &Shared,
    tunnel: &Stream,
    place: &Place,
    key: &watch::Receiver<Arc<SharedKey>>,
    facts: &mut Facts,
) -> Result<(Session, Record), Close> {
    place.is_heard();
    let deadline = Deadline::after(shared.config.tunnel.timeout.get());
    let only = shared.config.tunnel.cipher.0;
    let key = Arc::clone(&key.borrow());
    let (key_id, mut session) = respond(tunnel, from_ref(&*key), only, deadline).await?;
    place.has_greeted();
    facts.key_id = Some(key_id);
    facts.suite = Some(session.suite);
    let record = deadline
        .bound(first_record(tunnel, &mut session))
        .await
        .ok_or(Stranger::Unproved(deadline.limit))??;
    Ok((session, record))
}

/// Tells an authenticated peer why it gets nothing.
async fn refuse(tunnel: Stream, mut session: Session, close: Close) -> Close {
    let record = close.abort_reason().and_then(|reason| session.sealer.abort(reason).ok());
    abort(tunnel, record).await;
    close
}

fn log(
    shared: &Shared,
    (id, peer): (u64, &Peer),
    (close, facts): (&Close, &Facts),
    took: Duration,
) {
    let suppressed = match shared.log_limits.of(close).map(LogLimit::allow) {
        None => None,
        Some(Some(suppressed)) => (suppressed > 0).then_some(suppressed),
        Some(None) => return,
    };
    let Facts { key_id, suite, sent, received } = facts;
    let key_id = key_id.map(tracing::field::display);
    let suite = suite.map(tracing::field::display);
    let target = &shared.config.tunnel.target;
    let hint = close.hint();
    macro_rules! line {
        ($level:ident) => {
            $level!(id, %peer, %target, key_id, suite, sent, received, ?took, suppressed, hint, "{close}")
        };
    }
    match close.level() {
        tracing::Level::WARN => line!(warn),
        tracing::Level::INFO => line!(info),
        _ => line!(debug),
    }
}
