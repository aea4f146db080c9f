//! The traffic of a connection, counted while bytes move.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a direction has come: bytes read, and bytes still to be written. Two values
/// differ if something has moved in between.
pub(super) type Progress = (u64, usize);

/// How many bytes of the stream went each way. Each count has one writer, the connection's
/// relay, and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
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
}

/// Adds without an atomic addition, which costs more: there is only one writer.
fn add(count: &AtomicU64, bytes: usize) {
    #[expect(clippy::expect_used, reason = "a usize has 64 bits at most")]
    let bytes = u64::try_from(bytes).expect("a number of bytes fits in 64 bits");
    count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}
