//! The resolver: names become addresses, on a thread of their own, since a look-up may
//! block for long.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::select;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use crate::config::{Refresh, as_given};
use crate::process::blocking::BlockingThread;

/// The interval of look-ups while a name has never resolved, or its addresses do not
/// answer.
const SOON: Duration = Duration::from_secs(1);

/// Looks up all addresses of a name; at least one.
pub(crate) async fn resolve(
    resolver: &BlockingThread,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    let answer = resolver.run(move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    answer.await.and_then(|answer| {
        if answer.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(answer) }
    })
}

/// The name of a target, and its known addresses.
pub(crate) struct ResolvedName {
    host: String,
    port: u16,
    resolver: BlockingThread,
    /// The last good answer; empty until there is one. Notified when the addresses change.
    known: watch::Sender<Vec<SocketAddr>>,
    /// Why the last look-up failed, if it did. Notified after each look-up.
    failure: watch::Sender<Option<String>>,
    /// Notified when a connect has failed: the addresses may have changed.
    doubt: Notify,
}

impl ResolvedName {
    /// # Errors
    /// When the thread for look-ups cannot be started.
    pub(crate) fn new(host: &str, port: u16) -> io::Result<Self> {
        Ok(Self {
            host: host.to_owned(),
            port,
            resolver: BlockingThread::start("resolver")?,
            known: watch::Sender::default(),
            failure: watch::Sender::default(),
            doubt: Notify::new(),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The last good answer. Where there is none yet, waits for the look-up under way, for
    /// which [`ResolvedName::keep_resolved`] must run.
    ///
    /// # Errors
    /// Why the last look-up failed, where there has never been an answer.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut failure = self.failure.subscribe();
        loop {
            // Read before `known`, so that an answer in between counts as a change.
            let failed = failure.borrow_and_update().clone();
            let known = self.known.borrow().clone();
            if !known.is_empty() {
                return Ok(known);
            }
            if let Some(failed) = failed {
                return Err(failed);
            }
            if failure.changed().await.is_err() {
                // Never: the sender lives as long as this.
                return pending().await;
            }
        }
    }

    /// Looks the name up again and again, as often as `refresh` says; for ever.
    pub(crate) async fn keep_resolved(&self, refresh: Refresh) -> Infallible {
        loop {
            match resolve(&self.resolver, &self.host, self.port).await {
                Ok(answer) => {
                    self.learn(answer);
                    self.failure.send_replace(None);
                }
                Err(error) => self.keep_known(&error),
            }
            match refresh {
                _ if self.known.borrow().is_empty() => sleep(SOON).await,
                Refresh::Every(time) => self.wait(time).await,
                Refresh::Never => pending().await,
            }
        }
    }

    /// Waits for `time`; while connects fail, for [`SOON`] at most.
    async fn wait(&self, time: Duration) {
        let soon = time.min(SOON);
        sleep(soon).await;
        select! {
            () = sleep(time.saturating_sub(soon)) => {}
            () = self.doubt.notified() => {}
        }
    }

    /// Has the name looked up again after a failed connect, once a second at most.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    fn learn(&self, answer: Vec<SocketAddr>) {
        let host = &self.host;
        self.known.send_if_modified(|known| {
            let has_moved = !known.is_empty() && is_another(known, &answer);
            if known.is_empty() {
                info!(now = ?answer, "the name {host} resolves");
            } else if has_moved {
                info!(before = ?*known, now = ?answer, "the name {host} resolves to another address");
            }
            *known = answer;
            has_moved
        });
    }

    /// Keeps the last good answer after a failed look-up. Logs the first failure.
    fn keep_known(&self, error: &io::Error) {
        let before = self.failure.send_replace(Some(error.to_string()));
        if before.is_some() {
            return;
        }
        let Self { host, known, .. } = self;
        let hint = &*as_given("check the name after -t and the resolver");
        let known = &*known.borrow();
        if known.is_empty() {
            warn!(hint, "the name {host} does not resolve, retrying: {error}");
        } else {
            warn!(
                hint,
                ?known,
                "the name {host} does not resolve, keeping the last good answer: {error}"
            );
        }
    }

    pub(crate) fn moves(&self) -> Moves {
        Moves(Some(self.known.subscribe()))
    }
}

/// Tells when a name resolves to other addresses than before.
pub(crate) struct Moves(Option<watch::Receiver<Vec<SocketAddr>>>);

impl Moves {
    /// For a target without a name.
    pub(crate) const fn never() -> Self {
        Self(None)
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) {
        if let Some(known) = &mut self.0
            && known.changed().await.is_ok()
        {
            return;
        }
        pending::<()>().await;
    }
}

/// Whether the addresses differ; their order, which resolvers change, does not count.
fn is_another(before: &[SocketAddr], now: &[SocketAddr]) -> bool {
    before.iter().any(|address| !now.contains(address))
        || now.iter().any(|address| !before.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_order_is_no_other_address() {
        let [a, b] = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
        assert!(!is_another(&[a, b], &[b, a]));
        assert!(is_another(&[a], &[a, b]) && is_another(&[a, b], &[b]) && is_another(&[a], &[b]));
    }
}
