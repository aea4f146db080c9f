//! The traffic of a connection, counted while bytes move.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::daemon::net::stream::CHECK;

/// How far a direction has come: bytes read, and bytes still to be written. Two values
/// differ if something has moved in between.
pub(crate) type Progress = (u64, usize);

/// How many bytes of the stream went each way, and how many wait. Each count has one writer,
/// the connection's relay, and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    waiting_for_tunnel: AtomicU32,
    waiting_for_local: AtomicU32,
    /// Checks in a row in which bytes of one direction waited and none of them moved.
    stuck_checks: AtomicU32,
}

/// The bytes that waited at the last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// For the other host to acknowledge them.
    pub(crate) for_tunnel: u32,
    /// For the local program to read them, or its host to acknowledge them.
    pub(crate) for_local: u32,
    /// For how long at least none of one of the two has moved.
    pub(crate) since: Duration,
}

impl Traffic {
    /// Bytes that came out of the local socket.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that went into the local socket.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        add(&self.sent, bytes);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// Notes what waits at a check, and in how many checks before it one of the two has not
    /// moved.
    pub(crate) fn set_waiting(&self, for_tunnel: usize, for_local: usize, stuck_checks: u32) {
        let store = |count: &AtomicU32, value: usize| {
            count.store(u32::try_from(value).unwrap_or(u32::MAX), Ordering::Relaxed);
        };
        store(&self.waiting_for_tunnel, for_tunnel);
        store(&self.waiting_for_local, for_local);
        self.stuck_checks.store(stuck_checks, Ordering::Relaxed);
    }

    /// As if bytes had waited for so many checks.
    #[cfg(test)]
    pub(crate) fn set_waiting_for_tests(&self, stuck_checks: u32) {
        self.set_waiting(1, 1, stuck_checks);
    }

    pub(crate) fn waiting(&self) -> Waiting {
        Waiting {
            for_tunnel: self.waiting_for_tunnel.load(Ordering::Relaxed),
            for_local: self.waiting_for_local.load(Ordering::Relaxed),
            since: CHECK.saturating_mul(self.stuck_checks.load(Ordering::Relaxed)),
        }
    }
}

/// Adds without an atomic addition, which costs more: there is only one writer.
fn add(count: &AtomicU64, bytes: usize) {
    #[expect(clippy::expect_used, reason = "a usize has 64 bits at most")]
    let bytes = u64::try_from(bytes).expect("a number of bytes fits in 64 bits");
    count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}
