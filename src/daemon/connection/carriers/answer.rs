//! A receiver's answer to CARRY: CARRIED, and the carrier until its end.

use std::sync::Arc;

use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::select;
use tokio::time::Instant;

use super::{OpenCarrier, STREAMS, stream};
use crate::config::CarriersUse;
use crate::daemon::carrier::owner::{Leave, Owner};
use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::connection::context::Context;
use crate::daemon::connection::handshake_error::PreAuthError;
use crate::daemon::connection::observer::Agreed;
use crate::daemon::net::peer::Peer;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Ending, Tunnel};
use crate::daemon::runtime::workers::Home;
use crate::keys::set::{Key, OutOfForce};
use crate::protocol::HandshakeError;
use crate::protocol::carrier::{CarrierSecret, Side};
use crate::status::UnixTime;

/// A peer's session that becomes a carrier.
pub(crate) struct Carry {
    tunnel: Tunnel,
    key: Arc<Key>,
    secret: CarrierSecret,
    allowed: u32,
}

/// Whether a further carrier of this key may be.
pub(crate) fn may_carry(context: &Context, key: &Key) -> bool {
    let most = context.limits.carriers;
    context.config.connections.carriers == CarriersUse::On
        && context.carriers.all().len() < most
        && context.carriers.of_key(key) < most.div_ceil(2)
}

/// Answers CARRY by CARRIED.
///
/// # Errors
/// When the tunnel has failed, or the system has no random bytes.
pub(crate) async fn answer(
    context: &Context,
    mut tunnel: Tunnel,
    key: Arc<Key>,
) -> Result<Carry, CloseReason> {
    let mut random = [0; 32];
    let filled = SysRng.try_fill_bytes(&mut random);
    filled.map_err(|_| PreAuthError::Handshake(HandshakeError::Randomness))?;
    let secret = CarrierSecret::new(&random);
    zeroize::Zeroize::zeroize(&mut random);
    let places = u32::try_from(context.limits.connections).unwrap_or(u32::MAX);
    let allowed = STREAMS.min(places);
    let carried = tunnel.session.sealer.seal_carried(allowed, &secret).map_err(RelayError::Seal)?;
    tunnel.stream.write_all(&carried).await.map_err(RelayError::Tunnel)?;
    Ok(Carry { tunnel, key, secret, allowed })
}

impl Carry {
    /// Runs the carrier to its end. Its streams run on the same worker.
    pub(crate) async fn run(self, context: &Arc<Context>, peer: Peer, home: Home) {
        let Self { tunnel, key, secret, allowed } = self;
        let at = Instant::now();
        let agreed = Agreed::of(&tunnel.session);
        let local = tunnel.stream.local_address();
        let owner = Owner::new(Side::Responder, allowed, tunnel, context.config.tunnel.padding.0);
        let registered = context.carriers.register(Arc::new(OpenCarrier {
            link: owner.link(),
            joins: owner.joins(),
            secret,
            key: Arc::clone(&key),
            agreed,
            peer,
            local,
            address: None,
            since: UnixTime::now(),
            allowed,
        }));
        let carrier = &registered.carrier;
        super::log::log_open(context, carrier);
        let ending = Ending { shutdown: &context.shutdown, key: Some(&*key) };
        let leave = async {
            loop {
                select! {
                    () = context.drain.begun() => return Leave::ShuttingDown,
                    how = key.out_of_force() => if how == OutOfForce::Removed {
                        return Leave::Replaced;
                    } else {
                        // The ending tells it.
                        std::future::pending::<()>().await;
                    },
                }
            }
        };
        let end = owner
            .run(&ending, leave, |opened, extensions| {
                let (context, carrier) = (Arc::clone(context), Arc::clone(carrier));
                home.spawn(stream::serve(context, carrier, opened, extensions));
            })
            .await;
        super::log::log_end(context, carrier, end, at.elapsed());
    }
}
