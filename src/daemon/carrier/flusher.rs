//! The flusher: a task that the first stream of a turn wakes, so that it runs behind all
//! streams that are ready. It seals what they have said, and writes it at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::unconstrained;

use super::end::CarrierEnd;
use super::link::{Link, State};
use crate::protocol::SealError;

/// Writes what a carrier says, until the carrier has ended.
pub(super) async fn flush(link: Arc<Link>) {
    unconstrained(poll_fn(|cx| poll_flush(&link, cx))).await;
}

fn poll_flush(link: &Link, cx: &mut Context<'_>) -> Poll<()> {
    let mut state = link.lock();
    if state.end.is_some() {
        return Poll::Ready(());
    }
    match poll_round(&mut state, link, cx) {
        Ok(()) => {
            link.count_streams(&state);
            Poll::Pending
        }
        Err(end) => {
            state.fail(end);
            Poll::Ready(())
        }
    }
}

fn poll_round(state: &mut State, link: &Link, cx: &mut Context<'_>) -> Result<(), CarrierEnd> {
    state.set_flusher(cx.waker());
    loop {
        let State { carrier, outgoing, .. } = state;
        let all = outgoing.fill(|batch| Ok::<_, SealError>(carrier.write_due(batch)))?;
        outgoing.seal()?;
        if outgoing.poll_write(cx, &link.tunnel)?.is_pending() {
            return Ok(());
        }
        if all {
            break;
        }
    }
    if state.carrier.streams() == 0 {
        state.wake_owner();
    }
    if state.wake_crowd() {
        // Those that were woken run first.
        state.wake_flusher();
    }
    Ok(())
}
