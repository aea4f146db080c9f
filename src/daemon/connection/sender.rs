//! The sender: while a client waits, it agrees on a session with the receiver.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::select;
use tokio::time::Instant;

use super::carriers::OpenCarrier;
use super::close_reason::CloseReason;
use super::context::Context;
use super::guarded::Guarded;
use super::handshake::initiate;
use super::handshake_error::NoSession;
use super::log::ConnectionStats;
use super::observer::Agreed;
use super::permit::{ConnectionPermit, Established};
use crate::config::TunnelConfig;
use crate::daemon::carrier::relay::CarriedRelay;
use crate::daemon::carrier::stream::CarriedStream;
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::target::Target;
use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::daemon::runtime::workers::Home;
use crate::keys::set::Key;
use crate::protocol::carrier::StreamId;
use crate::protocol::{Cipher, Extensions, SharedKey, Suite};

/// A client's stream on a carrier.
pub(super) struct Carried {
    pub(super) relay: CarriedRelay,
    pub(super) carrier: Arc<OpenCarrier>,
    pub(super) id: StreamId,
}

/// A stream that was opened for a client.
pub(super) struct Opened {
    key: Arc<Key>,
    carrier: Arc<OpenCarrier>,
    stream: CarriedStream,
}

/// Opens a stream on a carrier, if there is one with room.
pub(super) fn open_stream(
    context: &Context,
    home: &Home,
    extensions: Extensions,
) -> Option<Opened> {
    let key = context.key_of_sender();
    let opened = context.carriers.open_stream(home.on.number, &key, extensions);
    opened.map(|(carrier, stream)| Opened { key, carrier, stream })
}

/// From an accepted client to a stream that is ready to be relayed.
pub(super) fn carry(
    mut client: Guarded<LocalStream, ConnectionPermit>,
    Opened { key, carrier, stream }: Opened,
    stats: &mut ConnectionStats,
) -> Result<Guarded<Carried, ConnectionPermit>, CloseReason> {
    let id = stream.id();
    stats.session = Some(Agreed { stream: Some(id), ..carrier.agreed });
    stats.address = carrier.address;
    stats.key = Some(Arc::clone(&key));
    client.guard.count_for(&key)?;
    let Guarded { sockets: local, guard } = client;
    let relay = CarriedRelay::of_client(local, stream);
    Ok(Guarded { sockets: Carried { relay, carrier, id }, guard })
}

/// From an accepted client to a connection that is ready to be relayed.
pub(super) async fn send(
    context: &Context,
    mut client: Guarded<LocalStream, ConnectionPermit>,
    stats: &mut ConnectionStats,
) -> Result<Established, CloseReason> {
    let local = &client.sockets;
    let tunnel = select! {
        tunnel = connect_to_receiver(context, stats) => tunnel?,
        error = local.failed() => return Err(RelayError::Local(error).into()),
        error = local.abandoned() => return Err(RelayError::Local(error).into()),
        () = context.shutdown.begun() => return Err(RelayError::ShuttingDown.into()),
    };
    if let Some(key) = &stats.key {
        client.guard.count_for(key)?;
    }
    Ok(Guarded { sockets: (client.sockets, tunnel), guard: client.guard })
}

/// Makes a session of the key in force, or takes a ready one. Where the key is replaced
/// meanwhile, nothing of the client has been sent yet, and another session is made.
async fn connect_to_receiver(
    context: &Context,
    stats: &mut ConnectionStats,
) -> Result<Tunnel, CloseReason> {
    let mut in_force = context.keys.watch();
    loop {
        let key = in_force.borrow_and_update().of_sender();
        stats.key = Some(Arc::clone(&key));
        let connected = async {
            match context.prewarmed.take(key.id()) {
                Some(ready) => Ok(ready),
                None => connect_observed(context, key.secret(), &mut stats.address).await,
            }
        };
        select! {
            biased;
            _ = in_force.changed() => {}
            tunnel = connected => {
                let tunnel = tunnel?;
                stats.session = Some(Agreed::of(&tunnel.session));
                return Ok(tunnel);
            }
        }
    }
}

/// As [`connect`]; the observer counts the connect and the handshake.
pub(super) async fn connect_observed(
    context: &Context,
    key: &SharedKey,
    tried: &mut Option<SocketAddr>,
) -> Result<Tunnel, NoSession> {
    let began = Instant::now();
    let stream = context.target.connect(None, tried).await;
    let reached = stream.as_ref().map(|_stream| ()).map_err(ToString::to_string);
    context.observer.target_tried(reached, began.elapsed());
    let began = Instant::now();
    let result = match stream {
        Ok(stream) => agree(TunnelStream(stream), key, &context.config.tunnel).await,
        Err(error) => Err(NoSession::Connect(error)),
    };
    let agreed = result.as_ref().map(|tunnel| (key.id(), tunnel.session.suite));
    context.observer.handshake_ended(agreed.map_err(NoSession::reason), began.elapsed());
    result
}

/// Connects to a receiver and agrees on a session with it. Where the receiver is a name,
/// `tried` becomes the address that the result is of.
pub(crate) async fn connect(
    target: &Target,
    key: &SharedKey,
    config: &TunnelConfig,
    tried: &mut Option<SocketAddr>,
) -> Result<Tunnel, NoSession> {
    let stream = target.connect(None, tried).await.map_err(NoSession::Connect)?;
    agree(TunnelStream(stream), key, config).await
}

/// Agrees on a session with a receiver.
pub(crate) async fn agree(
    stream: TunnelStream,
    key: &SharedKey,
    config: &TunnelConfig,
) -> Result<Tunnel, NoSession> {
    let kex = config.kex_of_sender();
    let cipher = config.cipher.0.unwrap_or_else(fastest_cipher);
    let suite = Suite { kex, cipher };
    match initiate(&stream, key, suite, config.timeout.get()).await {
        Ok(session) => Ok(Tunnel { stream, session }),
        Err(_) if stream.is_loop() => Err(NoSession::Loop),
        Err(error) => Err(error),
    }
}

/// The fastest cipher: AES-256-GCM where the processor has instructions for it.
fn fastest_cipher() -> Cipher {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
}
