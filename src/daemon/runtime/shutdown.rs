//! The end of the process: TERM, INT and USR1, and how all connections learn of it; HUP.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::config::RunMode;
use crate::process::signals::{next, unblock, unless_ignored};

/// Tells whether the process is ending.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

/// Makes it end.
pub(crate) struct Trigger(watch::Sender<bool>);

/// A shutdown that has not begun.
pub(crate) fn shutdown() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// From now on the process is ending.
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the process is ending.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the process is ending.
    pub(crate) async fn begun(&self) {
        // The trigger dropped counts as well.
        let mut receiver = self.0.clone();
        let _ended = receiver.wait_for(|begun| *begun).await;
    }
}

/// The signals that a process of a pipe handles.
pub(crate) struct Signals {
    pub(crate) reload: ReloadSignal,
    pub(crate) handover: HandoverSignal,
    pub(crate) end: EndSignals,
}

impl Signals {
    pub(crate) fn handle(mode: RunMode) -> io::Result<Self> {
        let reload = ReloadSignal::handle()?;
        let handover = HandoverSignal::handle(mode)?;
        Ok(Self { reload, handover, end: EndSignals::handle()? })
    }
}

/// The signals that end the process. They are handled from here on, also as PID
/// 1, to which the kernel delivers no signal that is not handled.
pub(crate) struct EndSignals {
    term: Option<Signal>,
    int: Option<Signal>,
}

impl EndSignals {
    /// To be called once all other signals are handled: blocked ones come from
    /// here on.
    pub(crate) fn handle() -> io::Result<Self> {
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
    pub(crate) async fn next(&mut self) -> &'static str {
        select! {
            () = next(&mut self.term) => "TERM",
            () = next(&mut self.int) => "INT",
        }
    }
}

/// USR1 with `--handover`: the next process of the unit takes over.
pub(crate) struct HandoverSignal(Option<Signal>);

impl HandoverSignal {
    pub(crate) fn handle(mode: RunMode) -> io::Result<Self> {
        let is_ours = mode == RunMode::Handover;
        Ok(Self(is_ours.then(|| signal(SignalKind::user_defined1())).transpose()?))
    }

    /// Waits for it; for ever without `--handover`.
    pub(crate) async fn received(&mut self) {
        next(&mut self.0).await;
    }
}

/// HUP, which has the process read its key file again; also where it was ignored
/// at the start: that ends nothing, which is all that nohup is for.
pub(crate) struct ReloadSignal(Signal);

impl ReloadSignal {
    pub(crate) fn handle() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        // Ends only with the runtime.
        let _received = self.0.recv().await;
    }
}
