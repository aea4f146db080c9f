//! Two ends of a carrier on one thread, with real sockets, and what processes cannot bring
//! about, or not soon.

mod ending;
mod moving;
mod streams;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SysRng;
use socket2::Socket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::end::CarrierEnd;
use super::link::Link;
use super::moves::{Joining, Moves};
use super::owner::{Joins, Leave, Owner};
use super::relay::CarriedRelay;
use super::stream::CarriedStream;
use crate::config::{Address, Keepalive, Role, TunnelConfig};
use crate::daemon::net::sides::{LocalStream, TunnelStream};
use crate::daemon::net::stream::Stream;
use crate::daemon::relay::error::RelayError;
use crate::daemon::relay::{Ending, Tunnel};
use crate::daemon::runtime::shutdown::{Shutdown, Trigger, shutdown};
use crate::keys::set::Key;
use crate::protocol::carrier::{CarrierSecret, NoStream, Side, StreamId};
use crate::protocol::testing::GCM;
use crate::protocol::{
    Accepted, Extensions, Initiator, KEY_SECRETS, Responder, Session, SharedKey,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How many streams may live on the carriers here.
const ALLOWED: u32 = 32;

/// Runs a test whose tasks are on one thread.
async fn on_one_thread(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(async { timeout(PATIENCE, test).await.expect("it hangs") }).await;
}

fn sessions() -> (Session, Session) {
    let key = SharedKey::from_key_file(&[1; 32], Box::new([0; KEY_SECRETS])).unwrap();
    let (initiator, message_1) = Initiator::start(GCM, &key, &mut SysRng).unwrap();
    let responder =
        Responder::accept(&message_1, &[key], Accepted::default(), &mut SysRng).unwrap();
    (initiator.finish(&responder.reply).unwrap(), responder.session)
}

fn stream(socket: impl Into<Socket>) -> Stream {
    let socket = socket.into();
    socket.set_nonblocking(true).unwrap();
    Stream::accepted(socket, Keepalive::On).unwrap()
}

/// Both ends of a session, over a unix socket.
fn tunnels() -> (Tunnel, Tunnel) {
    let (initiator, responder) = sessions();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let tunnel = |socket, session| Tunnel { stream: TunnelStream(stream(socket)), session };
    (tunnel(ours, initiator), tunnel(theirs, responder))
}

/// Both ends of a session that has become a carrier.
fn carried() -> (Tunnel, Tunnel) {
    let (mut initiator, mut responder) = tunnels();
    let mut carry = initiator.session.sealer.seal_carry().unwrap();
    responder.session.opener.open(&mut carry).unwrap();
    initiator.session.opener.await_carried();
    let secret = CarrierSecret::new(&[7; 32]);
    let mut carried = responder.session.sealer.seal_carried(ALLOWED, &secret).unwrap();
    initiator.session.opener.open(&mut carried).unwrap();
    (initiator, responder)
}

/// A local socket over TCP, and its peer.
async fn local() -> (LocalStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (LocalStream(stream(ours.into_std().unwrap())), peer)
}

/// One end of a carrier, which runs.
struct End {
    link: Arc<Link>,
    joins: Joins,
    shutdown: Arc<Shutdown>,
    begin_shutdown: Trigger,
    leave: Option<oneshot::Sender<Leave>>,
    ended: JoinHandle<CarrierEnd>,
    /// Streams that the other end has opened.
    opened: mpsc::UnboundedReceiver<CarriedStream>,
}

/// What became of a stream.
type Result = std::result::Result<(), RelayError>;

impl End {
    fn run(side: Side, tunnel: Tunnel, key: Option<Arc<Key>>) -> Self {
        let owner = Owner::new(side, ALLOWED, tunnel, None);
        let (link, joins) = (owner.link(), owner.joins());
        let (begin_shutdown, shutdown) = shutdown();
        let shutdown = Arc::new(shutdown);
        let (leave, left) = oneshot::channel();
        let (open, opened) = mpsc::unbounded_channel();
        let until = Arc::clone(&shutdown);
        let ended = spawn_local(async move {
            let ending = Ending { shutdown: &until, key: key.as_deref() };
            let left = async {
                match left.await {
                    Ok(why) => why,
                    Err(_) => std::future::pending().await,
                }
            };
            owner.run(&ending, left, |stream, _extensions| open.send(stream).unwrap()).await
        });
        Self { link, joins, shutdown, begin_shutdown, leave: Some(leave), ended, opened }
    }

    fn pair() -> (Self, Self) {
        let (initiator, responder) = carried();
        let of_sender = Self::run(Side::Initiator, initiator, None);
        (of_sender, Self::run(Side::Responder, responder, None))
    }

    /// Runs a stream to its end.
    fn relay(&self, relay: CarriedRelay, role: Role, join: Option<Join>) -> JoinHandle<Result> {
        let shutdown = Arc::clone(&self.shutdown);
        spawn_local(async move {
            let config = TunnelConfig::to(Address::Unix("/nowhere".into()));
            let ending = Ending::by(&shutdown);
            let join = join.as_deref();
            relay.run(&Moves { role, ending, config: &config, join }).await
        })
    }
}

type Join = Box<dyn Fn() -> Joining + Send + Sync>;

/// A stream between a client and a server.
struct Carried {
    id: StreamId,
    client: TcpStream,
    server: TcpStream,
    at_sender: JoinHandle<Result>,
    at_receiver: JoinHandle<Result>,
}

/// Opens a stream, which is moved by `join` where it is bulk.
async fn carry(sender: &End, receiver: &mut End, join: Option<Join>) -> Carried {
    let (ours, client) = local().await;
    let stream = CarriedStream::open(&sender.link, Extensions::default()).unwrap();
    let id = stream.id();
    let at_sender = sender.relay(CarriedRelay::of_client(ours, stream), Role::Encrypt, join);
    let opened = receiver.opened.recv().await.unwrap();
    assert_eq!(opened.id(), id);
    let (ours, server) = local().await;
    let relay = CarriedRelay::of_target(ours, opened, None);
    let at_receiver = receiver.relay(relay, Role::Decrypt, None);
    Carried { id, client, server, at_sender, at_receiver }
}

impl Carried {
    /// Sends bytes both ways, and looks at them.
    async fn round_trip(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.client.write_all(bytes).await.unwrap();
        self.server.read_exact(&mut got).await.unwrap();
        assert!(got == bytes);
        self.server.write_all(bytes).await.unwrap();
        self.client.read_exact(&mut got).await.unwrap();
        assert!(got == bytes);
    }

    /// Ends both directions, and looks whether both ends took it for a clean end.
    async fn end_well(self) {
        let Self { mut client, mut server, at_sender, at_receiver, .. } = self;
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await.unwrap(), b"");
        server.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await.unwrap(), b"");
        at_sender.await.unwrap().unwrap();
        at_receiver.await.unwrap().unwrap();
    }

    /// Both peers are reset.
    async fn both_are_reset(self) -> (RelayError, RelayError) {
        let Self { mut client, mut server, at_sender, at_receiver, .. } = self;
        for peer in [&mut client, &mut server] {
            let error = rest(peer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        (at_sender.await.unwrap().unwrap_err(), at_receiver.await.unwrap().unwrap_err())
    }
}

/// What a peer still gets, up to the end.
async fn rest(peer: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.map(|_count| bytes)
}

/// Waits until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes that show where they are.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) % 256).unwrap()).collect()
}

/// Resets a connection.
fn reset(peer: TcpStream) {
    let peer = peer.into_std().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}
