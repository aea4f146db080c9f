//! Drives the handshake over a socket. Reads, writes and time limits are here, everything
//! else is in [`crate::protocol`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SysRng;

use super::handshake_error::{NoSession, PreAuthError};
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::TunnelStream;
use crate::protocol::{
    Greeting, Initiator, LooksLike, MESSAGE_1, MESSAGE_2, OVERHEAD, OpenError,
    RECORD_MAX_BEFORE_OPEN, Record, ReplaySet, Responder, Session, SharedKey, Suite,
};

/// The sender's side of the handshake: both messages within `limit`.
pub(crate) async fn initiate(
    tunnel: &TunnelStream,
    key: &SharedKey,
    suite: Suite,
    limit: Duration,
) -> Result<Session, NoSession> {
    let (initiator, message_1) =
        Initiator::start(suite, key, &mut SysRng).map_err(NoSession::WrongAnswer)?;
    let mut message_2 = [0; MESSAGE_2];
    let mut got = 0;
    let exchange = async {
        tunnel.write_all(&message_1).await?;
        tunnel.read_full(&mut message_2, &mut got).await
    };
    let result = Deadline::after(limit).bound(exchange).await;
    let answer = &message_2[..got];
    let is_foreign = !matches!(LooksLike::of(answer), LooksLike::Unknown | LooksLike::Spiped1);
    match result {
        Some(Ok(MESSAGE_2)) => initiator.finish(&message_2).map_err(|error| {
            if is_foreign {
                NoSession::NotAReceiver(LooksLike::of(&message_2))
            } else {
                NoSession::WrongAnswer(error)
            }
        }),
        _ if is_foreign => Err(NoSession::NotAReceiver(LooksLike::of(answer))),
        Some(Ok(got)) => Err(NoSession::Closed(got)),
        Some(Err(error)) => Err(NoSession::Failed(error)),
        None => Err(NoSession::TimedOut(limit)),
    }
}

/// Reads message 1 and not a byte more. Fails at once when the first byte names no suite.
pub(crate) async fn read_message_1(
    tunnel: &TunnelStream,
    deadline: Deadline,
) -> Result<[u8; MESSAGE_1], PreAuthError> {
    let mut message_1 = [0; MESSAGE_1];
    let mut got = 0;
    match deadline.bound(read_all(tunnel, &mut message_1, &mut got)).await {
        Some(result) => result.map(|()| message_1),
        None => Err(out_of_time(&message_1[..got], deadline.limit)),
    }
}

/// The receiver's side of the handshake, from message 1 to its answer. The cheapest check
/// comes first: neither garbage nor a replay costs a Diffie-Hellman, and a replay does not
/// even cost a trial of the keys.
pub(crate) fn respond(
    message_1: &[u8; MESSAGE_1],
    keys: &[SharedKey],
    only: Option<Suite>,
    replays: &Mutex<ReplaySet>,
) -> Result<Responder, PreAuthError> {
    let replays = || replays.lock().unwrap_or_else(PoisonError::into_inner);
    if replays().contains(message_1) {
        return Err(PreAuthError::Replayed);
    }
    let greeting = Greeting::read(message_1, keys, only)?;
    if !replays().insert(message_1, &mut SysRng)? {
        return Err(PreAuthError::Replayed);
    }
    Ok(greeting.answer(&mut SysRng)?)
}

async fn read_all(
    tunnel: &TunnelStream,
    message: &mut [u8; MESSAGE_1],
    got: &mut usize,
) -> Result<(), PreAuthError> {
    // A sender speaks at once, so message 1 has often come already.
    let mut came = tunnel.try_read(message);
    loop {
        match came {
            Ok(None) => {}
            Ok(Some(0)) if *got == 0 => return Err(PreAuthError::Probe),
            Ok(Some(0)) => return Err(PreAuthError::Cut(*got)),
            Ok(Some(count)) => *got += count,
            Err(_reset) if *got == 0 => return Err(PreAuthError::Probe),
            Err(error) => return Err(PreAuthError::Failed(error)),
        }
        let seen = &message[..*got];
        if seen.first().is_some_and(|byte| Suite::from_byte(*byte).is_none()) {
            return Err(PreAuthError::NotOurs(LooksLike::of(seen)));
        }
        let room = &mut message[*got..];
        if room.is_empty() {
            return Ok(());
        }
        came = tunnel.readable().await.and_then(|readable| readable.read(room));
    }
}

fn out_of_time(seen: &[u8], waited: Duration) -> PreAuthError {
    match seen {
        [] => PreAuthError::Silent(waited),
        seen if LooksLike::of(seen) == LooksLike::Spiped1 => {
            PreAuthError::NotOurs(LooksLike::Spiped1)
        }
        seen => PreAuthError::Stalled { got: seen.len(), waited },
    }
}

/// Reads the first record, [`Record::Open`] or [`Record::Ready`], which proves the sender
/// live. Reads not a byte beyond it, and holds no buffer of the relay.
pub(crate) async fn first_record(
    tunnel: &TunnelStream,
    session: &mut Session,
) -> Result<Record, PreAuthError> {
    let mut bytes = [0; RECORD_MAX_BEFORE_OPEN];
    let mut got = 0;
    // No record is shorter than OPEN, so this reads nothing beyond the first record.
    let mut wanted = OVERHEAD;
    while got < wanted {
        let part = &mut bytes[..wanted];
        if tunnel.read_full(part, &mut got).await.map_err(PreAuthError::Failed)? < wanted {
            return Err(PreAuthError::GaveUp);
        }
        let seen = &bytes[..got];
        if let Some(length) = session.opener.record_length(seen).map_err(PreAuthError::Record)? {
            wanted = length;
        }
    }
    let record = &mut bytes[..wanted];
    match session.opener.open(record).map_err(PreAuthError::Record)? {
        Record::Abort(_) => Err(PreAuthError::GaveUp),
        record @ (Record::Open | Record::Ready) => Ok(record),
        Record::Opened | Record::Data(_) | Record::End | Record::Done => {
            Err(PreAuthError::Record(OpenError::Violation))
        }
    }
}
