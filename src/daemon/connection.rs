//! One life: accepted, handshake, relay, close.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::select;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Shared;
use super::buffer::{Buffer, Size};
use super::close::{Close, NoSession, Stranger};
use super::deadline::Deadline;
use super::handshake::{first_record, initiate, respond};
use super::relay::{Inbound, Outbound, relay};
use super::stream::{Peer, Stream};
use super::target;
use crate::config::Role;
use crate::protocol::{KeyId, Record, Session, Suite};

/// How long to wait until the other end has read why we gave up.
const LINGER: Duration = Duration::from_secs(2);

/// A connection that was just accepted.
pub(super) struct Accepted {
    /// Counts up from 1; the same in all log lines of a connection.
    pub(super) id: u64,
    pub(super) socket: Socket,
    pub(super) peer: Peer,
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
    let Accepted { id, socket, peer } = accepted;
    let mut facts = Facts::default();
    let close = match Stream::new(socket) {
        Err(error) => Close::Local(error),
        Ok(stream) => match shared.config.role {
            Role::Encrypt => send(&shared, stream, &mut facts).await,
            Role::Decrypt => receive(&shared, stream, &peer, &mut facts).await,
        },
    };
    log(&shared, (id, &peer), (&close, &facts), started.elapsed());
}

/// The sender's end: `local` is the client.
async fn send(shared: &Shared, local: Stream, facts: &mut Facts) -> Close {
    let Some(_place) = shared.connection_place() else {
        local.reset();
        return Close::Limit(shared.places.connections);
    };
    let session = select! {
        session = connect_to_receiver(shared) => session,
        error = local.failed() => Err(Close::Local(error)),
        () = shared.shutdown.begun() => Err(Close::ShuttingDown),
    };
    match session {
        Ok((tunnel, session)) => {
            facts.suite = Some(session.suite);
            facts.key_id = Some(shared.key.id());
            let ends = Ends { local, tunnel };
            ends.relay(shared, session, facts).await
        }
        Err(close) => {
            local.reset();
            close
        }
    }
}

async fn connect_to_receiver(shared: &Shared) -> Result<(Stream, Session), Close> {
    let limit = shared.config.timeout.get();
    let tunnel = target::connect(&shared.config.target, limit)
        .await
        .map_err(|error| Close::NoSession(NoSession::Connect(error)))?;
    let session = initiate(&tunnel, &shared.key, shared.suite, limit).await?;
    Ok((tunnel, session))
}

/// The receiver's end: `tunnel` is a stranger until it proves the key.
async fn receive(shared: &Shared, tunnel: Stream, peer: &Peer, facts: &mut Facts) -> Close {
    let authenticated = {
        let stranger = shared.strangers.enter(peer);
        select! {
            authenticated = authenticate(shared, &tunnel, facts) => authenticated,
            () = stranger.evicted() => Err(Close::Stranger(Stranger::Evicted)),
            () = shared.shutdown.begun() => Err(Close::ShuttingDown),
        }
    };
    let (mut session, record) = match authenticated {
        Ok(authenticated) => authenticated,
        Err(close) => {
            tunnel.reset();
            return close;
        }
    };
    let Some(_place) = shared.connection_place() else {
        return refuse(tunnel, session, Close::Limit(shared.places.connections)).await;
    };
    if record == Record::Ready {
        // Made ready ahead of need: it may take as long as it likes.
        let opened = select! {
            record = first_record(&tunnel, &mut session) => record.map_err(Close::Stranger),
            () = shared.shutdown.begun() => Err(Close::ShuttingDown),
        };
        if let Err(close) = opened {
            return refuse(tunnel, session, close).await;
        }
    }
    let connected = select! {
        target = target::connect(&shared.config.target, shared.config.timeout.get()) => {
            target.map_err(Close::Target)
        }
        () = shared.shutdown.begun() => Err(Close::ShuttingDown),
    };
    match connected {
        Ok(local) => Ends { local, tunnel }.relay(shared, session, facts).await,
        Err(close) => refuse(tunnel, session, close).await,
    }
}

/// The handshake and the record that proves the peer live, all before one
/// deadline.
async fn authenticate(
    shared: &Shared,
    tunnel: &Stream,
    facts: &mut Facts,
) -> Result<(Session, Record), Close> {
    let deadline = Deadline::after(shared.config.timeout.get());
    let only = shared.config.cipher.0;
    let (key_id, mut session) = respond(tunnel, from_ref(&shared.key), only, deadline).await?;
    facts.key_id = Some(key_id);
    facts.suite = Some(session.suite);
    let record = deadline
        .bound(first_record(tunnel, &mut session))
        .await
        .ok_or(Stranger::Unproved(deadline.limit))??;
    Ok((session, record))
}

/// Tells an authenticated peer why it gets nothing.
async fn refuse(tunnel: Stream, session: Session, close: Close) -> Close {
    let mut outbound = Outbound::new(session.sealer, None);
    abort(tunnel, &mut outbound, &close).await;
    close
}

/// The two sockets of an open connection.
struct Ends {
    local: Stream,
    tunnel: Stream,
}

impl Ends {
    /// OPEN or OPENED, the relay, and the end of both sockets.
    async fn relay(self, shared: &Shared, session: Session, facts: &mut Facts) -> Close {
        let Self { local, tunnel } = self;
        let mut outbound = Outbound::new(session.sealer, shared.config.padding);
        let mut inbound = Inbound::new(session.opener);
        let result = async {
            match shared.config.role {
                Role::Encrypt => outbound.open(&local, &tunnel).await?,
                Role::Decrypt => outbound.opened(&tunnel).await?,
            }
            relay(&local, &tunnel, (&mut outbound, &mut inbound), &shared.shutdown).await
        }
        .await;
        (facts.sent, facts.received) = (outbound.bytes(), inbound.bytes());
        match result {
            Ok(()) => Close::Finished,
            Err(close) => {
                local.reset();
                abort(tunnel, &mut outbound, &close).await;
                close
            }
        }
    }
}

/// Sends ABORT if the other end is to be told, and closes the tunnel such
/// that it arrives: closed with unread input, the kernel would send a reset
/// that may overtake it.
async fn abort(tunnel: Stream, outbound: &mut Outbound, close: &Close) {
    if let Some(record) = outbound.abort(close) {
        let told = async {
            tunnel.write_all(&record).await?;
            tunnel.shutdown_write()?;
            loop {
                let ready = tunnel.readable().await?;
                if ready.read(Buffer::lend(Size::Small).bytes_mut())? == Some(0) {
                    return Ok::<(), std::io::Error>(());
                }
            }
        };
        // Whether it arrived or not, the connection is over.
        let _told = Deadline::after(LINGER).bound(told).await;
    } else {
        tunnel.reset();
    }
}

fn log(
    shared: &Shared,
    (id, peer): (u64, &Peer),
    (close, facts): (&Close, &Facts),
    took: Duration,
) {
    let Facts { key_id, suite, sent, received } = facts;
    let key_id = key_id.map(tracing::field::display);
    let suite = suite.map(tracing::field::display);
    let target = &shared.config.target;
    let hint = close.hint();
    let hint = (hint != "none").then_some(hint);
    let by_strangers = matches!(close, Close::Stranger(_) | Close::Limit(_));
    macro_rules! line {
        ($level:ident, $unsaid:expr) => {
            $level!(id, %peer, %target, key_id, suite, sent, received, ?took, unsaid = $unsaid, hint, "{close}")
        };
    }
    match close.level() {
        tracing::Level::WARN if by_strangers => {
            if let Some(unsaid) = shared.may_log_stranger() {
                line!(warn, (unsaid > 0).then_some(unsaid));
            }
        }
        tracing::Level::WARN => line!(warn, None::<u64>),
        tracing::Level::INFO => line!(info, None::<u64>),
        _ => line!(debug, None::<u64>),
    }
}
