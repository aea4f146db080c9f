//! One life: accepted, handshake, relay, close.

use std::net::SocketAddr;
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
use super::handshake::{first_record, initiate, read_message_1, respond};
use super::log_limit::LogLimit;
use super::loops::is_own;
use super::relay::Relay;
use super::strangers::Place;
use super::stream::{Peer, Stream};
use super::target::Target;
use super::{ConnectionPlace, Shared, fastest_suite};
use crate::config::{TunnelConfig, as_given};
use crate::protocol::{KeyId, Record, Responder, Session, SharedKey, Suite};

/// How long handshakes may take that are under way when the drain begins.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// How long sessions that are ready can be opened once another process takes over.
const LAST_READY: Duration = Duration::from_secs(5);

/// A connection that was just accepted, and that nobody has looked at.
pub(super) struct Accepted {
    /// Counts up from 1; the same in all log lines of a connection.
    pub(super) id: u64,
    pub(super) at: Instant,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
}

/// What it was let in for.
pub(super) enum Entry {
    /// A client of a sender.
    Client(ConnectionPlace),
    /// The peer of a receiver, until it proves the key.
    Stranger(Place),
}

/// A socket, and the place that its descriptor is counted by. They are dropped in
/// this order: whoever gets the place next finds the descriptor free.
struct Counted<P> {
    stream: Stream,
    place: P,
}

impl<P> Counted<P> {
    /// The same socket counted by another place; the one before is given back.
    fn by<Q>(self, place: Q) -> Counted<Q> {
        Counted { stream: self.stream, place }
    }

    /// Tells an authenticated peer why it gets nothing.
    async fn refuse(self, session: Session, close: Close) -> Close {
        let Self { stream, place } = self;
        let close = refuse(stream, session, close).await;
        drop(place);
        close
    }
}

/// What the log says of a connection beside why it ended.
#[derive(Debug, Default)]
struct Facts {
    key_id: Option<KeyId>,
    suite: Option<Suite>,
    /// The last address of the target's name that was tried.
    address: Option<SocketAddr>,
    /// Bytes of the stream out of the local socket, and into it.
    sent: u64,
    received: u64,
}

/// Serves one connection to its end, and logs it. Taken apart first: an async
/// function would keep room for its parameters beside what it makes of them.
pub(super) fn run(
    shared: Arc<Shared>,
    accepted: Accepted,
    entry: Entry,
) -> impl Future<Output = ()> + Send {
    let Accepted { id, at, socket, peer } = accepted;
    async move {
        let mut facts = Facts::default();
        let open = match (accept(&shared, socket, &peer), entry) {
            (Err(close), _place) => Err(close),
            // Boxed, so that what this takes is given back once it is open.
            (Ok(stream), Entry::Client(place)) => {
                let client = Counted { stream, place };
                Box::pin(send(&shared, client, &mut facts)).await
            }
            (Ok(stream), Entry::Stranger(place)) => {
                let stranger = Counted { stream, place };
                Box::pin(receive(&shared, stranger, at, &mut facts)).await
            }
        };
        let close = match open {
            Err(close) => close,
            Ok(mut open) => {
                let result = open.relay.run(shared.config.role, &shared.shutdown).await;
                (facts.sent, facts.received) = open.relay.bytes();
                // Boxed so that the open connection's future keeps no room for it.
                Box::pin(open.relay.close(result)).await
            }
        };
        log(&shared, (id, &peer), (&close, &facts), at.elapsed());
    }
}

/// Resets a connection that there is no place for, and logs it.
pub(super) fn turn_away(shared: &Shared, accepted: Accepted, close: &Close) {
    let Accepted { id, at, socket, peer } = accepted;
    // Where it can't be set, the peer is gone already.
    let _gone = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
    log(shared, (id, &peer), (close, &Facts::default()), at.elapsed());
}

fn accept(shared: &Shared, socket: Socket, peer: &Peer) -> Result<Stream, Close> {
    let is_own = is_own(&socket, peer).map_err(Close::Local)?;
    let stream =
        Stream::accepted(socket, shared.config.tunnel.keepalive).map_err(Close::of_accepted)?;
    if is_own { Err(Close::Loop) } else { Ok(stream) }
}

/// A connection that has all it needs.
struct Open {
    relay: Relay,
    /// After the sockets of the relay.
    _place: ConnectionPlace,
}

impl Open {
    /// Boxed: a future has room for each place that it is moved to.
    fn new(
        local: Stream,
        (tunnel, session): (Stream, Session),
        place: ConnectionPlace,
        shared: &Shared,
    ) -> Box<Self> {
        let relay = Relay::new(local, tunnel, session, &shared.config.tunnel);
        Box::new(Self { relay, _place: place })
    }
}

/// The sender's end.
async fn send(
    shared: &Shared,
    client: Counted<ConnectionPlace>,
    facts: &mut Facts,
) -> Result<Box<Open>, Close> {
    let tunnel = select! {
        tunnel = connect_to_receiver(shared, facts) => tunnel?,
        error = client.stream.failed() => return Err(Close::Local(error)),
        error = client.stream.abandoned() => return Err(Close::Local(error)),
        () = shared.shutdown.begun() => return Err(Close::ShuttingDown),
    };
    Ok(Open::new(client.stream, tunnel, client.place, shared))
}

/// A session of the key that is in force once it is made: where that is replaced
/// meanwhile, nothing has been said yet, and it is begun again.
async fn connect_to_receiver(
    shared: &Shared,
    facts: &mut Facts,
) -> Result<(Stream, Session), Close> {
    let mut in_force = shared.key.subscribe();
    loop {
        let key = Arc::clone(&in_force.borrow_and_update());
        facts.key_id = Some(key.id());
        let connected = async {
            match shared.prewarmed.take(key.id()) {
                Some(ready) => Ok(ready),
                None => {
                    connect(&shared.target, &key, &shared.config.tunnel, &mut facts.address).await
                }
            }
        };
        select! {
            biased;
            _ = in_force.changed() => {}
            tunnel = connected => {
                let tunnel = tunnel?;
                facts.suite = Some(tunnel.1.suite);
                return Ok(tunnel);
            }
        }
    }
}

/// Connects to a receiver and agrees on a session with it.
pub(super) async fn connect(
    target: &Target,
    key: &SharedKey,
    config: &TunnelConfig,
    tried: &mut Option<SocketAddr>,
) -> Result<(Stream, Session), NoSession> {
    let tunnel = target.connect(tried).await.map_err(NoSession::Connect)?;
    let suite = config.cipher.0.unwrap_or_else(fastest_suite);
    match initiate(&tunnel, key, suite, config.timeout.get()).await {
        Ok(session) => Ok((tunnel, session)),
        Err(_) if tunnel.is_loop() => Err(NoSession::Loop),
        Err(error) => Err(error),
    }
}

/// The receiver's end: the peer is a stranger until it proves the key.
async fn receive(
    shared: &Arc<Shared>,
    stranger: Counted<Place>,
    accepted_at: Instant,
    facts: &mut Facts,
) -> Result<Box<Open>, Close> {
    let mut key = shared.key.subscribe();
    let (mut session, record) = select! {
        proved = authenticate(shared, &stranger, &mut key, accepted_at, facts) => proved?,
        () = stranger.place.evicted() => return Err(Close::Stranger(Stranger::Evicted)),
        () = handshakes_are_over(shared) => return Err(Close::ShuttingDown),
    };
    let Some(place) = shared.connection_place() else {
        // It keeps its place among the strangers until it has heard that.
        let Counted { stream, place } = stranger;
        let close = shared.at_limit();
        return Err(select! {
            close = refuse(stream, session, close) => close,
            () = place.evicted() => shared.at_limit(),
        });
    };
    let tunnel = stranger.by(place);
    if record == Record::Ready
        && let Err(close) = opened_later(shared, &tunnel.stream, &mut session, &mut key).await
    {
        return Err(tunnel.refuse(session, close).await);
    }
    let connected = select! {
        biased;
        // The first look is before the target is opened.
        _ = key.changed() => Err(Close::KeyReplaced),
        target = shared.target.connect(&mut facts.address) => target.map_err(Close::Target),
        () = shared.shutdown.begun() => Err(Close::ShuttingDown),
    };
    match connected {
        Ok(local) => Ok(Open::new(local, (tunnel.stream, session), tunnel.place, shared)),
        Err(close) => Err(tunnel.refuse(session, close).await),
    }
}

/// Waits for OPEN of a session that was made ready ahead of need: it may take as
/// long as it likes, or as the key is in force that it was made with.
async fn opened_later(
    shared: &Shared,
    tunnel: &Stream,
    session: &mut Session,
    key: &mut watch::Receiver<Arc<SharedKey>>,
) -> Result<(), Close> {
    select! {
        biased;
        _ = key.changed() => Err(Unused::KeyReplaced.into()),
        record = first_record(tunnel, session) => match record {
            Ok(_open) => Ok(()),
            Err(Stranger::Record(error)) => Err(error.into()),
            Err(_gone) => Err(Unused::Closed.into()),
        },
        () = is_of_no_use(shared) => Err(Unused::ShuttingDown.into()),
    }
}

/// Where another process takes over, a session that is ready may be opened just now; by
/// and by newer ones, of that process, are opened in its place.
async fn is_of_no_use(shared: &Shared) {
    shared.drain.begun().await;
    if shared.handover.has_begun() {
        select! {
            () = sleep(LAST_READY) => {}
            () = shared.shutdown.begun() => {}
        }
    }
}

/// Who was accepted just before the drain began is served like those before.
async fn handshakes_are_over(shared: &Shared) {
    shared.drain.begun().await;
    select! {
        () = sleep(LAST_HANDSHAKES), if !shared.handover.has_begun() => {}
        () = shared.shutdown.begun() => {}
    }
}

/// The handshake and the record that proves the peer live, all before one
/// deadline.
async fn authenticate(
    shared: &Shared,
    Counted { stream: tunnel, place }: &Counted<Place>,
    key: &mut watch::Receiver<Arc<SharedKey>>,
    accepted_at: Instant,
    facts: &mut Facts,
) -> Result<(Session, Record), Close> {
    place.mark_heard();
    let deadline = Deadline::after_since(accepted_at, shared.config.tunnel.timeout.get());
    let message_1 = read_message_1(tunnel, deadline).await?;
    // Not before: one that has been replaced meanwhile is good for nothing.
    let key = Arc::clone(&key.borrow_and_update());
    let only = shared.config.tunnel.cipher.0;
    let Responder { reply, key_id, mut session } =
        respond(&message_1, from_ref(&*key), only, &shared.replays)?;
    place.mark_greeted();
    facts.key_id = Some(key_id);
    facts.suite = Some(session.suite);
    let proof = async {
        tunnel.write_all(&reply).await.map_err(Stranger::Failed)?;
        first_record(tunnel, &mut session).await
    };
    let record = deadline.bound(proof).await.ok_or(Stranger::Unproved(deadline.limit))??;
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
    shared.outcomes.note(peer, close, facts.received);
    shared.notifier.changed();
    let suppressed = match shared.log_limits.of(close).map(LogLimit::allow) {
        None => None,
        Some(Some(suppressed)) => (suppressed > 0).then_some(suppressed),
        Some(None) => return,
    };
    let Facts { key_id, suite, address, sent, received } = facts;
    let address = address.map(tracing::field::display);
    let key_id = key_id.map(tracing::field::display);
    let suite = suite.map(tracing::field::display);
    let target = &shared.config.tunnel.target;
    let hint = close.hint().map(as_given);
    let hint = hint.as_deref();
    let why = close.to_string();
    let why = as_given(&why);
    // In seconds, to the millisecond.
    let took = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                hint, id, %peer, %target, address, key_id, suite, sent, received, took, suppressed,
                "{why}"
            )
        };
    }
    match close.level() {
        tracing::Level::WARN => line!(warn),
        tracing::Level::INFO => line!(info),
        _ => line!(debug),
    }
}
