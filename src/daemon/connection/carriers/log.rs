//! The log line of a carrier at its end.

use std::time::Duration;

use tracing::field::display;
use tracing::{Level, debug, info, warn};

use super::OpenCarrier;
use crate::config::as_given;
use crate::daemon::carrier::end::CarrierEnd;
use crate::daemon::connection::context::Context;

/// Says that a carrier is open.
pub(super) fn log_open(context: &Context, carrier: &OpenCarrier) {
    let OpenCarrier { key, agreed, peer, allowed, .. } = carrier;
    let target = &context.config.tunnel.target;
    debug!(
        conn = %agreed.conn(), %peer, %target, key = %key.name, key_id = %key.id(),
        kex = %agreed.suite.kex, cipher = %agreed.suite.cipher, streams = allowed,
        "carrier open"
    );
}

/// Says how a carrier has ended.
pub(super) fn log_end(context: &Context, carrier: &OpenCarrier, end: CarrierEnd, took: Duration) {
    let OpenCarrier { key, agreed, peer, address, .. } = carrier;
    let target = &context.config.tunnel.target;
    let address = address.map(display);
    let hint = end.hint().map(as_given);
    let hint = hint.as_deref();
    let took = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    macro_rules! line {
        ($level:ident) => {
            $level!(
                hint, reason = %end.reason(), conn = %agreed.conn(), %peer, %target, address,
                key = %key.name, key_id = %key.id(), kex = %agreed.suite.kex,
                cipher = %agreed.suite.cipher, took, "carrier ended: {end}"
            )
        };
    }
    match end.level() {
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}
