//! All that serves connections, from the first to the last.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::Socket;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio::{join, select};
use tracing::{info, warn};

use super::admission::Admission;
use super::blocking::BlockingThread;
use super::budget::Budget;
use super::control::Control;
use super::fd_store;
use super::listener::Listener;
use super::log_limit::LogLimits;
use super::notify::{self, Notifier, Watchdog};
use super::outcomes::Outcomes;
use super::places::Places;
use super::plaintext::warn_of_plaintext;
use super::prewarm::{self, Prewarmed};
use super::shutdown::{EndSignals, HandoverSignal, ReloadSignal, Signals, Trigger, shutdown};
use super::strangers::Strangers;
use super::stream::Peer;
use super::target::Target;
use super::workers::Workers;
use super::{Doors, Shared, system};
use crate::config::{Config, Ground};
use crate::error::Error;
use crate::keeper::Listening;
use crate::protocol::SharedKey;

/// How long a unit with `--handover` waits for open connections when it is stopped.
const STOP: Duration = Duration::from_secs(10);

/// How long connections may take to tell the other end that we are ending.
const GOODBYE: Duration = Duration::from_secs(3);

/// All that serves connections.
pub(super) struct Server {
    shared: Arc<Shared>,
    workers: Workers,
    handover: Trigger,
    drain: Trigger,
    shutdown: Trigger,
}

impl Server {
    pub(super) fn new(config: &Config, key: SharedKey, places: Places) -> Result<Self, Error> {
        let no_thread = system("cannot start a thread");
        let workers = Workers::start(config.threads).map_err(&no_thread)?;
        let (begin_handover, handover) = shutdown();
        let (begin_drain, drain) = shutdown();
        let (begin_shutdown, shutdown) = shutdown();
        let shared = Arc::new(Shared {
            config: config.clone(),
            key: watch::Sender::new(Arc::new(key)),
            files: BlockingThread::start("files").map_err(&no_thread)?,
            target: Target::new(&config.tunnel, places.spare).map_err(&no_thread)?,
            places,
            budget: Budget::new(places.connections, places.descriptors),
            prewarmed: Prewarmed::default(),
            strangers: Strangers::new(places.strangers),
            replays: Mutex::default(),
            log_limits: LogLimits::new(),
            outcomes: Outcomes::default(),
            notifier: Notifier::from_env(),
            handover,
            drain,
            shutdown,
        });
        Ok(Self {
            shared,
            workers,
            handover: begin_handover,
            drain: begin_drain,
            shutdown: begin_shutdown,
        })
    }

    /// Serves until a signal ends it, then drains; and does meanwhile what goes on
    /// beside the connections.
    pub(super) async fn serve(
        self,
        doors: Doors,
        Signals { mut reload, mut handover, mut end }: Signals,
        watchdog: Watchdog,
    ) -> Result<(), Error> {
        let serve = async {
            let Doors { source, control, listening } = doors;
            let target = &self.shared.config.tunnel.target;
            let listeners = select! {
                // Who is bound already serves, and ends as such.
                biased;
                listeners = source.listen_once_resolved(target) => listeners?,
                result = self.take_keys(control.as_ref()) => return result,
                _signal = end.next() => return Ok(()),
                () = handover.received() => return Ok(()),
            };
            self.serve_and_tell(listeners, (control, listening), (handover, end)).await
        };
        select! {
            result = serve => result,
            never = watchdog.feed(&self.workers) => match never {},
            never = notify::keep_telling_late() => match never {},
            never = self.shared.reload_at(&mut reload) => match never {},
            never = self.shared.target.keep_resolved(self.shared.config.refresh) => match never {},
        }
    }

    async fn serve_and_tell(
        &self,
        listeners: Vec<Listener>,
        doors: (Option<Control>, Option<Listening>),
        signals: (HandoverSignal, EndSignals),
    ) -> Result<(), Error> {
        let names: Vec<_> = listeners.iter().map(Listener::name).collect();
        self.log_start(&names);
        let config = &self.shared.config;
        warn_of_plaintext(config, &listeners);
        let pipe = format!("{} on {} to {}", config.role, names.join(", "), config.tunnel.target);
        let status = || self.shared.status(&pipe);
        select! {
            result = self.serve_and_drain(listeners, doors, signals) => result,
            never = self.shared.notifier.keep_telling(status) => match never {},
        }
    }

    async fn serve_and_drain(
        &self,
        listeners: Vec<Listener>,
        (control, listening): (Option<Control>, Option<Listening>),
        (mut handover, mut end): (HandoverSignal, EndSignals),
    ) -> Result<(), Error> {
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        let admission = Admission::new(&self.shared, &self.workers, alive);
        let take = async |socket: Socket, peer: Peer| admission.admit(socket, peer).await;
        select! {
            result = accept_on_all(&listeners, &take) => {
                result.map_err(system("cannot accept connections any more"))?;
            }
            never = admission.admit_parked() => match never {},
            result = self.take_keys(control.as_ref()) => result?,
            never = prewarm::keep(&self.shared, &self.workers) => match never {},
            signal = end.next() => {
                self.shared.log_end(&format!("{signal} received: no new connections"));
            }
            () = handover.received() => {
                self.handover.begin();
                self.shared.log_end("the next process takes over new connections");
            }
        }
        // From here on a connect is refused, and the socket's file is gone; a
        // socket of systemd's keeps who comes for the next process.
        drop((listeners, control, listening));
        self.shared.prewarmed.clear();
        self.drain.begin();
        let is_handed_over = self.shared.handover.has_begun();
        if is_handed_over {
            notify::fall_silent();
        } else {
            // Nobody is to wait at a socket that no process comes for.
            fd_store::remove();
            self.shared.notifier.changed();
            let limit = self.shared.drain_limit().saturating_add(GOODBYE);
            notify::tell_stopping(&self.shared.draining(), limit);
        }
        let let_in_the_last = async {
            select! {
                // They were accepted here, so that nobody else can serve them.
                () = admission.admit_all_parked(), if is_handed_over => {}
                () = self.shared.shutdown.begun(), if is_handed_over => {}
                else => {}
            }
            drop(admission);
        };
        join!(let_in_the_last, self.drain(&mut all_ended, &mut end));
        self.shared.log_limits.say_rest();
        Ok(())
    }

    async fn take_keys(&self, control: Option<&Control>) -> Result<(), Error> {
        match control {
            Some(control) => control.serve(&self.shared).await,
            None => std::future::pending().await,
        }
        .map_err(system("cannot take new keys any more"))
    }

    fn log_start(&self, names: &[String]) {
        let config = &self.shared.config;
        for name in names {
            info!(
                key_id = %self.shared.key().id(),
                target = %config.tunnel.target,
                connections = self.shared.places.connections,
                "{} listening on {name}",
                config.role,
            );
        }
    }

    /// Waits for open connections to end by themselves, then ends them: when
    /// the time for it is over, or at once at a second signal.
    async fn drain(&self, all_ended: &mut mpsc::Receiver<()>, end: &mut EndSignals) {
        select! {
            _ = all_ended.recv() => return,
            () = sleep(self.shared.drain_limit()) => {}
            signal = end.next() => info!("{signal} received again: ending at once"),
        }
        self.shutdown.begin();
        if timeout(GOODBYE, all_ended.recv()).await.is_err() {
            warn!("some connections are cut, they took longer than {GOODBYE:?} to end");
        }
    }
}

impl Shared {
    /// How long open connections have to end. A restart of the unit waits for nobody; its
    /// stop does, and so does the shutdown of the host.
    fn drain_limit(&self) -> Duration {
        let limit = self.config.drain_timeout.get();
        if self.config.process.ground == Ground::Handover && !self.handover.has_begun() {
            limit.min(STOP)
        } else {
            limit
        }
    }

    /// Reads the key file again at each HUP.
    async fn reload_at(&self, signal: &mut ReloadSignal) -> Infallible {
        loop {
            signal.next().await;
            notify::reloading(self.reload_key()).await;
        }
    }

    /// The line that `systemctl status` shows.
    fn status(&self, pipe: &str) -> String {
        if self.drain.has_begun() {
            return self.draining();
        }
        let open = connections(self.budget.connections());
        format!("{pipe}, key id {}: {open}{}", self.key().id(), self.outcomes)
    }

    fn log_end(&self, why: &str) {
        let limit = self.drain_limit();
        match self.budget.connections() {
            0 => info!("{why}, none is open"),
            open => info!(open, "{why}, {limit:?} for the open ones to end"),
        }
    }

    fn draining(&self) -> String {
        format!("ending: {} still open", connections(self.budget.connections()))
    }
}

fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
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
