//! Tests of the relay that processes cannot bring about, or not soon.

mod done;
mod ending;
mod error;
mod inbound;
mod outbound;
mod record_layout;
mod waiting;

use super::budget::RECORDS_OPENED;
use super::buffer::record_layout::RecordLayout;
use super::buffer::{Buffer, SMALL, Size};
use super::*;
use std::io::{self, Read, Write};
use std::net::{Shutdown as Half, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use rand::rngs::SysRng;
use socket2::{SockRef, Socket};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::config::{Address, BusyPoll, Keepalive};
use crate::daemon::net::stream::{GONE, Stream};
use crate::daemon::runtime::shutdown::shutdown;
use crate::protocol::testing::{GCM, OPEN, OPENED};
use crate::protocol::{
    AbortReason, Accepted, Extensions, Initiator, KEY_SECRETS, OPEN_MAX, OVERHEAD, Opener,
    RECORD_MAX, Record, Responder, Sealer, SharedKey,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream over a unix socket, and its other end.
fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (stream(ours), theirs)
}

/// A stream over TCP, and its other end.
fn tcp_pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream(listener.accept().unwrap().0), theirs)
}

fn stream(socket: impl Into<Socket>) -> Stream {
    let socket = socket.into();
    socket.set_nonblocking(true).unwrap();
    Stream::accepted(socket, Keepalive::On).unwrap()
}

/// The same, whose stream takes little before it is read.
fn narrow_pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    (stream(ours), theirs)
}

fn sessions() -> (Session, Session) {
    let key = SharedKey::from_key_file(&[1; 32], Box::new([0; KEY_SECRETS])).unwrap();
    let (initiator, message_1) = Initiator::start(GCM, &key, &mut SysRng).unwrap();
    let responder =
        Responder::accept(&message_1, &[key], Accepted::default(), &mut SysRng).unwrap();
    (initiator.finish(&responder.reply).unwrap(), responder.session)
}

/// The relay of a receiver, and the session of its sender, which has sent OPEN.
fn relay(local: Stream, tunnel: Stream) -> (Relay, Session) {
    relay_counted_in(Arc::default(), local, tunnel)
}

fn relay_counted_in(traffic: Arc<Traffic>, local: Stream, tunnel: Stream) -> (Relay, Session) {
    let (mut initiator, mut responder) = sessions();
    let mut open = initiator.sealer.seal_open(Extensions::default()).unwrap();
    assert_eq!(responder.opener.open(&mut open), Ok(OPEN));
    let relay = Relay {
        local: Some(LocalStream(local)),
        tunnel: TunnelStream(tunnel),
        outbound: Outbound::new(responder.sealer, None, Arc::clone(&traffic)),
        inbound: Inbound::new(responder.opener, traffic),
        poller: BusyPoller::new(BusyPoll::Off),
        peer: LocalPeer::default(),
    };
    (relay, initiator)
}

/// Runs a relay to its end.
async fn run(mut relay: Relay) -> Result<(), RelayError> {
    let (_trigger, shutdown) = shutdown();
    relay.queue(FirstRecord::Opened).unwrap();
    let result = timeout(PATIENCE, relay.run(Role::Decrypt, &Ending::by(&shutdown))).await;
    relay.close(result.expect("it does not end")).await
}

/// A DATA record with one byte.
fn data(session: &mut Session, byte: u8) -> [u8; OVERHEAD + 1] {
    let mut record = [0; OVERHEAD + 1];
    // Behind the header and the kind.
    *record.get_mut(3).unwrap() = byte;
    session.sealer.seal_data(&mut record).unwrap();
    record
}

/// A DATA record of this many bytes.
fn sealed(sealer: &mut Sealer, bytes: usize) -> Vec<u8> {
    let mut record = vec![7; OVERHEAD.saturating_add(bytes)];
    sealer.seal_data(&mut record).unwrap();
    record
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Opens whole records: the bytes of the stream, and the other records.
fn open_all(opener: &mut Opener, mut records: &mut [u8]) -> (Vec<u8>, Vec<Record>) {
    let (mut stream, mut others) = (Vec::new(), Vec::new());
    while !records.is_empty() {
        let length = opener.record_length(records).unwrap().unwrap();
        let (record, rest) = records.split_at_mut(length);
        let said = opener.open(record).unwrap();
        if let Record::Data(range) = said {
            stream.extend_from_slice(record.get(range).unwrap());
        } else {
            others.push(said);
        }
        records = rest;
    }
    (stream, others)
}

/// Reads and opens records up to this one: the bytes of the stream, and the other records.
fn hear(mut from: impl Read, opener: &mut Opener, last: &Record) -> (Vec<u8>, Vec<Record>) {
    let (mut stream, mut others) = (Vec::new(), Vec::new());
    while others.last() != Some(last) {
        let mut record = vec![0; 2];
        from.read_exact(&mut record).unwrap();
        let length = opener.record_length(&record).unwrap().unwrap();
        record.resize(length, 0);
        from.read_exact(record.get_mut(2..).unwrap()).unwrap();
        let (bytes, more) = open_all(opener, &mut record);
        stream.extend(bytes);
        others.extend(more);
    }
    (stream, others)
}

const RESET: Record = Record::Abort(AbortReason::LocalPeerReset);

/// The server is gone before the client's first byte has come to it.
#[tokio::test]
async fn the_last_words_of_a_server_that_is_gone_arrive() {
    let ((local, mut server), (tunnel, mut sender)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    sender.write_all(&data(&mut session, b'x')).unwrap();
    server.write_all(b"-ERR").unwrap();
    drop(server);
    let got = thread::spawn(move || read_all(sender));
    assert!(matches!(run(relay).await, Err(RelayError::Local(_))));
    let said = open_all(&mut session.opener, &mut got.join().unwrap());
    assert_eq!(said, (b"-ERR".to_vec(), vec![OPENED, RESET]));
}

/// Whether END and the ABORT behind it come together, apart or cut in two: the
/// server has its whole stream, and the log the reason.
#[tokio::test]
async fn an_abort_behind_the_end_of_a_stream_leaves_it_complete() {
    for apart in [0, 7, OVERHEAD + 1, OVERHEAD + 8] {
        let ((local, mut server), (tunnel, mut sender)) = (tcp_pair(), pair());
        let (relay, mut session) = relay(local, tunnel);
        let stream = data(&mut session, b'x');
        let end = session.sealer.seal_end().unwrap();
        let abort = session.sealer.seal_abort(AbortReason::LocalPeerReset).unwrap();
        let mut records = [&stream[..], &end, &abort].concat();
        let rest = records.split_off(records.len() - apart);
        sender.write_all(&records).unwrap();
        let got = thread::spawn(move || {
            let mut got = Vec::new();
            // Where END has come as a whole, the rest comes after it was acted upon.
            if rest.len() <= abort.len() {
                server.read_to_end(&mut got).unwrap();
            }
            sender.write_all(&rest).unwrap();
            server.read_to_end(&mut got).unwrap();
            // Returned, so that both stay open until the relay has ended.
            (got, server, sender)
        });
        let ended = run(relay).await;
        assert!(
            matches!(ended, Err(RelayError::Aborted(AbortReason::LocalPeerReset))),
            "{apart}: {ended:?}"
        );
        assert_eq!(got.join().unwrap().0, b"x", "{apart}");
    }
}

/// What the client has sent arrives, with its end; the server has a minute to act upon it.
#[tokio::test]
async fn a_unix_peer_that_is_gone_does_not_keep_its_connection() {
    let ((local, mut client), (tunnel, receiver)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    client.write_all(b"last").unwrap();
    drop(client);
    let got = thread::spawn(move || read_all(receiver));
    let since = Instant::now();
    assert!(matches!(run(relay).await, Err(RelayError::Local(_))));
    assert!(since.elapsed() >= CHECK * GONE, "{:?}", since.elapsed());
    let said = open_all(&mut session.opener, &mut got.join().unwrap());
    assert_eq!(said, (b"last".to_vec(), vec![OPENED, Record::End, RESET]));
}

#[tokio::test]
async fn a_unix_peer_that_half_closes_is_not_taken_for_gone() {
    let ((local, client), (tunnel, mut receiver)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    client.shutdown(Half::Write).unwrap();
    let answered = thread::spawn(move || {
        thread::sleep(CHECK * (3 * GONE));
        receiver.write_all(&data(&mut session, b'x')).unwrap();
        receiver.write_all(&session.sealer.seal_end().unwrap()).unwrap();
        receiver.write_all(&session.sealer.seal_done().unwrap()).unwrap();
        let _records = read_all(&mut receiver);
        read_all(client)
    });
    assert!(matches!(run(relay).await, Ok(())));
    assert_eq!(answered.join().unwrap(), b"x");
}

/// The other end hangs, too, so the rest will never be sent.
#[tokio::test]
async fn a_peer_that_is_gone_is_given_up_when_nothing_moves() {
    let ((local, mut client), (tunnel, _receiver)) = (pair(), narrow_pair());
    let (relay, _session) = relay(local, tunnel);
    client.write_all(&vec![b'x'; 100_000]).unwrap();
    drop(client);
    let since = Instant::now();
    assert!(matches!(run(relay).await, Err(RelayError::Local(_))));
    assert!(since.elapsed() >= CHECK * GONE, "{:?}", since.elapsed());
}

/// The peer closed long ago, and on TCP a probe has found that out.
#[tokio::test]
async fn what_a_peer_had_sent_arrives_however_slow_the_tunnel() {
    let stream = vec![b'x'; 40_000];
    let (unix, mut client) = pair();
    client.write_all(&stream).unwrap();
    drop(client);
    let (tcp, mut client) = tcp_pair();
    client.write_all(&stream).unwrap();
    client.shutdown(Half::Write).unwrap();
    while !tcp.is_ended_by_peer() {
        sleep(Duration::from_millis(1)).await;
    }
    // From now on the peer's host answers with a reset.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    for local in [unix, tcp] {
        let (tunnel, mut receiver) = narrow_pair();
        let (relay, mut session) = relay(local, tunnel);
        let got = thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 1000]);
            while let Ok(count @ 1..) = receiver.read(&mut some) {
                all.extend_from_slice(some.get(..count).unwrap());
                thread::sleep(CHECK / 4);
            }
            all
        });
        let ended = run(relay).await;
        assert!(matches!(ended, Err(RelayError::Local(_))), "{ended:?}");
        let said = open_all(&mut session.opener, &mut got.join().unwrap());
        assert_eq!(said.0.len(), stream.len());
        assert_eq!(said.1, [OPENED, Record::End, RESET], "{ended:?}");
    }
}

/// A wrong range resets both sides: there is no END that the other end would take for
/// complete, no byte that was not sent, and no part of the stream is left out unnoticed.
#[tokio::test]
async fn a_mistake_of_ours_resets_both_sides_before_it_is_bytes() {
    type Plant = fn(&mut Relay);
    let mistakes: [(&str, Plant); 2] = [
        ("payload beyond the buffer", |relay| relay.outbound.plant(RecordLayout::planted())),
        ("unopened beyond the buffer", |relay| relay.inbound.plant_unopened()),
    ];
    for (name, plant) in mistakes {
        let ((local, mut client), (tunnel, mut other)) = (tcp_pair(), tcp_pair());
        let (mut relay, mut session) = relay(local, tunnel);
        plant(&mut relay);
        client.write_all(b"what the client says").unwrap();
        other.write_all(&data(&mut session, 7)).unwrap();
        let ended = tokio::spawn(run(relay)).await;
        assert!(ended.is_err_and(|error| error.is_panic()), "{name}: it goes on");
        // What was sent before the mistake may have arrived: one byte, and OPENED.
        assert!([7].starts_with(&reset(&mut client)), "{name}");
        let mut opened = reset(&mut other);
        if !opened.is_empty() {
            assert_eq!(session.opener.open(&mut opened), Ok(OPENED), "{name}");
        }
    }
}

/// Reads what a peer gets until its connection is reset.
fn reset(peer: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = peer.read_to_end(&mut bytes).expect_err("a clean end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    bytes
}

#[tokio::test]
#[should_panic(expected = "1 bytes would be left out")]
async fn no_part_of_what_was_read_is_left_out() {
    let (mut session, _) = sessions();
    let layout = RecordLayout::new(None);
    // Behind the longest OPEN there is room for one record, and not for a byte more.
    let one_too_many = |parts: &mut [io::IoSliceMut<'_>]| Ok(Some(parts[0].len() + 1));
    let filled = layout.read(Buffer::lend(Size::Small), OPEN_MAX, one_too_many).unwrap().unwrap();
    let _sealed = filled.seal(&[0; OPEN_MAX], &mut session.sealer);
}

/// What stands before the first record is of another connection, until it is overwritten.
#[tokio::test]
#[should_panic(expected = "copy_from_slice")]
async fn nothing_stale_is_sealed_before_the_first_record() {
    let (mut session, _) = sessions();
    let layout = RecordLayout::new(None);
    let read = layout.read(Buffer::lend(Size::Small), OVERHEAD, |_| Ok(Some(1)));
    let _sealed = read.unwrap().unwrap().seal(&[], &mut session.sealer);
}

/// The other end has had no record of this side: ABORT is the first one it opens.
#[tokio::test]
async fn a_client_that_is_reset_before_open_is_told_as_such() {
    let ((local, client), (tunnel, mut other)) = (tcp_pair(), pair());
    let (initiator, mut responder) = sessions();
    let tunnel = Tunnel { stream: TunnelStream(tunnel), session: initiator };
    let config = TunnelConfig::to(Address::Unix("/".into()));
    let mut relay = Relay::new(LocalStream(local), tunnel, Arc::default(), &config);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let (_trigger, shutdown) = shutdown();
    let result = match relay.queue(FirstRecord::Open(Extensions::default())) {
        Ok(()) => {
            timeout(PATIENCE, relay.run(Role::Encrypt, &Ending::by(&shutdown))).await.unwrap()
        }
        Err(error) => Err(error),
    };
    assert!(matches!(result, Err(RelayError::Local(_))), "{result:?}");
    let told = thread::spawn(move || read_all(&mut other));
    assert!(relay.close(result).await.is_err());
    assert_eq!(responder.opener.open(&mut told.join().unwrap()), Ok(RESET));
}
