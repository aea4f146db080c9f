//! The log line that each connection has at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::display;
use tracing::{Level, debug, info, warn};

use super::accepted::Accepted;
use super::close_reason::CloseReason;
use super::context::Context;
use super::observer::{Agreed, OpenGuard, Who};
use crate::config::as_given;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::traffic::Traffic;
use crate::keys::set::Key;
use crate::protocol::Client;

/// Fields of the log line that become known while the connection is made.
#[derive(Default)]
pub(super) struct ConnectionStats {
    pub(super) key: Option<Arc<Key>>,
    pub(super) session: Option<Agreed>,
    /// Who the sender says that its client is.
    pub(super) client: Option<Box<Client>>,
    /// The last address of the target's name that was tried.
    pub(super) address: Option<SocketAddr>,
    /// Once the relay has begun.
    pub(super) open: Option<OpenGuard>,
}

impl ConnectionStats {
    /// Notes that the relay of the connection begins, whose bytes are counted in `traffic`.
    #[expect(clippy::expect_used, reason = "a connection is opened with a key and a session")]
    pub(super) fn open(
        &mut self,
        context: &Context,
        (id, peer): (u64, &Peer),
        traffic: Arc<Traffic>,
    ) {
        let who = Who {
            key: self.key.clone().expect("the handshake had a key"),
            agreed: self.session.expect("the handshake is over"),
            peer: peer.clone(),
            client: self.client.clone(),
        };
        self.open = Some(context.observer.connection_opened(id, who, traffic));
    }

    /// Whether nobody is behind the connection, which only asks whether the target answers.
    pub(super) fn is_nobody(&self) -> bool {
        self.client.as_deref() == Some(&Client::Nobody)
    }
}

/// Resets a connection that is not admitted, and logs it.
pub(crate) fn turn_away(context: &Context, accepted: Accepted, reason: &CloseReason) {
    let Accepted { id, at, socket, peer } = accepted;
    // Where the option cannot be set, the peer is gone already.
    let _gone = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
    log(context, (id, &peer), (reason, &ConnectionStats::default()), at.elapsed());
}

/// Counts the end of a connection, and logs it within the limits of log lines.
pub(super) fn log(
    context: &Context,
    (id, peer): (u64, &Peer),
    (reason, stats): (&CloseReason, &ConnectionStats),
    took: Duration,
) {
    let (sent, received) =
        context.observer.connection_closed(id, (peer, stats.key.as_ref()), reason);
    let Some(suppressed) = context.log_limits.allow(reason) else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let ConnectionStats { key, session, client, address, .. } = stats;
    let conn = session.map(|agreed| display(agreed.conn()));
    let kex = session.map(|agreed| display(agreed.suite.kex));
    let cipher = session.map(|agreed| display(agreed.suite.cipher));
    let (key, key_id) =
        (key.as_ref().map(|key| display(&key.name)), key.as_ref().map(|key| display(key.id())));
    let client = client.as_deref().map(display);
    let address = address.map(display);
    let (uid, pid) = reason.who();
    let target = &context.config.tunnel.target;
    let hint = reason.hint().map(as_given);
    let hint = hint.as_deref();
    let message = reason.to_string();
    let message = as_given(&message);
    // Rounded to milliseconds.
    let took = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                hint, reason = %reason.name(), id, conn, %peer, uid, pid, client, %target,
                address, key, key_id,
                kex, cipher, sent, received, took, suppressed, "{message}"
            )
        };
    }
    match reason.level() {
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}
