//! A sender's keepers: each worker always has a carrier on which streams can be opened, made
//! before clients come. Meanwhile, and where the receiver carries nothing, each connection has a
//! session of its own.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::{OpenCarrier, STREAMS, lock};
use crate::config::{BusyPoll, CarriersUse, Role, as_given};
use crate::daemon::carrier::owner::{Leave, Owner};
use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::connection::context::Context;
use crate::daemon::connection::first_answer::first_answer;
use crate::daemon::connection::handshake_error::NoSession;
use crate::daemon::connection::observer::Agreed;
use crate::daemon::connection::sender::connect_observed;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Ending, Tunnel};
use crate::daemon::runtime::workers::{Home, Workers};
use crate::keys::set::Key;
use crate::protocol::carrier::{CarrierSecret, Side};
use crate::protocol::{AbortReason, OpenError, Record};
use crate::status::UnixTime;

/// The pauses after a failure: each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// How long a receiver that carries nothing is not asked again (C2).
const REFUSED: Duration = Duration::from_mins(1);
/// How long a carrier is used: then another one has fresh keys and numbers (C20).
const USED: Duration = Duration::from_hours(24);

/// Keeps the carriers of all workers; for ever.
pub(crate) async fn keep(context: &Arc<Context>, workers: &Workers, alive: &Home) -> Infallible {
    let uses = context.config.role == Role::Encrypt
        && context.config.connections.carriers == CarriersUse::On
        && context.config.tunnel.busy_poll == BusyPoll::Off;
    let mut keepers = JoinSet::new();
    if uses {
        for on in workers.each() {
            let home = Home { on, alive: alive.alive.clone() };
            let keeper = Keeper { context: Arc::clone(context), home: home.clone() };
            home.on.spawn_in(&mut keepers, keeper.run());
        }
    }
    // Dropped when the drain begins: the keepers end, and their carriers once they are empty.
    while keepers.join_next().await.is_some() {}
    pending().await
}

/// Keeps the carriers of a worker, on that worker.
struct Keeper {
    context: Arc<Context>,
    home: Home,
}

/// A session that the receiver has made a carrier.
struct Made {
    key: Arc<Key>,
    tunnel: Tunnel,
    allowed: u32,
    secret: CarrierSecret,
    address: Option<SocketAddr>,
}

/// Why there is no carrier.
enum NoCarrier {
    /// The receiver carries nothing.
    Refused(AbortReason),
    Failed(CloseReason),
}

impl Keeper {
    async fn run(self) {
        let Self { context, home } = &self;
        let Some(of_worker) = context.carriers.of_workers.get(home.on.number) else { return };
        let mut key = context.keys.watch();
        let mut moves = context.target.moves();
        let mut outage = Outage::default();
        let mut making = None;
        loop {
            if making.is_none() && of_worker.needs_one() {
                let not_before = outage.not_before;
                making = Some(Box::pin(async move {
                    sleep_until(not_before).await;
                    make(context).await
                }));
            }
            let made = async {
                match &mut making {
                    Some(making) => making.await,
                    None => pending().await,
                }
            };
            select! {
                made = made => {
                    making = None;
                    if let Some(made) = outage.note(made) {
                        self.start(made);
                    }
                }
                _ = key.changed() => {
                    (making, outage) = (None, Outage::default());
                    self.retire(|carrier| carrier.key.id() != context.key_of_sender().id());
                }
                () = moves.next() => {
                    (making, outage) = (None, Outage::default());
                    self.retire(|_| true);
                }
                // What is being made goes on.
                () = of_worker.changed.notified() => {}
            }
        }
    }

    /// Opens no more streams on these carriers.
    fn retire(&self, which: impl Fn(&OpenCarrier) -> bool) {
        let Some(of_worker) = self.context.carriers.of_workers.get(self.home.on.number) else {
            return;
        };
        let carriers = lock(&of_worker.carriers);
        carriers.iter().filter(|carrier| which(carrier)).for_each(|carrier| carrier.link.retire());
    }

    /// Runs a carrier on this worker. Streams can be opened on it from now on.
    fn start(&self, Made { key, tunnel, allowed, secret, address }: Made) {
        let context = Arc::clone(&self.context);
        let at = Instant::now();
        let agreed = Agreed::of(&tunnel.session);
        let peer = tunnel.stream.peer().unwrap_or(Peer::Unix);
        let padding = context.config.tunnel.padding.0;
        let owner = Owner::new(Side::Initiator, allowed, tunnel, padding);
        let carrier = Arc::new(OpenCarrier {
            link: owner.link(),
            joins: owner.joins(),
            secret,
            key,
            agreed,
            peer,
            local: None,
            address,
            since: UnixTime::now(),
            allowed,
        });
        context.carriers.add_to_worker(self.home.on.number, &carrier);
        self.home.spawn(async move {
            let registered = context.carriers.register(carrier);
            let carrier = &registered.carrier;
            super::log::log_open(&context, carrier);
            let leave = async {
                select! {
                    () = context.drain.begun() => Leave::ShuttingDown,
                    () = sleep(USED) => Leave::Replaced,
                }
            };
            let ending = Ending::by(&context.shutdown);
            let end = owner.run(&ending, leave, |_, _| {}).await;
            super::log::log_end(&context, carrier, end, at.elapsed());
        });
    }
}

/// While there is no carrier.
struct Outage {
    pause: Duration,
    /// When the receiver may be asked again.
    not_before: Instant,
    is_refused: bool,
}

impl Default for Outage {
    fn default() -> Self {
        Self { pause: Duration::ZERO, not_before: Instant::now(), is_refused: false }
    }
}

impl Outage {
    /// Notes what came of an attempt. Logs the first refusal.
    fn note(&mut self, made: Result<Made, NoCarrier>) -> Option<Made> {
        match made {
            Ok(made) => {
                *self = Self::default();
                return Some(made);
            }
            Err(NoCarrier::Refused(reason)) => {
                if !std::mem::replace(&mut self.is_refused, true) {
                    info!(
                        "the receiver carries nothing: {reason}; each connection has a session of its own"
                    );
                }
                self.not_before = Instant::now() + REFUSED;
            }
            Err(NoCarrier::Failed(reason)) => {
                let (name, hint) = (reason.name(), reason.hint().map(as_given));
                let hint = hint.as_deref();
                // Once: each client's connection says it as well.
                if self.pause.is_zero() {
                    warn!(hint, reason = %name, "no carrier: {reason}");
                } else {
                    debug!(hint, reason = %name, "no carrier: {reason}");
                }
                self.pause = self.pause.saturating_mul(2).clamp(FIRST_PAUSE, LAST_PAUSE);
                self.not_before = Instant::now() + self.pause;
            }
        }
        None
    }
}

/// Makes a session and asks for a carrier on it.
async fn make(context: &Context) -> Result<Made, NoCarrier> {
    let key = context.key_of_sender();
    let mut address = None;
    let tunnel = connect_observed(context, key.secret(), &mut address)
        .await
        .map_err(|error| NoCarrier::Failed(error.into()))?;
    let limit = context.config.tunnel.timeout.get();
    match Deadline::after(limit).bound(carry(tunnel)).await {
        Some(Ok((tunnel, allowed, secret))) => {
            let allowed = allowed.min(STREAMS);
            Ok(Made { key, tunnel, allowed, secret, address })
        }
        Some(Err(RelayError::Aborted(
            reason @ (AbortReason::NotUnderstood | AbortReason::NotAvailable),
        ))) => Err(NoCarrier::Refused(reason)),
        Some(Err(error)) => Err(NoCarrier::Failed(error.into())),
        None => Err(NoCarrier::Failed(NoSession::TimedOut(limit).into())),
    }
}

/// Says CARRY, and waits for CARRIED.
async fn carry(mut tunnel: Tunnel) -> Result<(Tunnel, u32, CarrierSecret), RelayError> {
    let Tunnel { stream, session } = &mut tunnel;
    let carry = session.sealer.seal_carry()?;
    session.opener.await_carried();
    stream.write_all(&carry).await.map_err(RelayError::Tunnel)?;
    match first_answer(&mut tunnel).await? {
        Record::Carried(allowed, secret) => Ok((tunnel, allowed, secret)),
        Record::Abort(reason) => Err(RelayError::Aborted(reason)),
        Record::Ready
        | Record::Open(_)
        | Record::Opened(_)
        | Record::Carry(_)
        | Record::Frames(_)
        | Record::Join(_)
        | Record::Data(_)
        | Record::End
        | Record::Done => Err(OpenError::Violation.into()),
    }
}
