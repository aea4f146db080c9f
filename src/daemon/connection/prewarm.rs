//! `--prewarm`: a sender makes sessions ready before clients come, so that a new
//! connection waits for no handshake.
//!
//! ```text
//! handshake ─ ready ┬ taken by a connection, which sends OPEN
//!                   └ lost: the receiver closed it, or the key or the address changed
//! ```
//!
//! Handshakes run on the workers, as connections do. A task of the first worker starts
//! them, and further tasks there watch the ready sessions. A connection moves its session
//! to its own worker; a connection that finds no ready session makes one, as without this
//! option.
//!
//! Prewarming saves two of the three round trips to the first byte. With all cores busy it
//! gains nothing: as many handshakes are made, a connection takes about a twentieth more
//! CPU, and the slowest wait longer.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::close_reason::CloseReason;
use super::context::Context;
use super::handshake_error::NoSession;
use super::prewarmed::{PooledSession, ReadySession};
use super::sender::connect_observed;
use crate::config::as_given;
use crate::daemon::net::resolver::Moves;
use crate::daemon::relay::error::RelayError;
use crate::daemon::runtime::workers::Workers;
use crate::keys::set::KeySet;

/// The most handshakes at once.
const AT_ONCE: usize = 16;
/// A session that is lost sooner than this was never accepted by the receiver.
const LASTING: Duration = Duration::from_secs(1);
/// The pauses between attempts in an outage: each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps as many sessions ready as `--prewarm` says.
pub(crate) async fn keep(context: &Arc<Context>, workers: &Workers) -> Infallible {
    if context.limits.prewarmed == 0 {
        return pending().await;
    }
    let mut prewarmer = Prewarmer {
        context,
        workers,
        key: context.keys.watch(),
        moves: context.target.moves(),
        handshakes: JoinSet::new(),
        watches: JoinSet::new(),
        made: 0,
        outage: None,
    };
    loop {
        prewarmer.fill();
        prewarmer.next().await;
    }
}

struct Prewarmer<'a> {
    context: &'a Arc<Context>,
    workers: &'a Workers,
    key: watch::Receiver<Arc<KeySet>>,
    moves: Moves,
    handshakes: JoinSet<Result<ReadySession, CloseReason>>,
    /// A task for each ready session. Its result is why the session was lost, if it was
    /// lost too soon.
    watches: JoinSet<Option<CloseReason>>,
    /// The number of ready sessions so far.
    made: u64,
    /// The last pause, while the receiver gives no sessions.
    outage: Option<Duration>,
}

impl Prewarmer<'_> {
    /// Starts the missing handshakes; in an outage one at a time.
    fn fill(&mut self) {
        let at_once = if self.outage.is_some() { 1 } else { AT_ONCE };
        let missing = self.context.limits.prewarmed.saturating_sub(self.watches.len());
        while self.handshakes.len() < missing.min(at_once) {
            let context = Arc::clone(self.context);
            let must_last = self.outage.map(|_| LASTING);
            let handshake = async move {
                let ready = make(&context).await?;
                match must_last {
                    None => Ok(ready),
                    Some(time) => ready.lasts(time).await,
                }
            };
            self.workers.least_loaded().spawn_in(&mut self.handshakes, handshake);
        }
    }

    /// Waits for the next event, and acts upon it.
    async fn next(&mut self) {
        select! {
            _ = self.key.changed() => self.begin_anew().await,
            () = self.moves.next() => self.begin_anew().await,
            Some(made) = self.handshakes.join_next() => {
                match made.unwrap_or_else(|panic| Err(NoSession::Failed(panic.into()).into())) {
                    Ok(ready) => {
                        if self.put(ready) && self.outage.take().is_some() {
                            let key = self.context.key_of_sender();
                            info!(key = %key.name, key_id = %key.id(), "prewarming works again");
                        }
                    }
                    Err(close) => self.pause(&close).await,
                }
            }
            Some(ended) = self.watches.join_next() => {
                if let Ok(Some(close)) = ended {
                    self.pause(&close).await;
                }
            }
        }
    }

    /// Puts a session into the pool. Returns whether it is of the key in force.
    fn put(&mut self, ready: ReadySession) -> bool {
        if ready.key_id != self.context.key_of_sender().id() {
            ready.tunnel.stream.close();
            return false;
        }
        self.made = self.made.saturating_add(1);
        let (end, ended) = oneshot::channel();
        // Before the watch runs: it takes a session that is not in the pool for taken.
        let pooled = PooledSession { ready, since: Instant::now(), _watch: end };
        self.context.prewarmed.lock().insert(self.made, pooled);
        self.watches.spawn(watch(Arc::clone(self.context), self.made, ended));
        true
    }

    /// Pauses in an outage, when the receiver gives no session or closes it at once. Logs
    /// the begin of the outage.
    async fn pause(&mut self, reason: &CloseReason) {
        if self.outage.is_none() {
            let key = self.context.key_of_sender();
            let (key, key_id) = (&key.name, key.id());
            let target = &self.context.config.tunnel.target;
            let hint = reason.hint().map(as_given);
            let hint = hint.as_deref();
            warn!(hint, %key, %key_id, %target, "cannot prewarm sessions: {reason}");
        }
        // The other handshakes under way would fail for the same reason.
        while let Some(made) = self.handshakes.join_next().await {
            if let Ok(Ok(ready)) = made {
                self.put(ready);
            }
        }
        let pause = self.outage.unwrap_or_default().saturating_mul(2);
        let pause = pause.clamp(FIRST_PAUSE, LAST_PAUSE);
        self.outage = Some(pause);
        select! {
            () = sleep(pause) => {}
            _ = self.key.changed() => self.begin_anew().await,
            () = self.moves.next() => self.begin_anew().await,
        }
        while self.watches.try_join_next().is_some() {}
    }

    /// Drops all sessions and handshakes, since the key or the receiver's address has
    /// changed. An outage may be over then.
    async fn begin_anew(&mut self) {
        // Old sockets are closed before new ones are opened.
        self.handshakes.shutdown().await;
        self.context.prewarmed.clear();
        self.outage = self.outage.and(Some(Duration::ZERO));
    }
}

async fn make(context: &Context) -> Result<ReadySession, CloseReason> {
    let key = context.key_of_sender();
    let mut tunnel = connect_observed(context, key.secret(), &mut None).await?;
    let ready = tunnel.session.sealer.seal_ready().map_err(RelayError::Seal)?;
    tunnel.stream.write_all(&ready).await.map_err(NoSession::Failed)?;
    Ok(ReadySession { tunnel, key_id: key.id() })
}

async fn watch(
    context: Arc<Context>,
    number: u64,
    ended: oneshot::Receiver<()>,
) -> Option<CloseReason> {
    select! {
        _taken = ended => None,
        () = poll_fn(|cx| context.prewarmed.poll_lost(number, cx)) => {
            let lost = context.prewarmed.lock().remove(&number)?;
            (lost.since.elapsed() < LASTING).then(|| lost.ready.why_lost())
        }
    }
}
