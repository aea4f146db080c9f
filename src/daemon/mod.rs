//! The pipe as a daemon; the only folder that knows tokio.
//!
//! A connection goes through the files like this:
//!
//! ```text
//! mod ─ listener ─ workers ─ connection ┬ strangers ─ handshake ┬ target ┬ relay ─ close
//!                                       └ (sender:)     target ─┴────────┘   └ buffer
//! ```
//!
//! A panic, which only a fault of ours can cause, ends the connection that it
//! happens in and nothing else: the log has one line with the place, both of
//! its sockets are reset, so that neither the local peer nor the other end
//! takes the stream for complete (a unix socket knows no reset: a peer on one
//! sees the end of the stream), its places are given back, and the process
//! goes on.

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
mod spipe;
mod strangers;
mod stream;
mod target;
mod workers;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use socket2::Socket;
use tokio::select;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use self::connection::Accepted;
use self::listener::Listener;
use self::log_limit::LogLimits;
use self::places::Places;
use self::shutdown::{Request, Shutdown, Signals, shutdown};
use self::strangers::Strangers;
use self::stream::Peer;
use self::target::Target;
use self::workers::{Workers, one_thread_runtime, run_to_end};
use crate::config::{Address, Config, Dns, Role};
use crate::error::Error;
use crate::key_file;
use crate::protocol::{SharedKey, Suite};

pub use self::spipe::{Ended, spipe};

/// How long connections may take to tell the other end that we are ending.
const GOODBYE: Duration = Duration::from_secs(3);
/// How soon a source whose name does not resolve is tried again (`-D`).
const UNRESOLVED: Duration = Duration::from_secs(1);

/// What all connections share.
struct Shared {
    config: Config,
    /// HUP puts another in its place.
    key: RwLock<Arc<SharedKey>>,
    target: Target,
    places: Places,
    connections: Semaphore,
    strangers: Arc<Strangers>,
    log_limits: LogLimits,
    /// Begins with the first signal: who is not served yet will not be.
    drain: Shutdown,
    /// Begins when the time to drain is over.
    shutdown: Shutdown,
}

/// One end of a pipe: binds the source and serves until TERM or INT. Calls
/// `ready` once the source is bound; with `-D`, before its name resolves.
///
/// # Errors
/// When the source can't be bound, `ready` fails, or the system fails us for
/// good.
pub fn run(
    config: &Config,
    key: SharedKey,
    ready: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let places = Places::from_limits(config);
    let runtime = one_thread_runtime().map_err(system("cannot start the event loop"))?;
    run_to_end(runtime, async {
        let mut signals = Signals::handle().map_err(system("cannot handle signals"))?;
        let listeners = match config.dns {
            Dns::AtStart => {
                let listeners = bind(&config.source).await?;
                ready()?;
                listeners
            }
            Dns::Wait => {
                ready()?;
                select! {
                    listeners = bind_once_resolved(&config.source) => listeners?,
                    _ = reload_until_end(&mut signals, || {}) => return Ok(()),
                }
            }
        };
        Server::new(config, key, places)?.serve(listeners, signals).await
    })
}

async fn bind(source: &Address) -> Result<Vec<Listener>, Error> {
    listener::bind(source).await.map_err(|error| Error::Listen { address: source.clone(), error })
}

/// Resolves the source until it succeeds, then binds it.
async fn bind_once_resolved(source: &Address) -> Result<Vec<Listener>, Error> {
    if let Address::Host(host, port) = source {
        let mut is_said = false;
        while let Err(error) = target::resolve(host, *port).await {
            if !is_said {
                warn!(
                    hint = "it is tried again until it does (-D)",
                    "the name {host} does not resolve: {error}"
                );
                is_said = true;
            }
            sleep(UNRESOLVED).await;
        }
    }
    bind(source).await
}

/// All that serves connections.
struct Server {
    shared: Arc<Shared>,
    workers: Workers,
    drain: shutdown::Trigger,
    shutdown: shutdown::Trigger,
}

impl Server {
    fn new(config: &Config, key: SharedKey, places: Places) -> Result<Self, Error> {
        let workers = Workers::start(config.threads).map_err(system("cannot start a thread"))?;
        let (begin_drain, drain) = shutdown();
        let (begin_shutdown, shutdown) = shutdown();
        let shared = Arc::new(Shared {
            config: config.clone(),
            key: RwLock::new(Arc::new(key)),
            target: Target::new(&config.tunnel),
            places,
            connections: Semaphore::new(places.connections),
            strangers: Strangers::new(places.strangers),
            log_limits: LogLimits::new(),
            drain,
            shutdown,
        });
        Ok(Self { shared, workers, drain: begin_drain, shutdown: begin_shutdown })
    }

    /// Serves the listeners until a signal ends it, then drains.
    async fn serve(self, listeners: Vec<Listener>, mut signals: Signals) -> Result<(), Error> {
        self.log_start(&listeners);
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let next_id = AtomicU64::new(1);
        let take = async |socket: Socket, peer: Peer| {
            let id = next_id.fetch_add(1, Ordering::Relaxed);
            let stranger = match self.shared.config.role {
                Role::Encrypt => None,
                Role::Decrypt => Some(self.shared.strangers.enter(&peer).await),
            };
            let accepted = Accepted { id, socket, peer, stranger };
            let connection = connection::run(Arc::clone(&self.shared), accepted);
            let alive = alive.clone();
            self.workers.spawn(async move {
                connection.await;
                drop(alive);
            });
        };
        select! {
            result = accept_on_all(&listeners, &take) => {
                result.map_err(system("cannot accept connections any more"))?;
            }
            () = self.shared.target.keep_resolved(self.shared.config.refresh) => {}
            signal = self.reload_until_end(&mut signals) => {
                let limit = self.shared.config.drain_timeout.get();
                info!("{signal} received: no new connections, {limit:?} for the open ones to end");
            }
        }
        // From here on a connect is refused, and the socket's file is gone.
        drop(listeners);
        drop(alive);
        self.drain.begin();
        self.drain(&mut all_ended, &mut signals).await;
        Ok(())
    }

    fn log_start(&self, listeners: &[Listener]) {
        let config = &self.shared.config;
        for listener in listeners {
            info!(
                key_id = %self.shared.key().id(),
                target = %config.tunnel.target,
                connections = self.shared.places.connections,
                "{} listening on {}",
                config.role,
                listener.address().as_ref().unwrap_or(&config.source),
            );
        }
    }

    async fn reload_until_end(&self, signals: &mut Signals) -> &'static str {
        reload_until_end(signals, || self.shared.reload_key()).await
    }

    /// Waits for open connections to end by themselves, then ends them: when
    /// the time for it is over, or at once at a second signal.
    async fn drain(&self, all_ended: &mut mpsc::Receiver<()>, signals: &mut Signals) {
        select! {
            _ = all_ended.recv() => return,
            () = sleep(self.shared.config.drain_timeout.get()) => {}
            signal = self.reload_until_end(signals) => info!("{signal} received again: ending at once"),
        }
        self.shutdown.begin();
        if timeout(GOODBYE, all_ended.recv()).await.is_err() {
            warn!("some connections are cut, they took longer than {GOODBYE:?} to end");
        }
    }
}

/// Calls `reload` at each HUP; returns at TERM or INT.
async fn reload_until_end(signals: &mut Signals, reload: impl Fn()) -> &'static str {
    loop {
        match signals.next().await {
            Request::Reload => reload(),
            Request::End(signal) => return signal,
        }
    }
}

/// Accepts on every listener at once; ends only when one of them is broken.
async fn accept_on_all(
    listeners: &[Listener],
    take: &impl AsyncFn(Socket, Peer),
) -> io::Result<()> {
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
    /// The key in force now.
    fn key(&self) -> Arc<SharedKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the key file again; a bad one changes nothing. Open connections
    /// go on with the keys they agreed on.
    fn reload_key(&self) {
        let path = &self.config.tunnel.key;
        if path == Path::new("-") {
            warn!("the key came by standard input and cannot be read again");
            return;
        }
        match key_file::read(path, None) {
            Ok(key) => {
                info!(key_id = %key.id(), before = %self.key().id(), "the key is read again");
                *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
            }
            Err(error) => {
                error!(key_id = %self.key().id(), hint = error.hint(), "the key stays as it was: {error}");
            }
        }
    }

    /// A place for a connection, unless all are taken.
    fn connection_place(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.try_acquire().ok()
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
