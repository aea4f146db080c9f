//! The receiver's end: a peer proves the key, then the target is connected to.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::close_reason::{CloseReason, Unused};
use super::context::Context;
use super::guarded::Guarded;
use super::handshake::{first_record, read_message_1, respond};
use super::handshake_error::PreAuthError;
use super::log::ConnectionStats;
use super::permit::{ConnectionPermit, Open};
use crate::daemon::limits::pre_auth::PreAuthSlot;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::abort::abort;
use crate::daemon::relay::error::RelayError;
use crate::protocol::{Record, Responder, Session, SharedKey};

/// How long handshakes may take that are under way when the drain begins.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// How long sessions that are ready can be opened once another process takes over.
const LAST_READY: Duration = Duration::from_secs(5);

/// The key in force, and each that comes after it.
type KeyWatch = watch::Receiver<Arc<SharedKey>>;

/// From an accepted peer, a stranger until it proves the key, to a connection that has
/// all it needs.
pub(super) async fn receive(
    context: &Arc<Context>,
    stranger: Guarded<TunnelStream, PreAuthSlot>,
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<Open, CloseReason> {
    let mut key = context.keys.watch();
    let (session, record) = prove(context, &stranger, &mut key, accepted_at, stats).await?;
    let permit = match ConnectionPermit::get(context) {
        Ok(permit) => permit,
        Err(reason) => {
            // It keeps its slot until it has heard that.
            let Guarded { sockets, guard: slot } = stranger;
            let tunnel = Tunnel { stream: sockets, session };
            select! {
                () = refuse(tunnel, &reason) => {}
                () = slot.evicted() => {}
            }
            return Err(reason);
        }
    };
    let Guarded { sockets, guard: permit } = stranger.counted_by(permit);
    let mut peer = Guarded { sockets: Tunnel { stream: sockets, session }, guard: permit };
    if record == Record::Ready
        && let Err(reason) = opened_later(context, &mut peer.sockets, &mut key).await
    {
        refuse(peer.sockets, &reason).await;
        return Err(reason);
    }
    let connected = select! {
        biased;
        // The first look is before the target is opened.
        _ = key.changed() => Err(CloseReason::KeyReplaced),
        target = context.target.connect(&mut stats.address) => target.map_err(CloseReason::Target),
        () = context.shutdown.begun() => Err(RelayError::ShuttingDown.into()),
    };
    match connected {
        Ok(local) => Ok(Guarded { sockets: (LocalStream(local), peer.sockets), guard: peer.guard }),
        Err(reason) => {
            refuse(peer.sockets, &reason).await;
            Err(reason)
        }
    }
}

/// The handshake and the record that proves the peer live, unless the peer is evicted.
async fn prove(
    context: &Context,
    stranger: &Guarded<TunnelStream, PreAuthSlot>,
    key: &mut KeyWatch,
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<(Session, Record), CloseReason> {
    let proved = select! {
        proved = authenticate(context, stranger, key, accepted_at, stats) => proved,
        () = stranger.guard.evicted() => Err(PreAuthError::Evicted),
        () = handshakes_are_over(context) => return Err(RelayError::ShuttingDown.into()),
    };
    context.observer.handshake(proved.as_ref().map(|_session| ()).map_err(PreAuthError::reason));
    Ok(proved?)
}
/// Waits for OPEN of a session that was made ready ahead of need: it may take as
/// long as it likes, or as the key is in force that it was made with.
async fn opened_later(
    context: &Context,
    tunnel: &mut Tunnel,
    key: &mut KeyWatch,
) -> Result<(), CloseReason> {
    select! {
        biased;
        _ = key.changed() => Err(Unused::KeyReplaced.into()),
        record = first_record(&tunnel.stream, &mut tunnel.session) => match record {
            Ok(_open) => Ok(()),
            Err(PreAuthError::Record(error)) => Err(RelayError::Record(error).into()),
            Err(_gone) => Err(Unused::Closed.into()),
        },
        () = ready_is_over(context) => Err(Unused::ShuttingDown.into()),
    }
}

/// Where another process takes over, a session that is ready may be opened just now.
/// Soon the sender has newer ones, of that process, in its place.
async fn ready_is_over(context: &Context) {
    context.drain.begun().await;
    if context.handover.has_begun() {
        select! {
            () = sleep(LAST_READY) => {}
            () = context.shutdown.begun() => {}
        }
    }
}

/// A peer that was accepted just before the drain began is served like those before.
async fn handshakes_are_over(context: &Context) {
    context.drain.begun().await;
    select! {
        () = sleep(LAST_HANDSHAKES), if !context.handover.has_begun() => {}
        () = context.shutdown.begun() => {}
    }
}

/// The handshake and the record that proves the peer live, all before one
/// deadline.
async fn authenticate(
    context: &Context,
    Guarded { sockets: tunnel, guard: slot }: &Guarded<TunnelStream, PreAuthSlot>,
    key: &mut KeyWatch,
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<(Session, Record), PreAuthError> {
    slot.mark_reading();
    let deadline = Deadline::after_since(accepted_at, context.config.tunnel.timeout.get());
    let message_1 = read_message_1(tunnel, deadline).await?;
    // Not before: a key that has been replaced meanwhile is good for nothing.
    let key = Arc::clone(&key.borrow_and_update());
    let only = context.config.tunnel.cipher.0;
    let Responder { reply, key_id, mut session } =
        respond(&message_1, from_ref(&*key), only, &context.replays)?;
    slot.mark_authenticated();
    stats.key_id = Some(key_id);
    stats.suite = Some(session.suite);
    let proof = async {
        tunnel.write_all(&reply).await.map_err(PreAuthError::Failed)?;
        first_record(tunnel, &mut session).await
    };
    let record = deadline.bound(proof).await.ok_or(PreAuthError::Unproved(deadline.limit))??;
    Ok((session, record))
}

/// Tells an authenticated peer why it gets nothing.
async fn refuse(mut tunnel: Tunnel, reason: &CloseReason) {
    let record = reason.abort_reason();
    let record = record.and_then(|reason| tunnel.session.sealer.seal_abort(reason).ok());
    abort(tunnel.stream, record).await;
}
