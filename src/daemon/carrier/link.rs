//! The link: what a carrier's tasks share. All of them run on one thread, so that nobody ever
//! waits for the lock; another thread that has a session for a stream only holds it shortly.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::end::CarrierEnd;
use super::entry::{Entry, Join};
use super::outgoing::Outgoing;
use crate::daemon::net::sides::TunnelStream;
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::protocol::carrier::{Carrier, Event, NoStream, Sent, Side, StreamId};
use crate::protocol::{AbortReason, Extensions, FRAMES_MAX, Padding, Sealer};

/// The most bytes that a stream reads into one frame, so that each has its turn (D2). A record
/// with less room takes no more of them: a read of a few bytes costs as much as a large one.
const FRAME: usize = 8 * 1024;
/// How many streams that wait for room are woken at once: about as many as have room.
const WOKEN: usize = 16;
/// In how many checks nothing may come of a carrier that new streams are opened on (D5).
const FRESH: usize = 2;

/// How many streams the other end may open between two checks, 26,000 in a second: each may
/// cost a connect to the target (D3).
pub(super) const OPENS: u32 = 65_536;
/// How many streams are moved at once (D6).
const MOVING: usize = 8;

/// What a carrier's tasks share.
pub(crate) struct Link {
    pub(super) tunnel: TunnelStream,
    state: Mutex<State>,
    /// How many streams live; for those who may not wait for the lock.
    streams: AtomicUsize,
    /// In how many checks nothing has come.
    pub(super) silent_checks: AtomicUsize,
    /// Whether no more streams are to be opened, and the carrier ends once it has none.
    is_retired: AtomicBool,
}

/// What is behind the lock.
pub(super) struct State {
    pub(super) carrier: Carrier,
    pub(super) outgoing: Outgoing,
    pub(super) entries: HashMap<StreamId, Entry>,
    /// Streams that have bytes and wait for room.
    crowd: VecDeque<StreamId>,
    /// How many streams the other end may still open before the next check.
    opens: u32,
    /// How many streams are being moved, at a sender: those that were, and still have what came
    /// over the carrier, count as well.
    moving: usize,
    flusher: Option<Waker>,
    /// Woken when a stream is over, and when the carrier ends.
    owner: Option<Waker>,
    pub(super) end: Option<CarrierEnd>,
}

impl Link {
    /// The link of a carrier on which `allowed` streams may live at once.
    pub(super) fn new(
        (side, allowed): (Side, u32),
        tunnel: TunnelStream,
        (sealer, padding): (Sealer, Option<Padding>),
    ) -> Self {
        Self {
            tunnel,
            state: Mutex::new(State {
                carrier: Carrier::new(side, allowed),
                outgoing: Outgoing::new(sealer, padding),
                entries: HashMap::new(),
                crowd: VecDeque::new(),
                opens: OPENS,
                moving: 0,
                flusher: None,
                owner: None,
                end: None,
            }),
            streams: AtomicUsize::new(0),
            silent_checks: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
        }
    }

    /// The state. A panic while it is changed ends the carrier, since nobody knows what was
    /// changed by then.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            state.end.get_or_insert(CarrierEnd::Panicked);
            state
        })
    }

    /// How many streams live.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Opens no more streams, and ends the carrier once it has none.
    pub(crate) fn retire(&self) {
        self.retire_in(&mut self.lock());
    }

    pub(super) fn retire_in(&self, state: &mut State) {
        self.is_retired.store(true, Ordering::Relaxed);
        state.wake_owner();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// Whether streams may be opened on it: the other end has given a sign of life.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_retired() && self.silent_checks.load(Ordering::Relaxed) <= FRESH
    }

    /// Opens a stream, at a sender.
    ///
    /// # Errors
    /// When there is no room, or the carrier is over.
    pub(super) fn open(&self, extensions: Extensions, entry: Entry) -> Result<StreamId, NoStream> {
        let mut state = self.lock();
        if state.end.is_some() || !self.is_usable() {
            return Err(NoStream::Over);
        }
        let id = state.carrier.open(extensions)?;
        state.insert(id, entry);
        self.count_streams(&state);
        state.wake_flusher();
        Ok(id)
    }

    /// A stream that the other end has opened, at a receiver.
    pub(super) fn opened_by_peer(&self, state: &mut State, id: StreamId, entry: Entry) {
        state.insert(id, entry);
        self.count_streams(state);
    }

    pub(super) fn count_streams(&self, state: &State) {
        self.streams.store(state.carrier.streams(), Ordering::Relaxed);
    }

    /// Ends the carrier; its streams learn it (C18).
    pub(super) fn fail(&self, end: CarrierEnd) {
        self.lock().fail(end);
    }
}

impl State {
    pub(super) fn fail(&mut self, end: CarrierEnd) {
        self.end.get_or_insert(end);
        self.entries.values_mut().for_each(Entry::wake);
        self.wake_flusher();
        self.wake_owner();
    }

    pub(super) fn wake_flusher(&mut self) {
        if let Some(flusher) = self.flusher.take() {
            flusher.wake();
        }
    }

    pub(super) fn wake_owner(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }

    /// To be called in each poll of the flusher.
    pub(super) fn set_flusher(&mut self, waker: &Waker) {
        self.flusher = Some(waker.clone());
    }

    /// To be called in each poll of the carrier's owner.
    pub(super) fn set_owner(&mut self, waker: &Waker) {
        match &mut self.owner {
            Some(owner) => owner.clone_from(waker),
            None => self.owner = Some(waker.clone()),
        }
    }

    /// Whether the carrier has nothing more to do: no stream lives, and all is written.
    pub(super) fn is_idle(&self) -> bool {
        self.carrier.streams() == 0 && !self.carrier.has_due() && self.outgoing.is_empty()
    }

    /// Has streams that wait for room look again. Returns whether there are any.
    pub(super) fn wake_crowd(&mut self) -> bool {
        for _ in 0..WOKEN {
            let Some(id) = self.crowd.pop_front() else { break };
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.is_in_crowd = false;
                entry.wake();
            }
        }
        !self.crowd.is_empty()
    }

    /// Writes a frame of what `read` puts there. Pending while the stream has no credit, or
    /// there is no room.
    pub(super) fn poll_send(
        &mut self,
        cx: &Context<'_>,
        id: StreamId,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, RelayError>,
    ) -> Poll<Result<usize, RelayError>> {
        let mut sent = Sent::NoRoom;
        let carrier = &mut self.carrier;
        let filled = self.outgoing.fill(|batch| {
            if batch.filled() > FRAMES_MAX - FRAME {
                return Ok(false);
            }
            sent = carrier.data(id, FRAME, batch, &mut read)?;
            Ok(sent != Sent::NoRoom)
        });
        match (filled, sent) {
            (Err(error), _) => Poll::Ready(Err(error)),
            (Ok(_), Sent::Bytes(count)) => {
                if count > 0 {
                    self.wake_flusher();
                }
                Poll::Ready(Ok(count))
            }
            (Ok(_), Sent::NoRoom) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.wait(cx);
                    if !std::mem::replace(&mut entry.is_in_crowd, true) {
                        self.crowd.push_back(id);
                    }
                }
                self.wake_flusher();
                Poll::Pending
            }
            (Ok(_), Sent::NoCredit) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.wait(cx);
                }
                Poll::Pending
            }
        }
    }

    /// Takes what a frame says. `held` is what the record held.
    pub(super) fn take(&mut self, event: Event, held: &[u8]) {
        let (Event::Data(id, _)
        | Event::End(id)
        | Event::Done(id)
        | Event::Abort(id, _)
        | Event::Credit(id)
        | Event::Moved(id)
        | Event::JoinLost(id)
        | Event::Opened(id, _)
        | Event::Open(id, _)) = event
        else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match event {
            Event::Data(_, range) => {
                let taken = entry.receive(&held[range]);
                self.carrier.taken(id, taken);
            }
            Event::Opened(_, Err(_)) => {
                // Of a later version: this stream alone is over (X2).
                entry.abort(AbortReason::NotUnderstood);
                self.carrier.abort(id, AbortReason::NotUnderstood);
            }
            Event::End(_) => entry.end(),
            Event::Done(_) => entry.done(),
            Event::Abort(_, reason) => entry.abort(reason),
            Event::Moved(_) => entry.moved(),
            Event::JoinLost(_) => {
                entry.has_lost_session = true;
                entry.wake();
            }
            Event::Credit(_) | Event::Opened(_, Ok(_)) => entry.wake(),
            Event::Open(..) | Event::GoAway(_) => {}
        }
    }

    /// Says of a stream why this side gives it up. Returns whether that is said here.
    pub(super) fn abort(&mut self, id: StreamId, reason: AbortReason) -> bool {
        self.wake_flusher();
        self.carrier.abort(id, reason)
    }

    /// Whether the other end may open one more stream before the next check.
    pub(super) const fn may_open(&mut self) -> bool {
        let may = self.opens > 0;
        self.opens = self.opens.saturating_sub(1);
        may
    }

    /// To be called at each check.
    pub(super) const fn allow_opens(&mut self) {
        self.opens = OPENS;
    }

    /// Begins to move a stream, at a sender, if it is bulk and may be moved (C9).
    pub(super) fn begin_join(&mut self, id: StreamId) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let may = entry.join == Join::No && entry.bulk.is_bulk() && self.moving < MOVING;
        if !may || !self.carrier.may_join(id) {
            return false;
        }
        self.carrier.join(id);
        entry.join = Join::Begun;
        self.moving += 1;
        true
    }

    /// The session of a stream is lost, and the stream stays.
    pub(super) fn lose_join(&mut self, id: StreamId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.join == Join::Begun {
            entry.join = Join::Lost;
            self.moving -= 1;
            self.carrier.join_lost(id);
        }
    }

    /// Takes a session that has proved to be for this stream, at a receiver (C10).
    ///
    /// # Errors
    /// The session, if the stream is not to be had.
    pub(super) fn join(&mut self, id: StreamId, tunnel: Box<Tunnel>) -> Result<(), Box<Tunnel>> {
        match self.entries.get_mut(&id) {
            Some(entry) if self.carrier.accept_join(id) => {
                entry.joined = Some(tunnel);
                entry.wake();
                self.wake_flusher();
                Ok(())
            }
            _ => Err(tunnel),
        }
    }

    fn insert(&mut self, id: StreamId, entry: Entry) {
        self.entries.insert(id, entry);
        // Those that are gone are dropped now and then, since nobody looks while nothing can be
        // written.
        if self.crowd.len() > 2 * self.entries.len() {
            self.crowd.retain(|id| self.entries.contains_key(id));
        }
    }

    /// Forgets what has come for a stream.
    pub(super) fn forget(&mut self, id: StreamId) {
        if self.entries.remove(&id).is_some_and(|entry| entry.join == Join::Begun) {
            self.moving -= 1;
        }
    }
}
