//! The pipe as a daemon; the only folder that knows tokio.
//!
//! A connection goes through the files like this:
//!
//! ```text
//! mod ─ listener ─ workers ─ connection ┬ strangers ─ handshake ┬ target ┬ relay ─ close
//!                                       └ (sender:)     target ─┴────────┘   └ buffer
//! ```

mod buffer;
mod close;
mod connection;
mod deadline;
mod handshake;
mod listener;
mod log_limit;
mod places;
mod relay;
mod shutdown;
mod strangers;
mod stream;
mod target;
mod workers;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::Socket;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;
use tracing::{info, warn};

use self::connection::Accepted;
use self::listener::Listener;
use self::log_limit::LogLimit;
use self::places::Places;
use self::shutdown::{Shutdown, shutdown, signals};
use self::strangers::Strangers;
use self::stream::Peer;
use self::workers::{Workers, one_thread_runtime};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{SharedKey, Suite};

/// How long connections may take to tell the other end that we are ending.
const GOODBYE: Duration = Duration::from_secs(3);

/// What all connections share.
struct Shared {
    config: Config,
    key: SharedKey,
    /// The suite a sender uses.
    suite: Suite,
    places: Places,
    connections: Semaphore,
    strangers: Arc<Strangers>,
    stranger_log: Mutex<LogLimit>,
    shutdown: Shutdown,
}

/// One end of a pipe: binds the source and serves until TERM or INT.
///
/// # Errors
/// When the source can't be bound, or the system fails us for good.
pub fn run(config: &Config, key: SharedKey) -> Result<(), Error> {
    let places = Places::from_limits(config);
    let runtime = one_thread_runtime().map_err(system("cannot start the event loop"))?;
    runtime.block_on(async {
        let listeners = listener::bind(&config.source)
            .map_err(|error| Error::Listen { address: config.source.clone(), error })?;
        serve(config, key, places, listeners).await
    })
}

/// Serves the listeners until a signal, then tells all connections.
async fn serve(
    config: &Config,
    key: SharedKey,
    places: Places,
    listeners: Vec<Listener>,
) -> Result<(), Error> {
    let signals = signals().map_err(system("cannot handle signals"))?;
    let workers = Workers::start(config.threads).map_err(system("cannot start a thread"))?;
    let (trigger, shutdown) = shutdown();
    let shared = Arc::new(Shared::new(config, key, places, shutdown));
    for listener in &listeners {
        info!(
            key_id = %shared.key.id(),
            target = %config.target,
            connections = places.connections,
            "{} listening on {}",
            config.role,
            listener.address().as_ref().unwrap_or(&config.source),
        );
    }

    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let next_id = AtomicU64::new(1);
    let take = |socket: Socket, peer: Peer| {
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        let connection = connection::run(Arc::clone(&shared), Accepted { id, socket, peer });
        let alive = alive.clone();
        workers.spawn(async move {
            connection.await;
            drop(alive);
        });
    };
    tokio::select! {
        result = accept_on_all(&listeners, &take) => {
            result.map_err(system("cannot accept connections any more"))?;
        }
        signal = signals => info!("{signal} received, ending"),
    }
    drop(listeners);
    trigger.begin();
    drop(alive);
    if timeout(GOODBYE, all_ended.recv()).await.is_err() {
        warn!("some connections are cut, they took longer than {GOODBYE:?} to end");
    }
    Ok(())
}

/// Accepts on every listener at once; ends only when one of them is broken.
async fn accept_on_all(listeners: &[Listener], take: &impl Fn(Socket, Peer)) -> io::Result<()> {
    let mut accepting: Vec<_> =
        listeners.iter().map(|listener| Box::pin(listener.accept(take))).collect();
    std::future::poll_fn(|context| {
        accepting
            .iter_mut()
            .map(|accept| accept.as_mut().poll(context))
            .find(std::task::Poll::is_ready)
            .unwrap_or(std::task::Poll::Pending)
    })
    .await
}

impl Shared {
    fn new(config: &Config, key: SharedKey, places: Places, shutdown: Shutdown) -> Self {
        Self {
            config: config.clone(),
            key,
            suite: config.cipher.0.unwrap_or_else(fastest_suite),
            places,
            connections: Semaphore::new(places.connections),
            strangers: Strangers::new(places.strangers),
            stranger_log: Mutex::default(),
            shutdown,
        }
    }

    /// A place for a connection, unless all are taken.
    fn connection_place(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.try_acquire().ok()
    }

    /// Whether a line about a stranger may be written: `Some` with how many
    /// were left out before it.
    fn may_log_stranger(&self) -> Option<u64> {
        self.stranger_log.lock().unwrap_or_else(PoisonError::into_inner).allow()
    }
}

/// AES-256-GCM where the processor has instructions for it.
fn fastest_suite() -> Suite {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::System { what, error }
}
