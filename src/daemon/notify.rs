//! What systemd is told while we run (`sd_notify(3)`): that we are ready, what
//! we do, that we reload, that we end, and that no thread is stuck.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing of this happens. This
//! process runs no other program, so nobody inherits that variable from it.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState::{
    Custom, MonotonicUsec, Ready, Reloading, Status, Stopping, Watchdog as Alive,
};
use sd_notify::{NotifyState, notify};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::warn;

use super::workers::Workers;

/// How often the status is told at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The watchdog of systemd, if it wants to be fed; how often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watchdog(Option<Duration>);

/// Tells the status whenever it changes.
pub(super) struct Notifier {
    is_on: bool,
    changed: Notify,
}

/// Dropped, it is a change of the status.
pub(super) struct Change<'a>(&'a Notifier);

/// Tells that the start is over.
pub fn tell_ready() {
    tell(&[Ready]);
}

/// Tells one line of what we do, or of why we do not.
pub fn tell_status(status: &str) {
    // A second line would be another message: a path can have one.
    tell(&[Status(&status.replace('\n', " "))]);
}

/// Tells that we reload for as long as `reload` takes.
pub(super) fn reloading<T>(reload: impl FnOnce() -> T) -> T {
    // Newer versions of systemd want to know when it began.
    match NotifyState::monotonic_usec_now() {
        Ok(now @ MonotonicUsec(_)) => tell(&[Reloading, now]),
        _ => tell(&[Reloading]),
    }
    let result = reload();
    tell(&[Ready]);
    result
}

/// Tells that we end, and that it may take that long.
pub(super) fn tell_stopping(status: &str, limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[Stopping, Status(status), Custom(&limit)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        warn!(hint = "is NOTIFY_SOCKET meant for us?", "systemd cannot be told of us: {error}");
    }
}

impl Notifier {
    pub(super) fn from_env() -> Self {
        let is_on = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self { is_on, changed: Notify::new() }
    }

    /// The status is another one now.
    pub(super) fn changed(&self) {
        if self.is_on {
            self.changed.notify_one();
        }
    }

    /// Tells the status now and when it has changed, at most once a second.
    /// As long as nothing changes, nothing wakes us.
    pub(super) async fn keep_telling(&self, status: impl Fn() -> String) -> Infallible {
        if !self.is_on {
            return pending().await;
        }
        loop {
            tell_status(&status());
            sleep(INTERVAL).await;
            self.changed.notified().await;
        }
    }
}

impl<'a> Change<'a> {
    pub(super) fn of(notifier: &'a Notifier) -> Self {
        Self(notifier)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.changed();
    }
}

impl Watchdog {
    /// That of this process. To be called before
    /// [`crate::background::detach`]: it is meant for this process id.
    #[must_use]
    pub fn from_env() -> Self {
        // Four times as often as it has to be, so that a busy system has time.
        let interval = sd_notify::watchdog_enabled().and_then(|limit| limit.checked_div(4));
        Self(interval.filter(|interval| !interval.is_zero()))
    }

    /// Feeds it for as long as every worker answers in turn: one that is stuck
    /// ends that, and systemd then ends us.
    pub(super) async fn feed(self, workers: &Workers) -> Infallible {
        let Some(interval) = self.0 else { return pending().await };
        loop {
            workers.all_answer().await;
            tell(&[Alive]);
            sleep(interval).await;
        }
    }
}
