//! The pool of a sender's ready sessions.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::close_reason::{CloseReason, Unused};
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::protocol::{KeyId, OVERHEAD, OpenError, Record};

/// The ready sessions, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Prewarmed(Mutex<BTreeMap<u64, PooledSession>>);

pub(super) struct PooledSession {
    pub(super) ready: ReadySession,
    pub(super) since: Instant,
    /// Ends the watch when dropped.
    pub(super) _watch: oneshot::Sender<()>,
}

/// A session that has sent an empty PADDED, and sends OPEN when a connection takes it.
pub(super) struct ReadySession {
    pub(super) tunnel: Tunnel,
    pub(super) key_id: KeyId,
}

impl Prewarmed {
    /// Takes a session of this key that is still good, for the runtime that this is called
    /// on. The newest is taken: a middlebox that cuts idle connections had the least time
    /// to cut it.
    pub(super) fn take(&self, key_id: KeyId) -> Option<Tunnel> {
        loop {
            let (_number, pooled) = self.lock().pop_last()?;
            let ReadySession { tunnel: Tunnel { stream, session }, key_id: made_with } =
                pooled.ready;
            if made_with == key_id
                && !stream.has_input_now()
                && let Ok(stream) = stream.moved_here()
            {
                return Some(Tunnel { stream, session });
            }
        }
    }

    /// Closes all sessions.
    pub(crate) fn clear(&self) {
        for pooled in std::mem::take(&mut *self.lock()).into_values() {
            pooled.ready.tunnel.stream.close();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, PooledSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once this session's socket can be read, which only the session's end causes.
    pub(super) fn poll_lost(&self, number: u64, cx: &mut task::Context<'_>) -> Poll<()> {
        match self.lock().get(&number) {
            Some(pooled) => pooled.ready.tunnel.stream.poll_has_input(cx),
            None => Poll::Ready(()),
        }
    }
}

impl ReadySession {
    /// Waits for `time`, and fails if the receiver closes the session before. A receiver at
    /// its connection limit closes a session at once.
    pub(super) async fn lasts(self, time: Duration) -> Result<Self, CloseReason> {
        select! {
            () = poll_fn(|cx| self.tunnel.stream.poll_has_input(cx)) => Err(self.why_lost()),
            () = sleep(time) => Ok(self),
        }
    }

    /// Why the receiver closed the session.
    pub(super) fn why_lost(mut self) -> CloseReason {
        let mut abort = [0; OVERHEAD + 1];
        match self.tunnel.stream.try_read(&mut abort) {
            Ok(Some(count)) if count == abort.len() => {
                match self.tunnel.session.opener.open(&mut abort) {
                    Ok(Record::Abort(reason)) => RelayError::Aborted(reason).into(),
                    Ok(_) => RelayError::Record(OpenError::Violation).into(),
                    Err(error) => RelayError::Record(error).into(),
                }
            }
            Ok(_) | Err(_) => Unused::Closed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use rand::rngs::SysRng;

    use crate::config::Keepalive;
    use crate::daemon::net::sides::TunnelStream;
    use crate::daemon::net::stream::Stream;
    use crate::protocol::testing::GCM;
    use crate::protocol::{Accepted, Initiator, KEY_SECRETS, Responder, SharedKey};

    fn ready(key: &SharedKey) -> (PooledSession, UnixStream) {
        let (initiator, message_1) = Initiator::start(GCM, key, &mut SysRng).unwrap();
        let responder =
            Responder::accept(&message_1, [key], Accepted::default(), &mut SysRng).unwrap();
        let session = initiator.finish(&responder.reply).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = TunnelStream(Stream::accepted(ours.into(), Keepalive::Off).unwrap());
        let ready = ReadySession { tunnel: Tunnel { stream, session }, key_id: key.id() };
        (PooledSession { ready, since: Instant::now(), _watch: oneshot::channel().0 }, theirs)
    }

    /// Even before the watch has noticed that the other sessions are lost.
    #[tokio::test]
    async fn only_a_good_session_is_taken() {
        let [key, old] = [1, 2]
            .map(|byte| SharedKey::from_key_file(&[byte; 32], Box::new([0; KEY_SECRETS])).unwrap());
        let pool = Prewarmed::default();
        let mut receivers = vec![];
        for (number, key) in (0..).zip([&key, &old, &key, &key]) {
            let (pooled, theirs) = ready(key);
            pool.lock().insert(number, pooled);
            receivers.push(theirs);
        }
        drop(receivers.pop());
        receivers.pop().unwrap().write_all(b"ABORT").unwrap();
        let tunnel = pool.take(key.id()).unwrap();
        tunnel.stream.write_all(b"OPEN").await.unwrap();
        receivers.first().unwrap().read_exact(&mut [0; 4]).unwrap();
        assert!(pool.take(key.id()).is_none());
    }
}
