//! The server: serves connections until a signal, then drains.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::Socket;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio::{join, select};
use tracing::field::display;
use tracing::{info, warn};

use super::accept::access::Access;
use super::accept::admission::Admission;
use super::accept::{
    Listener, Source, SourceError, accept_on_all, forget_stored, warn_of_plaintext,
};
use super::connection::carriers::{Carriers, keeper};
use super::connection::close_reason::CloseReason;
use super::connection::context::Context;
use super::connection::observer::{INTERVAL, Told};
use super::connection::prewarm;
use super::connection::prewarmed::Prewarmed;
use super::connection::{LogLimits, Observer};
use super::control::server::Control;
use super::http::{Http, Place};
use super::limits::Limits;
use super::limits::fd_budget::FdBudget;
use super::limits::pre_auth::PreAuthPool;
use super::net::peer::Peer;
use super::net::target::Target;
use super::runtime::shutdown::{
    EndSignals, HandoverSignal, ReloadSignal, Signals, Trigger, shutdown,
};
use super::runtime::workers::{Home, Workers};
use crate::config::{Config, RunMode};
use crate::keys::KeyStore;
use crate::process::blocking::BlockingThread;
use crate::report::SystemError;
use crate::unit::keeper::Listening;
use crate::unit::notify::{self, Notifier, Watchdog};

/// The longest drain of a unit with `--handover` when the unit is stopped.
const STOP_DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long connections may take to tell the other end that this process is ending.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where connections and requests come in.
pub(super) struct Ingress {
    pub(super) source: Source,
    pub(super) control: Option<Control>,
    pub(super) listening: Option<Listening>,
    pub(super) access: Access,
}

/// The server of one end of a pipe.
pub(super) struct Server {
    context: Arc<Context>,
    workers: Workers,
    http: Option<Http>,
    handover: Trigger,
    drain: Trigger,
    shutdown: Trigger,
}

impl Server {
    pub(super) fn new(
        config: &Config,
        keys: KeyStore,
        limits: Limits,
        status: Option<Place>,
    ) -> Result<Self, SystemError> {
        let no_thread = SystemError::of("cannot start a thread");
        let workers = Workers::start(config.process.threads).map_err(no_thread)?;
        let (begin_handover, handover) = shutdown();
        let (begin_drain, drain) = shutdown();
        let (begin_shutdown, shutdown) = shutdown();
        let context = Arc::new(Context {
            config: config.clone(),
            keys,
            target: Target::new(&config.tunnel, limits.spare).map_err(no_thread)?,
            status_thread: BlockingThread::start("status").map_err(no_thread)?,
            limits,
            fd_budget: FdBudget::new(limits.connections, limits.descriptors),
            prewarmed: Prewarmed::default(),
            pre_auth: PreAuthPool::new(limits.pre_auth),
            replays: Mutex::default(),
            log_limits: LogLimits::default(),
            carriers: Carriers::new(config.process.threads.get()),
            ids: AtomicU64::new(1),
            observer: Observer::new(Notifier::from_env()),
            handover,
            drain,
            shutdown,
        });
        let http = |place| Http::start(place, Arc::clone(&context), workers.probe());
        let http = status.map(http).transpose().map_err(no_thread)?;
        Ok(Self {
            context,
            workers,
            http,
            handover: begin_handover,
            drain: begin_drain,
            shutdown: begin_shutdown,
        })
    }

    /// Serves until a signal, then drains. Meanwhile also feeds the watchdog, notifies
    /// systemd, reloads the key at HUP and resolves the target's name.
    pub(super) async fn serve(
        self,
        ingress: Ingress,
        Signals { mut reload, mut handover, mut end }: Signals,
        watchdog: Watchdog,
    ) -> Result<(), SourceError> {
        let serve = async {
            let Ingress { source, control, listening, access } = ingress;
            let target = &self.context.config.tunnel.target;
            let listeners = select! {
                // A source that is bound already serves, and drains at a signal.
                biased;
                listeners = source.listen_once_resolved(target, &access) => listeners?,
                result = self.serve_control(control.as_ref()) => return result,
                _signal = end.next() => return Ok(()),
                () = handover.received() => return Ok(()),
            };
            self.serve_and_tell(listeners, (control, listening, &access), (handover, end)).await
        };
        let result = select! {
            result = serve => result,
            never = watchdog.feed(async || self.workers.all_answer().await) => match never {},
            never = notify::keep_telling_late() => match never {},
            never = self.context.reload_at(&mut reload) => match never {},
            never = self.context.keep_sampling() => match never {},
            never = self.context.target.keep_resolved(self.context.config.connections.refresh) => match never {},
        };
        self.close_http().await;
        result
    }

    async fn close_http(&self) {
        if let Some(http) = &self.http {
            http.close().await;
        }
    }

    async fn serve_and_tell(
        &self,
        listeners: Vec<Listener>,
        ingress: (Option<Control>, Option<Listening>, &Access),
        signals: (HandoverSignal, EndSignals),
    ) -> Result<(), SourceError> {
        let names: Vec<_> = listeners.iter().map(Listener::name).collect();
        self.context.observer.listening_on(&names);
        self.log_start(&names);
        let config = &self.context.config;
        warn_of_plaintext(config, &listeners);
        let pipe = format!("{} on {} to {}", config.role, names.join(", "), config.tunnel.target);
        let status = || self.context.status(&pipe);
        select! {
            result = self.serve_and_drain(listeners, ingress, signals) => result,
            never = self.context.observer.keep_telling(status) => match never {},
        }
    }

    async fn serve_and_drain(
        &self,
        listeners: Vec<Listener>,
        (control, listening, access): (Option<Control>, Option<Listening>, &Access),
        (mut handover, mut end): (HandoverSignal, EndSignals),
    ) -> Result<(), SourceError> {
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let home = Home { on: self.workers.least_loaded().clone(), alive };
        let admission = Admission::new(&self.context, &self.workers, access, home.alive.clone());
        let take = async |socket: Socket, peer: Peer| admission.admit(socket, peer).await;
        select! {
            result = accept_on_all(&listeners, &take) => {
                result.map_err(SystemError::of("can no longer accept connections"))?;
            }
            never = admission.admit_parked() => match never {},
            result = self.serve_control(control.as_ref()) => result?,
            never = prewarm::keep(&self.context, &self.workers) => match never {},
            never = keeper::keep(&self.context, &self.workers, &home) => match never {},
            signal = end.next() => {
                self.context.log_end(&format!("{signal} received"));
            }
            () = handover.received() => {
                self.handover.begin();
                self.context.log_end("the next process takes over new connections");
                self.close_http().await;
            }
        }
        // From here on a connect is refused, and the socket's file is gone. In a socket
        // that systemd keeps, new clients wait for the next process.
        drop((listeners, listening, home));
        self.context.observer.listening_on(&[]);
        self.context.prewarmed.clear();
        self.drain.begin();
        let is_handed_over = self.context.handover.has_begun();
        if is_handed_over {
            notify::fall_silent();
        } else {
            // Without a next process, clients must not wait in the sockets that systemd
            // keeps.
            forget_stored();
            self.context.observer.status_changed();
            let limit = self.context.drain_limit().saturating_add(GOODBYE);
            notify::tell_stopping(&self.context.draining(), limit);
        }
        let admit_last = async {
            select! {
                // Only this process can serve the peers that it has accepted.
                () = admission.admit_all_parked(), if is_handed_over => {}
                () = self.context.shutdown.begun(), if is_handed_over => {}
                else => {}
            }
            drop(admission);
        };
        let ended = async { join!(admit_last, self.drain(&mut all_ended, &mut end)) };
        select! {
            _ended = ended => {}
            // A key can be revoked as long as connections are open. Without that, they end all
            // the same.
            Err(error) = self.serve_control(control.as_ref()) => warn!("{error}"),
        }
        self.context.log_limits.log_rest();
        self.context.log_totals();
        Ok(())
    }

    async fn serve_control(&self, control: Option<&Control>) -> Result<(), SourceError> {
        let result = match control {
            Some(control) => control.serve(&self.context).await,
            None => std::future::pending().await,
        };
        Ok(result.map_err(SystemError::of("the control socket is broken"))?)
    }

    fn log_start(&self, names: &[String]) {
        let config = &self.context.config;
        let keys = self.context.keys.in_force();
        // One key is named; of several there are so many.
        let only = keys.first().filter(|_| keys.iter().len() == 1);
        let (key, key_id) = (only.map(|key| display(&key.name)), only.map(|key| display(key.id())));
        let keys = only.is_none().then_some(keys.iter().len());
        for name in names {
            info!(
                key,
                key_id,
                keys,
                target = %config.tunnel.target,
                connections = self.context.limits.connections,
                "{} listening on {name}",
                config.role,
            );
        }
    }

    /// Waits for open connections to end by themselves. Ends the rest when the drain
    /// timeout is over, or at a second signal.
    async fn drain(&self, all_ended: &mut mpsc::Receiver<()>, end: &mut EndSignals) {
        select! {
            _ = all_ended.recv() => return,
            () = sleep(self.context.drain_limit()) => {}
            signal = end.next() => info!("{signal} received again: ending at once"),
        }
        self.shutdown.begin();
        if timeout(GOODBYE, all_ended.recv()).await.is_err() {
            warn!("some connections were cut: they took longer than {GOODBYE:?} to end");
        }
    }
}

impl Context {
    /// How long open connections have to end. When a unit with `--handover` is restarted,
    /// nothing waits for the drain; when it is stopped, systemd or the shutdown of the
    /// host does, so the drain is shorter.
    fn drain_limit(&self) -> Duration {
        let limit = self.config.process.drain_timeout.get();
        if self.config.process.run_mode() == RunMode::Handover && !self.handover.has_begun() {
            limit.min(STOP_DRAIN_MAX)
        } else {
            limit
        }
    }

    /// Reloads the key files at each HUP.
    async fn reload_at(&self, signal: &mut ReloadSignal) -> Infallible {
        loop {
            signal.next().await;
            notify::reloading(self.reload_keys()).await;
        }
    }

    /// Takes a sample every few seconds.
    async fn keep_sampling(&self) -> Infallible {
        loop {
            sleep(INTERVAL).await;
            self.observer.sample(|| self.fd_budget.connections()).await;
        }
    }

    /// The line that `systemctl status` shows.
    fn status(&self, pipe: &str) -> String {
        if self.drain.has_begun() {
            return self.draining();
        }
        let open = connections(self.fd_budget.connections());
        let kex = self.kex();
        let keys = self.keys.in_force();
        let keys = match keys.first() {
            Some(key) if keys.iter().len() == 1 => format!("key {} {}", key.name, key.id()),
            _ => format!("{} keys", keys.iter().len()),
        };
        format!("{pipe}, kex {kex}, {keys}: {open}{}", self.observer)
    }

    fn log_end(&self, why: &str) {
        let limit = self.drain_limit();
        match self.fd_budget.connections() {
            0 => info!("{why}: no connections are open"),
            open if limit.is_zero() => info!(open, "{why}: ending open connections"),
            open => info!(open, "{why}: draining open connections for up to {limit:?}"),
        }
    }

    fn log_totals(&self) {
        let Told { handshakes, totals, .. } = self.observer.told(String::new(), 0);
        let count = |counts: &BTreeMap<String, u64>, name| counts.get(name).copied().unwrap_or(0);
        let handshakes = count(&handshakes, "ok");
        let served = count(&totals.closed, CloseReason::Finished.name());
        info!(
            handshakes,
            served,
            sent = totals.sent_bytes,
            received = totals.received_bytes,
            "ended"
        );
    }

    fn draining(&self) -> String {
        format!("draining: {} still open", connections(self.fd_budget.connections()))
    }
}

fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}
