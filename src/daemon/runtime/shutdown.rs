//! The signals of the process (TERM, INT, USR1, HUP), and how connections learn that the
//! process is ending.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::config::RunMode;
use crate::process::signals::{next, unblock, unless_ignored};

/// A phase of the process's end, such as the drain, as connections see it.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Sender<bool>);

/// Begins a [`Shutdown`].
pub(crate) struct Trigger(watch::Sender<bool>);

/// A shutdown that has not begun.
pub(crate) fn shutdown() -> (Trigger, Shutdown) {
    let sender = watch::Sender::new(false);
    (Trigger(sender.clone()), Shutdown(sender))
}

impl Trigger {
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the shutdown has begun.
    pub(crate) async fn begun(&self) {
        self.begun_or(|| false).await;
    }

    /// Waits until the shutdown has begun or `is_so`, which is asked again at each
    /// [`Self::ask_again`]. A connection has one place to wait at for both.
    pub(crate) async fn begun_or(&self, is_so: impl Fn() -> bool) {
        let waited = self.0.subscribe().wait_for(|begun| *begun || is_so()).await.map(drop);
        assert!(waited.is_ok(), "this has a sender");
    }

    /// Has all that wait look again whether it is so.
    pub(crate) fn ask_again(&self) {
        self.0.send_modify(|_begun| {});
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

/// TERM and INT, which end the process. The kernel delivers no unhandled signal to PID 1,
/// so both are handled there, too.
pub(crate) struct EndSignals {
    term: Option<Signal>,
    int: Option<Signal>,
}

impl EndSignals {
    /// Handles both. To be called once all other signals are handled, since signals that
    /// were blocked are delivered from here on.
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

    /// Waits for the next signal, and returns its name.
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

    /// Waits for the signal; for ever without `--handover`.
    pub(crate) async fn received(&mut self) {
        next(&mut self.0).await;
    }
}

/// HUP, which reloads the key file. HUP is handled even where it was ignored at the
/// start: nohup only asks that HUP does not end the process.
pub(crate) struct ReloadSignal(Signal);

impl ReloadSignal {
    pub(crate) fn handle() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        // The stream of signals ends only with the runtime.
        let _received = self.0.recv().await;
    }
}
