//! A stream of a carrier, as its task has it.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::Poll;

use super::end::CarrierEnd;
use super::entry::Entry;
use super::link::{Link, State};
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::traffic::{Progress, Traffic};
use crate::protocol::carrier::{FIRST_CREDIT, NoStream, StreamId};
use crate::protocol::{AbortReason, Extensions};

/// A stream of a carrier. Guard: aborts it when dropped before its end.
pub(crate) struct CarriedStream {
    pub(super) link: Arc<Link>,
    pub(super) id: StreamId,
    pub(super) traffic: Arc<Traffic>,
    /// Whether this side has nothing more to say of it on the carrier.
    pub(super) is_over: bool,
}

impl CarriedStream {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the carrier has no room, or is over.
    pub(crate) fn open(link: &Arc<Link>, extensions: Extensions) -> Result<Self, NoStream> {
        let traffic = Arc::<Traffic>::default();
        let id = link.open(extensions, Entry::new(Arc::clone(&traffic)))?;
        Ok(Self { link: Arc::clone(link), id, traffic, is_over: false })
    }

    /// A stream that the other end has opened.
    pub(super) fn opened_by_peer(link: &Arc<Link>, state: &mut State, id: StreamId) -> Self {
        let traffic = Arc::<Traffic>::default();
        link.opened_by_peer(state, id, Entry::new(Arc::clone(&traffic)));
        Self { link: Arc::clone(link), id, traffic, is_over: false }
    }

    /// Its number on the carrier.
    pub(crate) const fn id(&self) -> StreamId {
        self.id
    }

    /// What it counts.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Waits until the other end has aborted it, or the carrier has ended.
    pub(crate) async fn lost(&self) -> RelayError {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            let entry = entry(&mut state, self.id);
            entry.wait(cx);
            let lost = match entry.aborted() {
                Some(reason) => Some(RelayError::Aborted(reason)),
                None => state.end.map(CarrierEnd::to_stream),
            };
            lost.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Says why this side refuses it.
    pub(crate) fn refuse(mut self, reason: Option<AbortReason>) {
        self.abort(reason.unwrap_or(AbortReason::LocalPeerReset));
    }

    /// Gives it up. Returns whether that is said on the carrier.
    pub(super) fn abort(&mut self, reason: AbortReason) -> bool {
        !mem::replace(&mut self.is_over, true) && self.link.lock().abort(self.id, reason)
    }

    /// How many bytes were read, and how many of them the other end's local socket has not taken.
    pub(super) fn progress(&self) -> Progress {
        (self.traffic.sent(), self.spent())
    }

    /// How many bytes were sent that the other end's local socket has not taken, as far as is
    /// known here.
    pub(super) fn spent(&self) -> usize {
        let credit = self.link.lock().carrier.sendable(self.id);
        usize::try_from(FIRST_CREDIT.saturating_sub(credit)).unwrap_or(usize::MAX)
    }
}

impl Drop for CarriedStream {
    fn drop(&mut self) {
        // A panic has ended the task where nothing was said.
        self.abort(AbortReason::LocalPeerReset);
        let mut state = self.link.lock();
        state.forget(self.id);
        self.link.count_streams(&state);
        if state.carrier.streams() == 0 {
            state.wake_owner();
        }
    }
}

/// What has come for a stream whose task lives.
#[expect(clippy::expect_used, reason = "an entry lasts as long as its stream")]
pub(super) fn entry(state: &mut State, id: StreamId) -> &mut Entry {
    state.entries.get_mut(&id).expect("an entry is removed by its stream alone")
}
