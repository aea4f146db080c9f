//! `--prewarm`: sessions that the sender makes ready ahead of need, so that a
//! new connection waits for no handshake.
//!
//! ```text
//! handshake ─ ready ┬ taken by a connection, which sends OPEN
//!                   └ lost: the receiver closed it, or key or address are others now
//! ```
//!
//! Handshakes go to the workers as connections do; one task of the first runtime
//! has them begun, and others there watch what is ready. A connection takes a
//! session to its own runtime; one that finds none makes its own, as without this
//! option.
//!
//! Two of the three round trips to the first byte are spared. With all cores busy
//! it gains nothing: as many handshakes are made, a connection takes about a
//! twentieth more CPU, and the slowest wait longer.

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
use super::prewarmed::{Kept, Ready};
use super::sender::connect_observed;
use crate::config::as_given;
use crate::daemon::net::resolver::Moves;
use crate::daemon::relay::error::RelayError;
use crate::daemon::runtime::workers::Workers;
use crate::protocol::SharedKey;

/// How many handshakes go on at once.
const AT_ONCE: usize = 16;
/// A session that is lost sooner was never accepted.
const LASTING: Duration = Duration::from_secs(1);
/// How long the next attempt waits in an outage: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps as many sessions ready as `--prewarm` says.
pub(crate) async fn keep(context: &Arc<Context>, workers: &Workers) -> Infallible {
    if context.limits.prewarmed == 0 {
        return pending().await;
    }
    let mut keeper = Keeper {
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
        keeper.fill();
        keeper.next().await;
    }
}

struct Keeper<'a> {
    context: &'a Arc<Context>,
    workers: &'a Workers,
    key: watch::Receiver<Arc<SharedKey>>,
    moves: Moves,
    handshakes: JoinSet<Result<Ready, CloseReason>>,
    /// One for each session that is ready. It says why that was lost, if that
    /// was too soon.
    watches: JoinSet<Option<CloseReason>>,
    /// How many sessions there have been.
    made: u64,
    /// Since a session could not be had: how long the last pause was.
    outage: Option<Duration>,
}

impl Keeper<'_> {
    /// Begins what handshakes are missing; in an outage one at a time.
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
            self.workers.spawn_in(&mut self.handshakes, handshake);
        }
    }

    /// Waits until something has happened.
    async fn next(&mut self) {
        select! {
            _ = self.key.changed() => self.begin_anew().await,
            () = self.moves.next() => self.begin_anew().await,
            Some(made) = self.handshakes.join_next() => {
                match made.unwrap_or_else(|panic| Err(NoSession::Failed(panic.into()).into())) {
                    Ok(ready) => {
                        let key_id = ready.key_id;
                        if self.put(ready) && self.outage.take().is_some() {
                            info!(%key_id, "sessions are kept ready again");
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

    /// Whether it is of any use.
    fn put(&mut self, ready: Ready) -> bool {
        if ready.key_id != self.context.key_id() {
            ready.tunnel.stream.close();
            return false;
        }
        self.made = self.made.saturating_add(1);
        let (end, ended) = oneshot::channel();
        // Before the watch runs: it takes what is not there for taken.
        let kept = Kept { ready, since: Instant::now(), _watch: end };
        self.context.prewarmed.lock().insert(self.made, kept);
        self.watches.spawn(watch(Arc::clone(self.context), self.made, ended));
        true
    }

    /// The receiver gives no session, or takes one back at once: says so when
    /// that begins, and waits.
    async fn pause(&mut self, reason: &CloseReason) {
        if self.outage.is_none() {
            let key_id = self.context.key_id();
            let target = &self.context.config.tunnel.target;
            let hint = reason.hint().map(as_given);
            let hint = hint.as_deref();
            warn!(hint, %key_id, %target, "no sessions can be kept ready: {reason}");
        }
        // Those that were begun beside it would say the same.
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

    /// The key is another one, or the receiver elsewhere: what was made, or begun,
    /// is of no use, and an outage may be over.
    async fn begin_anew(&mut self) {
        // Their sockets are closed before there are others.
        self.handshakes.shutdown().await;
        self.context.prewarmed.clear();
        self.outage = self.outage.and(Some(Duration::ZERO));
    }
}

async fn make(context: &Context) -> Result<Ready, CloseReason> {
    let key = context.keys.in_force();
    let mut tunnel = connect_observed(context, &key, &mut None).await?;
    let ready = tunnel.session.sealer.seal_ready().map_err(RelayError::Seal)?;
    tunnel.stream.write_all(&ready).await.map_err(NoSession::Failed)?;
    Ok(Ready { tunnel, key_id: key.id() })
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
