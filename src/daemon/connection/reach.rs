//! The connect of a receiver to its target.

use std::net::Ipv4Addr;

use tokio::time::Instant;

use super::context::Context;
use super::log::ConnectionStats;
use crate::daemon::net::connect_error::ConnectError;
use crate::daemon::net::stream::Stream;

/// Connects to the target; the observer counts it. Where nobody is behind the connection, only
/// asks whether the target answers: a server such as `MariaDB` counts each connection that says
/// nothing, and in the end refuses the host that it comes from.
pub(super) async fn reach_target(
    context: &Context,
    from: Option<Ipv4Addr>,
    stats: &mut ConnectionStats,
) -> Result<Stream, ConnectError> {
    let began = Instant::now();
    let connected = if stats.is_nobody() {
        let answers = context.target.ask(from, &mut stats.address).await;
        answers.and_then(|()| Ok(Stream::ended()?))
    } else {
        context.target.connect(from, &mut stats.address).await
    };
    let reached = connected.as_ref().map(|_stream| ()).map_err(ToString::to_string);
    context.observer.target_tried(reached, began.elapsed());
    connected
}
