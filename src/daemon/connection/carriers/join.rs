//! JOIN: a stream gets a session of its own. A sender makes it, or takes a ready one; a receiver
//! looks whether it proves the stream, and hands it to the carrier's thread.

use std::io;
use std::sync::Arc;

use super::{OpenCarrier, lock};
use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::connection::context::Context;
use crate::daemon::connection::first_answer::first_answer;
use crate::daemon::connection::sender::connect_observed;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::keys::set::Key;
use crate::protocol::carrier::StreamId;
use crate::protocol::{Join, OpenError, Record};

/// Makes a session that joins for this stream. Returns it once the receiver has agreed.
///
/// # Errors
/// When there is no session, or the receiver refuses it.
pub(crate) async fn join(
    context: Arc<Context>,
    carrier: Arc<OpenCarrier>,
    stream: StreamId,
) -> Result<Tunnel, RelayError> {
    let limit = context.config.tunnel.timeout.get();
    let joined = Deadline::after(limit).bound(join_in_time(&context, &carrier, stream)).await;
    joined.unwrap_or(Err(RelayError::Tunnel(io::ErrorKind::TimedOut.into())))
}

async fn join_in_time(
    context: &Context,
    carrier: &OpenCarrier,
    stream: StreamId,
) -> Result<Tunnel, RelayError> {
    let mut tunnel = match context.prewarmed.take(carrier.key.id()) {
        Some(ready) => ready,
        None => connect_observed(context, carrier.key.secret(), &mut None)
            .await
            .map_err(|error| RelayError::Tunnel(io::Error::other(error)))?,
    };
    let proof = carrier.secret.proof(&tunnel.session.hash, stream);
    let join = Join { carrier: carrier.agreed.id, stream, proof };
    let join = tunnel.session.sealer.seal_join(&join)?;
    tunnel.stream.write_all(&join).await.map_err(RelayError::Tunnel)?;
    match first_answer(&mut tunnel).await? {
        Record::Opened(_) => Ok(tunnel),
        Record::Abort(reason) => Err(RelayError::Aborted(reason)),
        Record::Ready
        | Record::Open(_)
        | Record::Carry(_)
        | Record::Carried(..)
        | Record::Frames(_)
        | Record::Join(_)
        | Record::Data(_)
        | Record::End
        | Record::Done => Err(OpenError::Violation.into()),
    }
}

/// Hands a session to the stream that it proves to be for (C10), with the guard that counts its
/// descriptor.
///
/// # Errors
/// The session, where it is to be refused: always for the same reason.
pub(crate) fn accept<G: Send + 'static>(
    context: &Context,
    key: &Key,
    join: &Join,
    tunnel: Tunnel,
    guard: G,
) -> Result<(), (Box<Tunnel>, CloseReason)> {
    let carrier = lock(&context.carriers.all).get(&join.carrier).map(Arc::clone);
    let carrier = carrier.filter(|carrier| {
        carrier.key.id() == key.id()
            && carrier.secret.proof(&tunnel.session.hash, join.stream) == join.proof
    });
    let refused = match carrier {
        None => Box::new(tunnel),
        Some(carrier) => match carrier.joins.send(join.stream, tunnel, guard) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        },
    };
    Err((refused, CloseReason::NotJoined))
}
