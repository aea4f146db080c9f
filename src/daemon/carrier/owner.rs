//! The owner of a carrier: a task that reads, gives and expects signs of life, sends away, and
//! closes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::{Instant, Sleep, sleep};

use super::end::CarrierEnd;
use super::flusher::flush;
use super::link::Link;
use super::reader::Reader;
use super::stream::CarriedStream;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::relay::abort::{abort, read_to_end};
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Ending, Tunnel};
use crate::protocol::carrier::{NotUnderstood, Side, StreamId};
use crate::protocol::{AbortReason, Extensions, Padding};

/// The interval of checks: a sign of life goes where nothing else went since the last check,
/// so at least one in two intervals (C17).
pub(super) const CHECK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2500 });
/// In how many checks nothing may come: 15 seconds.
const SILENT: usize = 6;
/// How long a side that has closed waits for the other one (C20).
const CLOSING: Duration = Duration::from_secs(15);
/// The same, where this process is ending.
const LEAVING: Duration = Duration::from_secs(2);
/// How long the last record may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A carrier, to be run.
pub(crate) struct Owner {
    link: Arc<Link>,
    side: Side,
    reader: Reader,
    joining: mpsc::UnboundedReceiver<Joining>,
    joins: Joins,
}

/// A session that has proved to be for a stream, and the guard that counts its descriptor until
/// the stream has it, or its end has been told that it is refused.
struct Joining {
    id: StreamId,
    tunnel: Box<Tunnel>,
    guard: Box<dyn Send>,
}

/// Hands sessions to the streams of a carrier, from any thread.
#[derive(Clone)]
pub(crate) struct Joins(mpsc::UnboundedSender<Joining>);

impl Joins {
    /// Hands over a session that has proved to be for this stream.
    ///
    /// # Errors
    /// The session, if the carrier is over.
    pub(crate) fn send(
        &self,
        id: StreamId,
        tunnel: Tunnel,
        guard: impl Send + 'static,
    ) -> Result<(), Box<Tunnel>> {
        let joining = Joining { id, tunnel: Box::new(tunnel), guard: Box::new(guard) };
        self.0.send(joining).map_err(|refused| refused.0.tunnel)
    }
}

/// Guard: whatever ends the owner ends the carrier.
struct Running {
    link: Arc<Link>,
    flusher: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.link.fail(CarrierEnd::Panicked);
        self.flusher.abort();
    }
}

/// Why a carrier takes no further streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Its key is not in force any more, or it is old.
    Replaced,
    /// This process is ending.
    ShuttingDown,
}

impl Owner {
    /// The owner of a carrier on which `allowed` streams may live at once. CARRIED has gone, or
    /// has come.
    pub(crate) fn new(
        side: Side,
        allowed: u32,
        Tunnel { stream, session }: Tunnel,
        padding: Option<Padding>,
    ) -> Self {
        stream.carry();
        let link = Arc::new(Link::new((side, allowed), stream, (session.sealer, padding)));
        let (joins, joining) = mpsc::unbounded_channel();
        let reader = Reader::new(session.opener);
        Self { link, side, reader, joining, joins: Joins(joins) }
    }

    /// What its sessions that join are handed to.
    pub(crate) fn joins(&self) -> Joins {
        self.joins.clone()
    }

    /// What its streams are opened on.
    pub(crate) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Runs the carrier to its end, on this thread. `on_open` gets each stream that the other
    /// end opens. After `leave`, no further streams are taken, and the carrier ends once it has
    /// none.
    pub(crate) async fn run(
        mut self,
        ending: &Ending<'_>,
        leave: impl Future<Output = Leave>,
        mut on_open: impl FnMut(CarriedStream, Result<Extensions, NotUnderstood>),
    ) -> CarrierEnd {
        let flusher = tokio::spawn(flush(Arc::clone(&self.link)));
        let mut running = Running { link: Arc::clone(&self.link), flusher };
        let link = &self.link;
        let reader = &mut self.reader;
        let joining = &mut self.joining;
        let mut life = Life::new(self.side);
        let mut check = pin!(sleep(CHECK));
        let mut closing = pin!(sleep(Duration::MAX));
        let mut ending = pin!(ending.begun());
        let mut leave = pin!(leave);
        let carried = poll_fn(|cx| {
            link.lock().set_owner(cx.waker());
            if let Poll::Ready(why) = ending.as_mut().poll(cx) {
                let is_revoked = matches!(why, RelayError::KeyRevoked);
                return Poll::Ready(if is_revoked {
                    CarrierEnd::KeyRevoked
                } else {
                    CarrierEnd::ShuttingDown
                });
            }
            if life.leaves.is_none()
                && let Poll::Ready(why) = leave.as_mut().poll(cx)
            {
                life.leave(link, why);
            }
            while let Poll::Ready(Some(session)) = joining.poll_recv(cx) {
                join(link, session);
            }
            if let Poll::Ready(end) = reader.poll(cx, link, &mut on_open) {
                return Poll::Ready(end);
            }
            if Pin::new(&mut running.flusher).poll(cx).is_ready() {
                return Poll::Ready(link.lock().end.unwrap_or(CarrierEnd::Panicked));
            }
            while check.as_mut().poll(cx).is_ready() {
                check.set(sleep(CHECK));
                if let Err(end) = give_sign_of_life(link) {
                    return Poll::Ready(end);
                }
            }
            life.poll_close(cx, link, closing.as_mut())
        });
        let end = unconstrained(carried).await;
        link.fail(end);
        running.flusher.abort();
        self.say_goodbye(end).await;
        drop(running);
        end
    }

    /// Tells the other end why, and closes so that it learns it.
    async fn say_goodbye(self, end: CarrierEnd) {
        let reason = match end {
            CarrierEnd::KeyRevoked => Some(AbortReason::KeyRevoked),
            CarrierEnd::ShuttingDown => Some(AbortReason::ShuttingDown),
            CarrierEnd::Closed => None,
            CarrierEnd::Aborted(_)
            | CarrierEnd::Truncated
            | CarrierEnd::Tunnel(_)
            | CarrierEnd::Silent
            | CarrierEnd::Record(_)
            | CarrierEnd::Violation(_)
            | CarrierEnd::Seal(_)
            | CarrierEnd::Panicked => return,
        };
        let link = &self.link;
        if let Some(reason) = reason {
            let sealed = link.lock().outgoing.seal_other(|sealer| sealer.seal_abort(reason));
            if sealed.is_err() {
                return;
            }
        }
        let told = async {
            poll_fn(|cx| link.lock().outgoing.poll_write(cx, &link.tunnel)).await?;
            link.tunnel.shutdown_write()?;
            // Closed with unread input, the kernel's reset might overtake the last record.
            read_to_end(&link.tunnel).await
        };
        // Whether it arrived or not, the carrier is over.
        let _told = Deadline::after(LAST_WORDS).bound(told).await;
    }
}

/// How far a carrier's end has come.
struct Life {
    side: Side,
    leaves: Option<Leave>,
    is_closing: bool,
}

impl Life {
    const fn new(side: Side) -> Self {
        Self { side, leaves: None, is_closing: false }
    }

    /// Takes no further streams; a receiver tells the other end (C19).
    fn leave(&mut self, link: &Link, why: Leave) {
        self.leaves = Some(why);
        let mut state = link.lock();
        if self.side == Side::Responder {
            state.carrier.go_away(match why {
                Leave::Replaced => AbortReason::KeyReplaced,
                Leave::ShuttingDown => AbortReason::ShuttingDown,
            });
            state.wake_flusher();
        }
        link.retire_in(&mut state);
    }

    /// Closes a carrier that takes no further streams and has none. Only a sender begins; a
    /// receiver waits for it, but not for ever (C20).
    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
        mut closing: Pin<&mut Sleep>,
    ) -> Poll<CarrierEnd> {
        if !link.is_retired() {
            return Poll::Pending;
        }
        if !link.lock().is_idle() {
            // A stream that was on its way has come.
            self.is_closing = false;
            return Poll::Pending;
        }
        if !self.is_closing {
            self.is_closing = true;
            let limit = if self.leaves == Some(Leave::ShuttingDown) { LEAVING } else { CLOSING };
            closing.as_mut().reset(Instant::now() + limit);
            if self.side == Side::Initiator
                && let Err(error) = link.tunnel.shutdown_write()
            {
                return Poll::Ready(error.into());
            }
        }
        closing.poll(cx).map(|()| CarrierEnd::Closed)
    }
}

/// To be called at each check: has a record sent where none went since the last check, and
/// looks whether the other end does so (C17).
fn give_sign_of_life(link: &Link) -> Result<(), CarrierEnd> {
    if link.silent_checks.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT {
        return Err(CarrierEnd::Silent);
    }
    let mut state = link.lock();
    state.allow_opens();
    if !state.outgoing.take_has_sealed() && state.end.is_none() {
        state.outgoing.seal_sign_of_life()?;
        state.wake_flusher();
    }
    Ok(())
}

/// Gives a session to its stream, or refuses it (C10).
fn join(link: &Link, Joining { id, tunnel, guard }: Joining) {
    let Tunnel { stream, session } = *tunnel;
    // Where the system has no room for it, the session is closed, and the stream stays.
    let Ok(stream) = stream.moved_here() else { return };
    let joined = link.lock().join(id, Box::new(Tunnel { stream, session }));
    if let Err(refused) = joined {
        let Tunnel { stream, mut session } = *refused;
        let reason = session.sealer.seal_abort(AbortReason::NotAvailable).ok();
        tokio::spawn(async move {
            abort(stream, reason).await;
            drop(guard);
        });
    }
}
