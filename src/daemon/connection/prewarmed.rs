//! Sessions that were made ready ahead of need, and are not taken yet.

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

/// The sessions that are ready, in the order they were made.
#[derive(Default)]
pub(crate) struct Prewarmed(Mutex<BTreeMap<u64, Kept>>);

pub(super) struct Kept {
    pub(super) ready: Ready,
    pub(super) since: Instant,
    /// Dropped, it ends the watch.
    pub(super) _watch: oneshot::Sender<()>,
}

/// A session of which the receiver knows that OPEN comes later.
pub(super) struct Ready {
    pub(super) tunnel: Tunnel,
    pub(super) key_id: KeyId,
}

impl Prewarmed {
    /// A session of this key that is still good, for the runtime this is called
    /// on. The newest: what cuts idle connections has had the least time for it.
    pub(super) fn take(&self, key_id: KeyId) -> Option<Tunnel> {
        loop {
            let (_number, kept) = self.lock().pop_last()?;
            let Ready { tunnel: Tunnel { stream, session }, key_id: made_with } = kept.ready;
            if made_with == key_id
                && !stream.has_input_now()
                && let Ok(stream) = stream.moved_here()
            {
                return Some(Tunnel { stream, session });
            }
        }
    }

    /// Closes them all.
    pub(crate) fn clear(&self) {
        for kept in std::mem::take(&mut *self.lock()).into_values() {
            kept.ready.tunnel.stream.close();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once this one can be read from, which only its end can cause.
    pub(super) fn poll_lost(&self, number: u64, cx: &mut task::Context<'_>) -> Poll<()> {
        match self.lock().get(&number) {
            Some(kept) => kept.ready.tunnel.stream.poll_has_input(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Ready {
    /// Whether the receiver does not take it back for so long, as it does at once
    /// when it has too many connections.
    pub(super) async fn lasts(self, time: Duration) -> Result<Self, CloseReason> {
        select! {
            () = poll_fn(|cx| self.tunnel.stream.poll_has_input(cx)) => Err(self.why_lost()),
            () = sleep(time) => Ok(self),
        }
    }

    /// What the receiver has to say of its end.
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
    use crate::protocol::{Initiator, Responder, SharedKey, Suite};

    fn ready(key: &SharedKey) -> (Kept, UnixStream) {
        let (initiator, message_1) = Initiator::start(Suite::Aes256Gcm, key, &mut SysRng).unwrap();
        let responder = Responder::accept(&message_1, [key], None, &mut SysRng).unwrap();
        let session = initiator.finish(&responder.reply).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = TunnelStream(Stream::accepted(ours.into(), Keepalive::Off).unwrap());
        let ready = Ready { tunnel: Tunnel { stream, session }, key_id: key.id() };
        (Kept { ready, since: Instant::now(), _watch: oneshot::channel().0 }, theirs)
    }

    /// Also before the watch has noticed that the others are of no use.
    #[tokio::test]
    async fn only_a_good_session_is_taken() {
        let [key, old] =
            [1, 2].map(|byte| SharedKey::from_key_file(&[byte; 32], Box::new([0; 32])).unwrap());
        let pool = Prewarmed::default();
        let mut receivers = vec![];
        for (number, key) in (0..).zip([&key, &old, &key, &key]) {
            let (kept, theirs) = ready(key);
            pool.lock().insert(number, kept);
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
