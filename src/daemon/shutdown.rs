//! The end of the process: TERM and INT, and how all connections learn of it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
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
    /// Waits until the process is ending.
    pub(super) async fn begun(&self) {
        // The trigger dropped counts as well.
        let mut receiver = self.0.clone();
        let _ended = receiver.wait_for(|begun| *begun).await;
    }
}

/// Waits for TERM or INT. Handled from the call on, also as PID 1, to which
/// the kernel delivers no signal that is not handled.
pub(super) fn signals() -> io::Result<impl Future<Output = &'static str>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "TERM",
            _ = int.recv() => "INT",
        }
    })
}
