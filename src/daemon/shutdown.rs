//! The end of the process: TERM and INT, and how all connections learn of it.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Tells whether the process is ending.
#[derive(Clone)]
pub(super) struct Shutdown(watch::Receiver<bool>);

/// Makes it end.
pub(super) struct Trigger(watch::Sender<bool>);

/// A shutdown that has not begun.
pub(super) fn shutdown() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// From now on the process is ending.
    pub(super) fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the process is ending.
    pub(super) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the process is ending.
    pub(super) async fn begun(&self) {
        // The trigger dropped counts as well.
        let mut receiver = self.0.clone();
        let _ended = receiver.wait_for(|begun| *begun).await;
    }
}

/// The signals that end the process or have it read its key again. They are
/// handled from here on, also as PID 1, to which the kernel delivers no signal
/// that is not handled.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// TERM, INT: end; which of them.
    End(&'static str),
    /// HUP: read the key file again.
    Reload,
}

impl Signals {
    pub(super) fn handle() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Request {
        select! {
            _ = self.term.recv() => Request::End("TERM"),
            _ = self.int.recv() => Request::End("INT"),
            _ = self.hup.recv() => Request::Reload,
        }
    }
}
