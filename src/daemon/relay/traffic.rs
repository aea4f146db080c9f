//! Bytes of a connection's stream, counted while they move.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of the stream went each way. Each count has one writer, the relay of
/// the connection; anybody may read it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes out of the local socket so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes into the local socket so far.
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

/// No atomic addition, which costs more: there is one writer.
fn add(count: &AtomicU64, bytes: usize) {
    #[expect(clippy::expect_used, reason = "a usize has 64 bits at most")]
    let bytes = u64::try_from(bytes).expect("a number of bytes fits in 64 bits");
    count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}
