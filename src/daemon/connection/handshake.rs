//! Drives the handshake over a socket. Reads, writes and time limits are here, everything
//! else is in [`crate::protocol`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SysRng;

use super::handshake_error::{NoSession, Part, PreAuthError};
use crate::daemon::limits::pre_auth::PreAuthSlot;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::sides::TunnelStream;
use crate::keys::set::{Key, KeySet};
use crate::protocol::{
    Accepted, Extensions, FIRST_RECORD_MAX, HandshakeError, Initiator, Join, LooksLike,
    MESSAGE_1_MAX, OVERHEAD, OpenError, Record, ReplaySet, Responder, Session, SharedKey, Suite,
};

/// The sender's side of the handshake: both messages within `limit`.
pub(crate) async fn initiate(
    tunnel: &TunnelStream,
    key: &SharedKey,
    suite: Suite,
    limit: Duration,
) -> Result<Session, NoSession> {
    let (initiator, message_1) =
        Initiator::start(suite, key, &mut SysRng).map_err(NoSession::NoRandomness)?;
    let of = suite.message_2();
    let mut message_2 = Vec::new();
    let mut got = 0;
    let exchange = async {
        let written = tunnel.write_all(&message_1).await;
        // Thousands of handshakes may be under way, each with one of the two.
        drop(message_1);
        message_2.resize(of, 0);
        // Another program may have said something, and closed, before the first message came.
        let got = tunnel.read_full(&mut message_2, &mut got).await?;
        if got == 0 { written.map(|()| 0) } else { Ok(got) }
    };
    let result = Deadline::after(limit).bound(exchange).await;
    let answer = &message_2[..got];
    let is_foreign = !matches!(LooksLike::of(answer), LooksLike::Unknown | LooksLike::Spiped1);
    match result {
        Some(Ok(got)) if got == of => initiator.finish(answer).map_err(|error| {
            if is_foreign {
                NoSession::NotAReceiver(LooksLike::of(answer))
            } else {
                NoSession::WrongAnswer(error)
            }
        }),
        _ if is_foreign => Err(NoSession::NotAReceiver(LooksLike::of(answer))),
        Some(Ok(got)) => Err(NoSession::Closed { got, of }),
        // It has said something, and has not waited for the first message.
        Some(Err(_)) if got > 0 => Err(NoSession::Closed { got, of }),
        // So a receiver refuses.
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
            Err(NoSession::Closed { got, of })
        }
        Some(Err(error)) => Err(NoSession::Failed(error)),
        None => Err(NoSession::TimedOut(limit)),
    }
}

/// Reads message 1. Fails at once when the first byte names no suite.
pub(crate) async fn read_message_1(
    tunnel: &TunnelStream,
    deadline: Deadline,
) -> Result<Vec<u8>, PreAuthError> {
    let mut message_1 = Vec::new();
    match deadline.bound(read_all(tunnel, &mut message_1)).await {
        Some(result) => result.map(|()| message_1),
        None => Err(out_of_time(&message_1, deadline.limit)),
    }
}

/// The receiver's side of the handshake, from message 1 to its answer. The cheapest check
/// comes first (rule H2): neither garbage nor a replay costs a Diffie-Hellman, and a replay
/// does not even cost a look at the keys.
pub(crate) fn respond(
    message_1: Vec<u8>,
    keys: &KeySet,
    accepted: Accepted,
    replays: &Mutex<ReplaySet>,
    slot: &PreAuthSlot,
) -> Result<(Responder, Arc<Key>), PreAuthError> {
    let replays = || replays.lock().unwrap_or_else(PoisonError::into_inner);
    if replays().contains(&message_1) {
        return Err(PreAuthError::Replayed);
    }
    let (greeting, key) = keys.read(&message_1, accepted)?;
    if !replays().insert(&message_1, greeting.key_id(), &mut SysRng)? {
        return Err(PreAuthError::Replayed);
    }
    if !slot.mark_unproved() {
        return Err(PreAuthError::TooManyUnproved);
    }
    // What lasts as long as the connection is allocated in its place.
    drop(message_1);
    Ok((greeting.answer(&mut SysRng)?, key))
}

async fn read_all(tunnel: &TunnelStream, message: &mut Vec<u8>) -> Result<(), PreAuthError> {
    // A sender speaks at once, so message 1 has often come already.
    let mut came = read_some(message, |room| tunnel.try_read(room));
    loop {
        match came {
            Ok(None | Some(1..)) => {}
            Ok(Some(0)) if message.is_empty() => return Err(PreAuthError::Probe),
            Ok(Some(0)) => return Err(PreAuthError::Cut(Part::of(message))),
            Err(_reset) if message.is_empty() => return Err(PreAuthError::Probe),
            Err(error) => return Err(PreAuthError::Failed(error)),
        }
        if let Some(first) = message.first() {
            let Some(suite) = Suite::from_byte(*first) else {
                return Err(PreAuthError::NotOurs(LooksLike::of(message)));
            };
            if message.len() == suite.message_1() {
                return Ok(());
            }
            // Nothing may follow before the answer.
            if message.len() > suite.message_1() {
                return Err(HandshakeError::Length.into());
            }
        }
        let readable = tunnel.readable().await;
        came = readable.and_then(|readable| read_some(message, |room| readable.read(room)));
    }
}

/// Appends what has come, up to the longest message.
fn read_some(
    message: &mut Vec<u8>,
    read: impl FnOnce(&mut [u8]) -> io::Result<Option<usize>>,
) -> io::Result<Option<usize>> {
    let mut room = [0; MESSAGE_1_MAX];
    let count = read(&mut room[..MESSAGE_1_MAX - message.len()])?;
    message.extend_from_slice(&room[..count.unwrap_or(0)]);
    Ok(count)
}

fn out_of_time(seen: &[u8], waited: Duration) -> PreAuthError {
    match seen {
        [] => PreAuthError::Silent(waited),
        seen if LooksLike::of(seen) == LooksLike::Spiped1 => {
            PreAuthError::NotOurs(LooksLike::Spiped1)
        }
        seen => PreAuthError::Stalled(Part::of(seen), waited),
    }
}

/// The first record of a sender, which proves it live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// OPEN comes later.
    Ready,
    /// OPEN has come.
    Open(Extensions),
    /// ABORT: the client has gone meanwhile.
    Withdrawn,
    /// The session is to be a carrier.
    Carry,
    /// The session is for a stream of a carrier.
    Join(Join),
    /// A later version's, which is answered by ABORT (rules R2 and X2).
    NotUnderstood,
}

/// Reads the first record. Reads not a byte beyond it, and holds no buffer of the relay.
pub(crate) async fn first_record(
    tunnel: &TunnelStream,
    session: &mut Session,
) -> Result<Proof, PreAuthError> {
    let mut bytes = [0; FIRST_RECORD_MAX];
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
    match session.opener.open(record) {
        Ok(Record::Ready) => Ok(Proof::Ready),
        Ok(Record::Open(extensions)) => Ok(Proof::Open(extensions)),
        Ok(Record::Carry(_)) => Ok(Proof::Carry),
        Ok(Record::Join(join)) => Ok(Proof::Join(join)),
        Err(OpenError::NotUnderstood) => Ok(Proof::NotUnderstood),
        Ok(Record::Abort(_)) => Ok(Proof::Withdrawn),
        Ok(
            Record::Opened(_)
            | Record::Data(_)
            | Record::End
            | Record::Done
            | Record::Carried(..)
            | Record::Frames(_),
        ) => Err(PreAuthError::Record(OpenError::Violation)),
        Err(error) => Err(PreAuthError::Record(error)),
    }
}
