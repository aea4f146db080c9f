//! The receiver: a peer proves the key, then the receiver connects to the target.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, sleep};

use super::carriers::answer::{self, Carry};
use super::carriers::join;
use super::close_reason::{CloseReason, Unused};
use super::context::Context;
use super::guarded::Guarded;
use super::handshake::{Proof, first_record, read_message_1, respond};
use super::handshake_error::PreAuthError;
use super::log::ConnectionStats;
use super::observer::Agreed;
use super::permit::{ConnectionPermit, Established};
use super::reach::reach_target;
use crate::daemon::limits::pre_auth::PreAuthSlot;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::abort::abort;
use crate::daemon::relay::error::RelayError;
use crate::keys::set::{Key, OutOfForce};
use crate::protocol::{Extensions, Join, OpenError, Responder, Session};

/// How long handshakes may take that are under way when the drain begins.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// How long ready sessions can still be used once the next process takes over.
const LAST_READY: Duration = Duration::from_secs(5);

/// A peer that has proved a key.
struct Proved {
    session: Session,
    proof: Proof,
    key: Arc<Key>,
}

/// What a peer that has proved a key wants.
pub(super) enum Received {
    Connection(Box<Established>),
    Carrier(Box<Carry>),
    /// The session is a stream's of a carrier from now on.
    Joined,
}

/// From an accepted peer, a stranger until it proves the key, to a connection that is
/// ready to be relayed.
pub(super) async fn receive(
    context: &Arc<Context>,
    stranger: Guarded<TunnelStream, PreAuthSlot>,
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<Received, CloseReason> {
    let Proved { session, proof, key } = prove(context, &stranger, accepted_at, stats).await?;
    let Guarded { sockets: stream, guard: slot } = stranger;
    // A session that joins takes it along.
    let slot = Arc::new(slot);
    let tunnel = Tunnel { stream, session };
    let shared = match proof {
        Proof::Withdrawn => return Err(PreAuthError::Withdrawn.into()),
        Proof::NotUnderstood => {
            let reason = PreAuthError::Record(OpenError::NotUnderstood);
            Err((Some(Box::new(tunnel)), reason.into()))
        }
        Proof::Carry => share(context, tunnel, &key, None, ()).await,
        Proof::Join(join) => share(context, tunnel, &key, Some(join), Arc::clone(&slot)).await,
        Proof::Open(_) | Proof::Ready => match permit_for(context, &key) {
            Ok(permit) => {
                drop(slot);
                let peer = Guarded { sockets: tunnel, guard: permit };
                return open(context, peer, (proof, key), stats).await;
            }
            Err(reason) => Err((Some(Box::new(tunnel)), reason)),
        },
    };
    match shared {
        Ok(received) => Ok(received),
        Err((refused, reason)) => {
            // The peer keeps its slot until it has received the reason.
            select! {
                () = refuse_if(refused, &reason) => {}
                () = slot.evicted() => {}
            }
            Err(reason)
        }
    }
}

fn permit_for(context: &Arc<Context>, key: &Arc<Key>) -> Result<ConnectionPermit, CloseReason> {
    let mut permit = ConnectionPermit::get(context)?;
    permit.count_for(key)?;
    Ok(permit)
}

/// Makes a session a carrier, or hands it to the stream that it is for, with the guard that counts
/// its descriptor.
///
/// # Errors
/// Why it is refused, and the session, unless it has failed.
async fn share(
    context: &Context,
    tunnel: Tunnel,
    key: &Arc<Key>,
    join: Option<Join>,
    guard: impl Send + 'static,
) -> Result<Received, (Option<Box<Tunnel>>, CloseReason)> {
    match join {
        Some(join) => match join::accept(context, key, &join, tunnel, guard) {
            Ok(()) => Ok(Received::Joined),
            Err((refused, reason)) => Err((Some(refused), reason)),
        },
        None if answer::may_carry(context, key) => {
            match answer::answer(context, tunnel, Arc::clone(key)).await {
                Ok(carry) => Ok(Received::Carrier(Box::new(carry))),
                Err(reason) => Err((None, reason)),
            }
        }
        None => Err((Some(Box::new(tunnel)), CloseReason::NoCarrier)),
    }
}

/// Serves a peer that has said OPEN, or will say what its ready session is for.
async fn open(
    context: &Arc<Context>,
    mut peer: Guarded<Tunnel, ConnectionPermit>,
    (proof, key): (Proof, Arc<Key>),
    stats: &mut ConnectionStats,
) -> Result<Received, CloseReason> {
    let opened = match proof {
        Proof::Open(extensions) => Ok(First::Open(extensions)),
        Proof::Ready | Proof::Withdrawn | Proof::Carry | Proof::Join(_) | Proof::NotUnderstood => {
            wait_for_first(context, &mut peer.sockets, &key).await
        }
    };
    let join = match opened {
        Ok(First::Open(Extensions { client })) => {
            stats.client = client.map(Box::new);
            return connect(context, peer, &key, stats).await;
        }
        Ok(First::Carry) => None,
        Ok(First::Join(join)) => Some(join),
        Err(reason) => {
            refuse(peer.sockets, &reason).await;
            return Err(reason);
        }
    };
    let Guarded { sockets: tunnel, guard: permit } = peer;
    let permit = Arc::new(permit);
    match share(context, tunnel, &key, join, Arc::clone(&permit)).await {
        Ok(received) => Ok(received),
        Err((refused, reason)) => {
            refuse_if(refused, &reason).await;
            Err(reason)
        }
    }
}

async fn refuse_if(tunnel: Option<Box<Tunnel>>, reason: &CloseReason) {
    if let Some(tunnel) = tunnel {
        refuse(*tunnel, reason).await;
    }
}

/// Connects to the target for a peer that has said OPEN.
async fn connect(
    context: &Context,
    peer: Guarded<Tunnel, ConnectionPermit>,
    key: &Key,
    stats: &mut ConnectionStats,
) -> Result<Received, CloseReason> {
    let connected = select! {
        biased;
        // Before the connect: a key that is not in force any more opens no target.
        how = key.out_of_force() => Err(match how {
            OutOfForce::Revoked => RelayError::KeyRevoked.into(),
            OutOfForce::Removed => CloseReason::KeyReplaced,
        }),
        target = reach_target(context, key.address, stats) => target.map_err(CloseReason::Target),
        () = context.shutdown.begun() => Err(RelayError::ShuttingDown.into()),
    };
    match connected {
        Ok(local) => {
            let sockets = (LocalStream(local), peer.sockets);
            Ok(Received::Connection(Box::new(Guarded { sockets, guard: peer.guard })))
        }
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
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<Proved, CloseReason> {
    let proved = select! {
        biased;
        // First, so that nobody is answered who has no slot any more.
        () = stranger.guard.evicted() => Err(PreAuthError::Evicted),
        proved = authenticate(context, stranger, accepted_at, stats) => proved,
        () = handshakes_are_over(context) => Err(PreAuthError::ShuttingDown),
    };
    let agreed = proved.as_ref().map(|proved| (proved.key.id(), proved.session.suite));
    context.observer.handshake_ended(agreed.map_err(PreAuthError::reason), accepted_at.elapsed());
    Ok(proved?)
}

/// What a ready session is used for.
enum First {
    Open(Extensions),
    Carry,
    Join(Join),
}

/// Waits for OPEN or JOIN of a ready session, for as long as the session's key is in force.
async fn wait_for_first(
    context: &Context,
    tunnel: &mut Tunnel,
    key: &Key,
) -> Result<First, CloseReason> {
    select! {
        biased;
        how = key.out_of_force() => Err(match how {
            OutOfForce::Revoked => Unused::KeyRevoked.into(),
            OutOfForce::Removed => Unused::KeyReplaced.into(),
        }),
        proof = first_record(&tunnel.stream, &mut tunnel.session) => match proof {
            Ok(Proof::Open(extensions)) => Ok(First::Open(extensions)),
            Ok(Proof::Join(join)) => Ok(First::Join(join)),
            Ok(Proof::Withdrawn) => Err(Unused::Closed.into()),
            Ok(Proof::Carry) => Ok(First::Carry),
            Ok(Proof::NotUnderstood) => Err(RelayError::Record(OpenError::NotUnderstood).into()),
            // The opener refuses a second one.
            Ok(Proof::Ready) => Err(RelayError::Record(OpenError::Violation).into()),
            Err(PreAuthError::Record(error)) => Err(RelayError::Record(error).into()),
            Err(_gone) => Err(Unused::Closed.into()),
        },
        () = unopened_is_over(context) => Err(Unused::ShuttingDown.into()),
    }
}

/// Waits until ready sessions can no longer be used. Where the next process takes over, a
/// client may be taking one right now; soon the sender has sessions of that process.
async fn unopened_is_over(context: &Context) {
    context.drain.begun().await;
    if context.handover.has_begun() {
        select! {
            () = sleep(LAST_READY) => {}
            () = context.shutdown.begun() => {}
        }
    }
}

/// Waits until handshakes under way are given up. A peer that was accepted just before the
/// drain began is still served.
async fn handshakes_are_over(context: &Context) {
    context.drain.begun().await;
    select! {
        () = sleep(LAST_HANDSHAKES), if !context.handover.has_begun() => {}
        () = context.shutdown.begun() => {}
    }
}

/// The handshake and the record that proves the peer live, within one deadline.
async fn authenticate(
    context: &Context,
    Guarded { sockets: tunnel, guard: slot }: &Guarded<TunnelStream, PreAuthSlot>,
    accepted_at: Instant,
    stats: &mut ConnectionStats,
) -> Result<Proved, PreAuthError> {
    slot.mark_reading();
    let deadline = Deadline::after_since(accepted_at, context.config.tunnel.timeout.get());
    let message_1 = read_message_1(tunnel, deadline).await?;
    // Only now: a key that was replaced while the message came must not be used.
    let keys = context.keys.in_force();
    let accepted = context.config.tunnel.accepted();
    let (Responder { reply, mut session, .. }, key) =
        respond(message_1, &keys, accepted, &context.replays, slot)?;
    drop(keys);
    stats.key = Some(Arc::clone(&key));
    stats.session = Some(Agreed::of(&session));
    let proof = async {
        tunnel.write_all(&reply).await.map_err(PreAuthError::Failed)?;
        drop(reply);
        first_record(tunnel, &mut session).await
    };
    let proof = deadline.bound(proof).await.ok_or(PreAuthError::Unproved(deadline.limit))??;
    slot.mark_proved();
    Ok(Proved { session, proof, key })
}

/// Sends ABORT to a peer that has proved the key, and closes the tunnel.
async fn refuse(mut tunnel: Tunnel, reason: &CloseReason) {
    let record = reason.abort_reason();
    let record = record.and_then(|reason| tunnel.session.sealer.seal_abort(reason).ok());
    abort(tunnel.stream, record).await;
}
