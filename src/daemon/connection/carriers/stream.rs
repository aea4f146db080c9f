//! A stream of a receiver's carrier: from OPEN to its end.

use std::sync::Arc;

use tokio::select;
use tokio::time::Instant;

use super::OpenCarrier;
use crate::config::Role;
use crate::daemon::carrier::moves::Moves;
use crate::daemon::carrier::relay::CarriedRelay;
use crate::daemon::carrier::stream::CarriedStream;
use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::connection::context::Context;
use crate::daemon::connection::guarded::Guarded;
use crate::daemon::connection::log::{ConnectionStats, log};
use crate::daemon::connection::observer::Agreed;
use crate::daemon::connection::permit::ConnectionPermit;
use crate::daemon::connection::proxy_header::proxy_header;
use crate::daemon::connection::reach::reach_target;
use crate::daemon::net::sides::LocalStream;
use crate::daemon::relay::Ending;
use crate::daemon::relay::error::RelayError;
use crate::keys::set::{Key, OutOfForce};
use crate::protocol::carrier::NotUnderstood;
use crate::protocol::{Extensions, OpenError};

/// Serves a stream that a sender has opened, to its end, and logs it.
pub(super) async fn serve(
    context: Arc<Context>,
    carrier: Arc<OpenCarrier>,
    stream: CarriedStream,
    extensions: Result<Extensions, NotUnderstood>,
) {
    let (id, at) = (context.next_id(), Instant::now());
    // The key may have other settings by now.
    let in_force = context.keys.in_force();
    let key = in_force.find(carrier.key.id()).unwrap_or(&carrier.key);
    let key = Arc::clone(key);
    drop(in_force);
    let mut stats = ConnectionStats {
        key: Some(Arc::clone(&key)),
        session: Some(Agreed { stream: Some(stream.id()), ..carrier.agreed }),
        ..ConnectionStats::default()
    };
    // Boxed, so that its memory is freed once the connection is open.
    let begun =
        Box::pin(begin(&context, (id, &carrier, &key), stream, extensions, &mut stats)).await;
    let reason = match begun {
        Err(reason) => reason,
        Ok(Guarded { sockets: relay, guard: _permit }) => {
            let moves = Moves {
                role: Role::Decrypt,
                ending: Ending { shutdown: &context.shutdown, key: Some(&*key) },
                config: &context.config.tunnel,
                join: None,
            };
            let result = relay.run(&moves).await;
            result.map_or_else(CloseReason::from, |()| CloseReason::Finished)
        }
    };
    log(&context, (id, &carrier.peer), (&reason, &stats), at.elapsed());
}

async fn begin(
    context: &Arc<Context>,
    (id, carrier, key): (u64, &OpenCarrier, &Arc<Key>),
    stream: CarriedStream,
    extensions: Result<Extensions, NotUnderstood>,
    stats: &mut ConnectionStats,
) -> Result<Guarded<CarriedRelay, ConnectionPermit>, CloseReason> {
    match connect(context, key, &stream, extensions, stats).await {
        Ok((local, permit)) => {
            stats.open(context, (id, &carrier.peer), stream.traffic());
            let header = proxy_header(context, (&carrier.peer, carrier.local), stats);
            let relay = CarriedRelay::of_target(LocalStream(local), stream, header);
            Ok(Guarded { sockets: relay, guard: permit })
        }
        Err(reason) => {
            stream.refuse(reason.abort_reason());
            Err(reason)
        }
    }
}

/// Connects to the target, as for a connection of its own.
async fn connect(
    context: &Arc<Context>,
    key: &Arc<Key>,
    stream: &CarriedStream,
    extensions: Result<Extensions, NotUnderstood>,
    stats: &mut ConnectionStats,
) -> Result<(crate::daemon::net::stream::Stream, ConnectionPermit), CloseReason> {
    let Ok(Extensions { client }) = extensions else {
        return Err(RelayError::Record(OpenError::NotUnderstood).into());
    };
    stats.client = client.map(Box::new);
    let mut permit = ConnectionPermit::get(context)?;
    permit.count_for(key)?;
    let local = select! {
        biased;
        // Before the connect: a key that is not in force any more opens no target.
        how = key.out_of_force() => Err(match how {
            OutOfForce::Revoked => RelayError::KeyRevoked.into(),
            OutOfForce::Removed => CloseReason::KeyReplaced,
        }),
        error = stream.lost() => Err(error.into()),
        target = reach_target(context, key.address, stats) => target.map_err(CloseReason::Target),
        () = context.shutdown.begun() => Err(RelayError::ShuttingDown.into()),
    };
    Ok((local?, permit))
}
