//! The end of the process: TERM, INT and USR1, and how all connections learn of it; HUP.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::config::Ground;
use crate::signals::{next, unblock, unless_ignored};

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

/// The signals that a process of a pipe handles.
pub(super) struct Signals {
    pub(super) reload: ReloadSignal,
    pub(super) handover: HandoverSignal,
    pub(super) end: EndSignals,
}

impl Signals {
    pub(super) fn handle(ground: Ground) -> io::Result<Self> {
        let reload = ReloadSignal::handle()?;
        let handover = HandoverSignal::handle(ground)?;
        Ok(Self { reload, handover, end: EndSignals::handle()? })
    }
}

/// The signals that end the process. They are handled from here on, also as PID
/// 1, to which the kernel delivers no signal that is not handled.
pub(super) struct EndSignals {
    term: Option<Signal>,
    int: Option<Signal>,
}

impl EndSignals {
    /// To be called once all other signals are handled: blocked ones come from
    /// here on.
    pub(super) fn handle() -> io::Result<Self> {
        let signals = Self {
            term: unless_ignored(SignalKind::terminate())?,
            int: unless_ignored(SignalKind::interrupt())?,
        };
        unblock()?;
        for (name, signal) in [("TERM", &signals.term), ("INT", &signals.int)] {
            if signal.is_none() {
                info!("{name} was ignored when this process was started, and stays ignored");
            }
        }
        Ok(signals)
    }

    /// Waits for the next one; its name.
    pub(super) async fn next(&mut self) -> &'static str {
        select! {
            () = next(&mut self.term) => "TERM",
            () = next(&mut self.int) => "INT",
        }
    }
}

/// USR1 with `--handover`: the next process of the unit takes over.
pub(super) struct HandoverSignal(Option<Signal>);

impl HandoverSignal {
    pub(super) fn handle(ground: Ground) -> io::Result<Self> {
        let is_ours = ground == Ground::Handover;
        Ok(Self(is_ours.then(|| signal(SignalKind::user_defined1())).transpose()?))
    }

    /// Waits for it; for ever without `--handover`.
    pub(super) async fn received(&mut self) {
        next(&mut self.0).await;
    }
}

/// HUP, which has the process read its key file again; also where it was ignored
/// at the start: that ends nothing, which is all that nohup is for.
pub(super) struct ReloadSignal(Signal);

impl ReloadSignal {
    pub(super) fn handle() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        // Ends only with the runtime.
        let _received = self.0.recv().await;
    }
}
