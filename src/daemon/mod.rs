//! The pipe as a daemon: everything that carries connections, on event loops.
//!
//! The folders are layers: each names only what stands below it.
//!
//! ```text
//! names       looks names up without a start
//! server      serves, and drains at the end
//! http        tells metrics and health to other programs, on a thread of its own
//! control     other processes say what to do, as 'spiped rekey' does
//! proof       makes a sender's connection without a client
//! spipe       makes one with standard input and output as the client
//! accept      source ─ listener ─ admission ─┐
//! connection  ┌ receiver: handshake ─ target ┤
//!             └ sender:   target ─ handshake ┤
//! carrier     many streams over one tunnel   │
//! limits      how many of each there may be  │
//! relay       local ─▶ outbound ─▶ tunnel    │
//!             local ◀─ inbound  ◀─ tunnel   ─┘
//! net         sockets: streams, the target, names
//! runtime     threads, and how they end
//! ```
//!
//! Only a mistake of our own can cause a panic. It ends the connection that it happens
//! in and nothing else. The log has one line with the location. Both sockets are reset,
//! so that neither the local peer nor the other end takes the stream for complete (a unix
//! socket knows no reset: its peer sees the end of the stream). What the connection held
//! is given back, and the process goes on.

pub(crate) mod accept;
mod carrier;
pub(crate) mod connection;
pub(crate) mod control;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod net;
pub(crate) mod proof;
mod relay;
mod runtime;
mod server;
pub(crate) mod spipe;

use rand::rngs::SysRng;
use tokio::select;

use self::accept::access::Access;
use self::accept::{Inherited, Rights, Source, SourceError};
use self::control::server::Control;
use self::http::Place;
use self::limits::Limits;
use self::runtime::shutdown::Signals;
use self::runtime::workers::one_thread_runtime;
use self::server::{Ingress, Server};
use crate::config::{Address, Config, Dns};
use crate::keys::KeyStore;
use crate::process::access::AllowedClients;
use crate::protocol::{Kex, warm_up};
use crate::report::{AnyError, SystemError};
use crate::unit::keeper::Listening;
use crate::unit::notify::Watchdog;

/// What a process is started with beside its configuration.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// Listening sockets from systemd.
    pub(crate) sockets: Inherited,
    pub(crate) watchdog: Watchdog,
    /// With `--handover`: dropped once this process no longer listens.
    pub(crate) listening: Option<Listening>,
    /// The uid of the user after `-u`.
    pub(crate) user: Option<u32>,
    /// Who may connect to a unix source.
    pub(crate) rights: Rights,
    /// Who may use a sender; `None`: everybody.
    pub(crate) allowed: Option<AllowedClients>,
}

/// Runs one end of a pipe: binds the source and serves until TERM or INT. Calls
/// `on_ready` once the source is bound; with `-D`, before its name resolves.
///
/// # Errors
/// When the source cannot be bound, `on_ready` fails, or the system lacks what this
/// process needs.
pub(crate) fn run(
    config: &Config,
    keys: KeyStore,
    start: Start,
    on_ready: impl FnOnce() -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    let Start { mut sockets, watchdog, listening, user, rights, allowed } = start;
    let status = Place::of(config, &mut sockets)?;
    let source = Source::of(config, sockets, rights)?;
    let access = Access::of(allowed);
    let status_listeners = status.as_ref().map_or(0, Place::listeners);
    let limits = Limits::from_descriptors(config, source.listeners(), status_listeners)?;
    if config.tunnel.kex.0 != Some(Kex::X25519) {
        warm_up(&mut SysRng);
    }
    let runtime = one_thread_runtime().map_err(SystemError::of("cannot start the event loop"))?;
    runtime.block_on(async {
        let mut signals = Signals::handle(config.process.run_mode())
            .map_err(SystemError::of("cannot handle signals"))?;
        let control = bind_control(config, user)?;
        let source = match config.process.dns {
            // Any other source is there now, and this user may be the only one who can make it.
            Dns::Wait if source.has_name() => source,
            Dns::AtStart | Dns::Wait => select! {
                listeners = source.listen(&config.tunnel.target, &access) => Source::Listening(listeners?),
                _signal = signals.end.next() => return Ok(()),
                () = signals.handover.received() => return Ok(()),
            },
        };
        // A server that cannot be made is an error before the process counts as ready.
        let server = Server::new(config, keys, limits, status)?;
        on_ready()?;
        Ok(server.serve(Ingress { source, control, listening, access }, signals, watchdog).await?)
    })
}

fn bind_control(config: &Config, user: Option<u32>) -> Result<Option<Control>, SourceError> {
    let Some(path) = &config.process.control else { return Ok(None) };
    let control = Control::bind(path, user)
        .map_err(|error| SourceError::Listen { address: Address::Unix(path.clone()), error })?;
    Ok(Some(control))
}
