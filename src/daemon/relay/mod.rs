//! Moves bytes both ways at once: out of the local socket into records, and
//! out of records into the local socket. Each direction ends on its own.
//!
//! What was measured, and built on here: several records go in one read and
//! one write of up to 256 KiB, sealed and opened in place; buffers are held
//! only while bytes move; a flow gets a large buffer once it fills small ones.

mod awake;
mod inbound;
mod outbound;
mod slots;

use std::pin::pin;
use std::time::Duration;

use tokio::select;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::buffer::RECORD_PLAINTEXT;
use super::close::Close;
use super::deadline::Deadline;
use super::shutdown::Shutdown;
use super::stream::{CHECK, Stream};
use crate::config::{TunnelConfig, Waiting};
use crate::protocol::Session;

use self::awake::Awake;

use self::inbound::Inbound;
pub(super) use self::outbound::Outbound;

/// How long what came last may take to be passed on, once a side has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After how many bytes a direction lets the others on its thread go on: its
/// own sockets may be ready for ever.
const TURN: usize = 1024 * 1024;

/// The two directions of a session.
pub(super) struct Halves {
    pub(super) outbound: Outbound,
    pub(super) inbound: Inbound,
    waiting: Waiting,
}

impl Halves {
    pub(super) fn new(session: Session, config: &TunnelConfig) -> Self {
        Self {
            outbound: Outbound::new(session.sealer, config.padding),
            inbound: Inbound::new(session.opener),
            waiting: config.waiting,
        }
    }
}

/// Relays until both directions have ended cleanly, or either has failed.
pub(super) async fn relay(
    local: &Stream,
    tunnel: &Stream,
    halves: &mut Halves,
    shutdown: &Shutdown,
) -> Result<(), Close> {
    match relay_both(local, tunnel, halves, shutdown).await {
        Ok(Ended::Cleanly) => Ok(()),
        Ok(Ended::AfterEnd) => Err(halves.inbound.after_end(tunnel)),
        Err(close) => {
            let last_words = async {
                if matches!(close, Close::Local(_)) {
                    halves.outbound.send_rest(local, tunnel).await
                } else if matches!(close, Close::Aborted(_)) {
                    halves.inbound.write_rest(local).await
                } else {
                    Ok(())
                }
            };
            // Whether all of it arrived or not, the connection has failed.
            let _arrived = Deadline::after(LAST_WORDS).bound(last_words).await;
            Err(close)
        }
    }
}

/// How a relay ended that did not fail by itself.
enum Ended {
    /// Both directions came to their end.
    Cleanly,
    /// Something came on the tunnel after END: only a failure can.
    AfterEnd,
}

async fn relay_both(
    local: &Stream,
    tunnel: &Stream,
    halves: &mut Halves,
    shutdown: &Shutdown,
) -> Result<Ended, Close> {
    let awake = Awake::new(halves.waiting);
    let mut sending = pin!(halves.outbound.run(local, tunnel, &awake));
    let mut receiving = pin!(halves.inbound.run(tunnel, local, &awake));
    let mut staying_awake = pin!(awake.keep());
    let mut failing = pin!(local.failed());
    let mut ending = pin!(shutdown.begun());
    let mut check = pin!(sleep(CHECK));
    let (mut sent, mut received, mut was_ended) = (false, false, false);
    while !(sent && received) {
        select! {
            biased;
            result = &mut receiving, if !received => { result?; received = true; }
            result = &mut sending, if !sent => { result?; sent = true; }
            error = &mut failing => return Err(Close::Local(error)),
            () = tunnel.has_input(), if received => return Ok(Ended::AfterEnd),
            () = &mut ending => return Err(Close::ShuttingDown),
            () = &mut check => {
                local.check().map_err(Close::Local)?;
                tunnel.check().map_err(Close::Tunnel)?;
                // The other end is gone, and a local peer that does not read
                // keeps us from reading that.
                let is_ended = !sent && tunnel.is_ended_by_peer();
                if is_ended && was_ended {
                    return Err(Close::Truncated);
                }
                was_ended = is_ended;
                check.set(sleep(CHECK));
            }
            never = &mut staying_awake => match never {},
        }
    }
    Ok(Ended::Cleanly)
}

/// Counts the bytes of a direction until others have their turn.
struct Turn<'a> {
    bytes: usize,
    awake: &'a Awake,
}

impl<'a> Turn<'a> {
    const fn new(awake: &'a Awake) -> Self {
        Self { bytes: 0, awake }
    }

    /// To be called where nothing is half done. A small read costs about as
    /// much as one of 16 KiB.
    async fn moved(&mut self, bytes: usize) {
        self.awake.moved(bytes);
        self.bytes = self.bytes.saturating_add(bytes.max(RECORD_PLAINTEXT));
        if self.bytes >= TURN {
            self.bytes = 0;
            yield_now().await;
        }
    }
}
