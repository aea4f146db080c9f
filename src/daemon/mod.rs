//! The pipe as a daemon: the only folder that knows sockets and time.
//!
//! A connection goes through the files like this:
//!
//! ```text
//! source ─ listener ─ admission ┬ strangers ─ connection ┬ handshake ─ target ┬ relay ─ close
//!                               └ (sender:) ─────────────┴ target ─ handshake ┘   └ buffer
//! ```
//!
//! With `--prewarm`, the file of that name has been to target and handshake before;
//! `check` goes that way without a client, to see whether it can be gone.
//!
//! A panic, which only a fault of ours can cause, ends the connection that it
//! happens in and nothing else: the log has one line with the place, both of
//! its sockets are reset, so that neither the local peer nor the other end
//! takes the stream for complete (a unix socket knows no reset: a peer on one
//! sees the end of the stream), its places are given back, and the process
//! goes on.

mod activation;
mod admission;
mod blocking;
mod budget;
mod buffer;
mod check;
mod close;
mod connection;
mod control;
mod deadline;
mod fd_store;
mod handshake;
mod listener;
mod log_limit;
mod loops;
mod notify;
mod outcomes;
mod patience;
mod places;
mod plaintext;
mod prewarm;
mod relay;
mod resolver;
mod server;
mod shutdown;
mod source;
mod spipe;
mod strangers;
mod stream;
mod target;
mod workers;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::select;
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::blocking::BlockingThread;
use self::budget::Budget;
use self::close::{Close, Stranger};
use self::connection::{Accepted, turn_away};
use self::control::Control;
use self::log_limit::LogLimits;
use self::notify::Notifier;
use self::outcomes::Outcomes;
use self::places::Places;
use self::prewarm::Prewarmed;
use self::server::Server;
use self::shutdown::{Shutdown, Signals};
use self::source::Source;
use self::strangers::Strangers;
use self::target::Target;
use self::workers::one_thread_runtime;
use crate::config::{Address, Config, Dns, ProcessConfig};
use crate::error::Error;
use crate::keeper::Listening;
use crate::key_file::{self, KeyFileError, Owners};
use crate::privileges;
use crate::protocol::{KeyId, ReplaySet, SharedKey, Suite};

pub use self::activation::{ActivationError, Inherited};
pub use self::check::{Fault, FaultKind, check};
pub use self::notify::{Watchdog, tell_last_status, tell_ready};
pub use self::spipe::{Ended, spipe};

/// What all connections share.
struct Shared {
    config: Config,
    /// HUP, and `spiped rekey`, put another in its place.
    key: watch::Sender<Arc<SharedKey>>,
    /// Reads files, which may be far away.
    files: BlockingThread,
    target: Target,
    places: Places,
    budget: Budget<Accepted>,
    prewarmed: Prewarmed,
    strangers: Arc<Strangers>,
    replays: Mutex<ReplaySet>,
    log_limits: LogLimits,
    outcomes: Outcomes,
    notifier: Notifier,
    /// Begins when the next process of the unit takes over: who was accepted here is
    /// served here.
    handover: Shutdown,
    /// Begins with the first signal: who is not served yet will not be.
    drain: Shutdown,
    /// Begins when the time to drain is over.
    shutdown: Shutdown,
}

/// What systemd gives a process that it starts.
#[derive(Debug, Default)]
pub struct Start {
    /// Sockets that listen already.
    pub sockets: Inherited,
    /// Whether it wants to be told that we live.
    pub watchdog: Watchdog,
    /// Dropped when we do not listen any more, with `--handover`.
    pub listening: Option<Listening>,
}

/// Where connections come in, and new keys.
struct Doors {
    source: Source,
    control: Option<Control>,
    listening: Option<Listening>,
}

/// One of the connections there may be, given back when dropped: after its sockets.
struct ConnectionPlace(Arc<Shared>);

/// One end of a pipe: binds the source and serves until TERM or INT. Calls
/// `ready` once the source is bound; with `-D`, before its name resolves.
///
/// # Errors
/// When the source can't be bound, `ready` fails, or the system fails us for
/// good.
pub fn run(
    config: &Config,
    key: SharedKey,
    start: Start,
    ready: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let Start { sockets, watchdog, listening } = start;
    let source = Source::of(config, sockets)?;
    let places = Places::from_limits(config, source.listeners())?;
    let runtime = one_thread_runtime().map_err(system("cannot start the event loop"))?;
    runtime.block_on(async {
        let mut signals =
            Signals::handle(config.process.ground).map_err(system("cannot handle signals"))?;
        let control = bind_control(&config.process)?;
        let source = match config.dns {
            Dns::AtStart => select! {
                listeners = source.listen(&config.tunnel.target) => Source::Listening(listeners?),
                _signal = signals.end.next() => return Ok(()),
                () = signals.handover.received() => return Ok(()),
            },
            Dns::Wait => source,
        };
        // Whatever may be missing is found before anybody is told that it is ready.
        let server = Server::new(config, key, places)?;
        ready()?;
        server.serve(Doors { source, control, listening }, signals, watchdog).await
    })
}

fn bind_control(process: &ProcessConfig) -> Result<Option<Control>, Error> {
    let Some(path) = &process.control else { return Ok(None) };
    let user = process.run_as.as_ref().map(privileges::user_id).transpose()?.flatten();
    let control = Control::bind(path, user)
        .map_err(|error| Error::Listen { address: Address::Unix(path.clone()), error })?;
    Ok(Some(control))
}

impl Shared {
    /// The key in force now.
    fn key(&self) -> Arc<SharedKey> {
        Arc::clone(&self.key.borrow())
    }

    /// Reads the key file again; a bad one changes nothing. Open connections
    /// go on with the keys they agreed on.
    async fn reload_key(&self) {
        let path = self.config.tunnel.key.clone();
        if path == Path::new("-") {
            warn!("the key came by standard input and cannot be read again");
            return;
        }
        match self.files.run(move || Ok(key_file::read(&path, Owners::Own))).await {
            Ok(Ok(key)) => {
                self.replace_key(key);
            }
            Ok(Err(error)) => {
                let hint = match (&error, &self.config.process.run_as) {
                    (KeyFileError::Read { .. }, Some(_)) => {
                        "after -u this user may not read it: use 'spiped rekey', or restart"
                    }
                    _ => error.hint(),
                };
                error!(hint, key_id = %self.key().id(), "the key stays as it was: {error}");
            }
            Err(error) => error!(key_id = %self.key().id(), "the key stays as it was: {error}"),
        }
    }

    /// From now on new connections use this key, and sessions that were made
    /// ready with another one are not opened any more. Returns its id.
    fn replace_key(&self, key: SharedKey) -> KeyId {
        let (id, before) = (key.id(), self.key().id());
        if id == before {
            info!(key_id = %id, "key reloaded: it is the same key");
        } else {
            info!(key_id = %id, %before, "key reloaded");
        }
        self.key.send_if_modified(|now| {
            let is_another = now.id() != id;
            *now = Arc::new(key);
            is_another
        });
        self.notifier.changed();
        id
    }

    /// A place for a connection, unless all are taken.
    fn connection_place(self: &Arc<Self>) -> Option<ConnectionPlace> {
        for parked in self.budget.open()? {
            turn_away(self, parked, &Stranger::NoPlace.into());
        }
        self.notifier.changed();
        Some(ConnectionPlace(Arc::clone(self)))
    }

    /// Why there is no place.
    const fn at_limit(&self) -> Close {
        Close::Limit(self.places.connections)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.budget.close();
        self.0.notifier.changed();
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
