//! `--status`: metrics, health and a page over HTTP.
//!
//! ```text
//! place ─ serve ─ site ─┬ host     is this request meant for this server?
//!                       ├ origin   does a page of another site make it?
//!                       ├ health   is the process alive, and ready?
//!                       └ shared   answers that several requests share
//! ```
//!
//! The server has a thread and an event loop of its own. A client that is slow, hostile or
//! gone waits there for itself, and takes nothing from the pipe: the number of clients, their
//! time and the size of a request are limited, and what an answer costs is shared.

mod health;
mod host;
mod origin;
mod page;
mod place;
mod serve;
mod shared;
mod site;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::timeout;

pub(crate) use self::place::Place;
use self::serve::serve;
use self::site::Site;
use super::connection::context::Context;
use super::runtime::shutdown::{Shutdown, Trigger, shutdown};
use super::runtime::workers::{Probe, one_thread_runtime};

/// How long the thread may take until it no longer listens.
const CLOSING: Duration = Duration::from_secs(1);

/// The running server.
pub(crate) struct Http {
    close: Trigger,
    closed: Shutdown,
}

impl Http {
    /// Starts the thread, which listens as soon as it can.
    pub(crate) fn start(place: Place, context: Arc<Context>, workers: Probe) -> io::Result<Self> {
        let (close, closing) = shutdown();
        let (tell_closed, closed) = shutdown();
        let runtime = one_thread_runtime()?;
        thread::Builder::new().name("http".into()).spawn(move || {
            let site = Arc::new(Site::new(context, workers));
            runtime.block_on(serve(place, site, closing, tell_closed));
        })?;
        Ok(Self { close, closed })
    }

    /// Gives the address up, for the next process or because this one ends. Answers that are
    /// under way may still be sent.
    pub(crate) async fn close(&self) {
        self.close.begin();
        // A thread that is stuck must not keep the process from ending.
        let _closed = timeout(CLOSING, self.closed.begun()).await;
    }
}
