//! Tests of DONE: what is passed on is said once, and without it nothing ends well.

use super::super::stall::STALLED;
use super::*;
use socket2::{Domain, Type};

/// A peer that waits for whole records, as the other end does.
struct Other<S> {
    stream: S,
    session: Session,
}

impl<S: Read + Write> Other<S> {
    fn send(&mut self, records: &[&[u8]]) {
        self.stream.write_all(&records.concat()).unwrap();
    }

    fn end(&mut self) -> [u8; OVERHEAD] {
        self.session.sealer.seal_end().unwrap()
    }

    fn done(&mut self) -> [u8; OVERHEAD] {
        self.session.sealer.seal_done().unwrap()
    }

    fn hear(&mut self, last: &Record) -> (Vec<u8>, Vec<Record>) {
        hear(&mut self.stream, &mut self.session.opener, last)
    }
}

/// A relay with a local peer that has ended its stream, and the other end.
fn ended_by_client() -> (Relay, UnixStream, Other<UnixStream>) {
    let ((local, client), (tunnel, stream)) = (pair(), pair());
    let (relay, session) = relay(local, tunnel);
    client.shutdown(Half::Write).unwrap();
    (relay, client, Other { stream, session })
}

/// The server's host answers what comes for the closed socket with a reset. Only TCP knows
/// that; on a unix socket the write fails.
#[tokio::test]
async fn what_comes_for_a_server_that_has_closed_is_no_success() {
    for is_in_one_write in [true, false].repeat(10) {
        let ((local, server), (tunnel, stream)) = (tcp_pair(), pair());
        drop(server);
        while !local.is_ended_by_peer() {
            sleep(Duration::from_millis(1)).await;
        }
        let (relay, session) = relay(local, tunnel);
        let mut other = Other { stream, session };
        let (stream, end) = (data(&mut other.session, b'x'), other.end());
        let ends = thread::spawn(move || {
            if !is_in_one_write {
                let said = other.hear(&Record::End);
                assert_eq!(said.1, [OPENED, Record::End]);
            }
            other.send(&[&stream, &end]);
            other.hear(&RESET).1
        });
        let ended = run(relay).await;
        assert!(matches!(ended, Err(RelayError::Local(_))), "{is_in_one_write}: {ended:?}");
        assert!(!ends.join().unwrap().contains(&Record::Done));
    }
}

/// A proxy on the way may close both sides where one side ends, or cut a record.
#[tokio::test]
async fn a_tunnel_that_ends_without_done_is_truncated() {
    for bytes in 0..OVERHEAD {
        let (relay, _client, mut other) = ended_by_client();
        let ends = thread::spawn(move || {
            let (end, done) = (other.end(), other.done());
            other.send(&[&end]);
            assert_eq!(other.hear(&Record::Done).1, [OPENED, Record::End, Record::Done]);
            other.send(&[&done[..bytes]]);
        });
        let ended = run(relay).await;
        assert!(matches!(ended, Err(RelayError::Truncated)), "{bytes}: {ended:?}");
        ends.join().unwrap();
    }
}

fn is_violation(ended: &Result<(), RelayError>) -> bool {
    matches!(ended, Err(RelayError::Record(OpenError::Violation)))
}

/// A holder of the key who lies gains nothing: this end has not sent its END.
#[tokio::test]
async fn a_done_that_comes_before_end_was_sent_is_a_violation() {
    for behind_end in [true, false] {
        let ((local, _client), (tunnel, stream)) = (pair(), pair());
        let (relay, session) = relay(local, tunnel);
        let mut other = Other { stream, session };
        let end = if behind_end { other.end().to_vec() } else { vec![] };
        let done = other.done();
        other.send(&[&end, &done]);
        let ended = run(relay).await;
        assert!(is_violation(&ended), "{ended:?}");
    }
}

#[tokio::test]
async fn whatever_comes_behind_done_is_a_violation() {
    type Make = fn(&mut Other<UnixStream>) -> Vec<u8>;
    let behind: [Make; 3] = [
        |other| other.done().to_vec(),
        |other| other.session.sealer.seal_abort(AbortReason::ShuttingDown).unwrap().to_vec(),
        |_| vec![0],
    ];
    for make in behind {
        let (relay, _client, mut other) = ended_by_client();
        let ends = thread::spawn(move || {
            let (end, done) = (other.end(), other.done());
            other.send(&[&end]);
            other.hear(&Record::Done);
            let behind = make(&mut other);
            other.send(&[&done, &behind]);
            other
        });
        let ended = run(relay).await;
        assert!(is_violation(&ended), "{ended:?}");
        drop(ends.join().unwrap());
    }
}

/// The local socket is closed meanwhile. What this end has said arrives in any case.
#[tokio::test]
async fn a_peer_that_never_sends_done_is_given_up() {
    let ((local, mut client), (tunnel, stream)) = (tcp_pair(), tcp_pair());
    let (relay, session) = relay(local, tunnel);
    let mut other = Other { stream, session };
    client.write_all(b"x").unwrap();
    client.shutdown(Half::Write).unwrap();
    let end = other.end();
    other.send(&[&end]);
    let relayed = tokio::spawn(run(relay));
    let since = Instant::now();
    let gone = thread::spawn(move || {
        assert_eq!(read_all(&mut client), b"");
        // Its socket knows of no connection once the other one is closed as well.
        while client.peer_addr().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        since.elapsed()
    });
    let ended = relayed.await.unwrap();
    assert!(matches!(ended, Err(RelayError::Unconfirmed)), "{ended:?}");
    assert!(since.elapsed() >= CHECK * STALLED, "{:?}", since.elapsed());
    assert!(gone.join().unwrap() < CHECK * STALLED);
    let said = open_all(&mut other.session.opener, &mut read_all(&mut other.stream));
    assert_eq!(said, (b"x".to_vec(), vec![OPENED, Record::End, Record::Done]));
}

/// The process ends: no ABORT may come behind DONE.
#[tokio::test]
async fn a_shutdown_ends_the_wait_for_done() {
    let (mut relay, _client, mut other) = ended_by_client();
    let end = other.end();
    other.send(&[&end]);
    let (trigger, shutdown) = shutdown();
    let heard = thread::spawn(move || {
        let said = other.hear(&Record::Done).1;
        trigger.begin();
        assert_eq!(read_all(&mut other.stream), b"");
        said
    });
    relay.queue(FirstRecord::Opened).unwrap();
    let ended = timeout(PATIENCE, relay.run(Role::Decrypt, &Ending::by(&shutdown))).await.unwrap();
    let ended = relay.close(ended).await;
    assert!(matches!(ended, Err(RelayError::ShuttingDown)), "{ended:?}");
    assert_eq!(heard.join().unwrap(), [OPENED, Record::End, Record::Done]);
}

/// A TCP client that has had all and has sent all, and the tunnel takes nothing more.
#[tokio::test]
async fn a_client_that_is_through_is_given_up_when_nothing_moves() {
    let ((local, mut client), (tunnel, stream)) = (tcp_pair(), narrow_pair());
    let (relay, session) = relay(local, tunnel);
    let mut other = Other { stream, session };
    client.write_all(&vec![b'x'; 100_000]).unwrap();
    client.shutdown(Half::Write).unwrap();
    let end = other.end();
    other.send(&[&end]);
    let since = Instant::now();
    let ended = run(relay).await;
    assert!(matches!(ended, Err(RelayError::Unconfirmed)), "{ended:?}");
    assert!(since.elapsed() >= CHECK * STALLED, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_slow_peer_is_waited_for_while_it_reads() {
    let stream = vec![b'x'; 40_000];
    let ((local, mut client), (tunnel, other)) = (tcp_pair(), narrow_pair());
    let (relay, session) = relay(local, tunnel);
    let mut other = Other { stream: other, session };
    client.write_all(&stream).unwrap();
    client.shutdown(Half::Write).unwrap();
    let (end, done) = (other.end(), other.done());
    other.send(&[&end]);
    let since = Instant::now();
    let slow = thread::spawn(move || {
        let (mut all, mut some) = (vec![], [0; 1500]);
        while all.len() < stream.len() {
            let count = other.stream.read(&mut some).unwrap();
            all.extend_from_slice(&some[..count]);
            thread::sleep(CHECK * 2);
        }
        other.send(&[&done]);
        all.extend(read_all(&mut other.stream));
        open_all(&mut other.session.opener, &mut all).0.len()
    });
    let ended = run(relay).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert!(since.elapsed() >= CHECK * STALLED, "{:?}", since.elapsed());
    assert_eq!(slow.join().unwrap(), 40_000);
}

/// END has gone, so that the end of the tunnel alone says nothing; but a reset does.
#[tokio::test]
async fn a_tunnel_that_has_failed_is_noticed_while_the_local_peer_does_not_read() {
    let ((local, client), (tunnel, stream)) = (narrow_pair(), tcp_pair());
    let (relay, session) = relay(local, tunnel);
    let mut other = Other { stream, session };
    client.shutdown(Half::Write).unwrap();
    for _ in 0..5 {
        let record = sealed(&mut other.session.sealer, 10_000);
        other.send(&[&record]);
    }
    let reset = thread::spawn(move || {
        other.hear(&Record::End);
        SockRef::from(&other.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let since = Instant::now();
    let ended = run(relay).await;
    assert!(matches!(ended, Err(RelayError::Truncated)), "{ended:?}");
    assert!(since.elapsed() >= CHECK * STALLED, "{:?}", since.elapsed());
    reset.join().unwrap();
}

/// Two relays, one at each end of a TCP connection. Whichever closes first has read all, so
/// that no reset overtakes what it has said.
#[tokio::test]
async fn both_ends_end_well_in_either_order() {
    for first in ["client", "server", "both"].repeat(30) {
        let (left, right) = tcp_pair();
        let port_of_sender = right.peer_addr().unwrap();
        let (initiator, mut responder) = sessions();
        let (near, client) = pair();
        let (far, server) = pair();
        let config = TunnelConfig::to(Address::Unix("/".into()));
        let relay = |local, tunnel, session| {
            let tunnel = Tunnel { stream: TunnelStream(tunnel), session };
            Relay::new(LocalStream(local), tunnel, Arc::default(), &config)
        };
        // The receiver's relay begins once OPEN has come.
        let right = stream(right);
        let mut sender = relay(near, left, initiator);
        let run_sender = async {
            let (_trigger, shutdown) = shutdown();
            sender.queue(FirstRecord::Open(Extensions::default())).unwrap();
            let ended = sender.run(Role::Encrypt, &Ending::by(&shutdown)).await;
            sender.close(ended).await
        };
        let run_receiver = async {
            let mut open = [0; OVERHEAD];
            assert_eq!(right.read_full(&mut open, &mut 0).await.unwrap(), OVERHEAD);
            assert_eq!(responder.opener.open(&mut open), Ok(OPEN));
            run(relay(far, right, responder)).await
        };
        let peers = thread::spawn(move || {
            let (mut one, mut two) = match first {
                "server" => (server, client),
                _ => (client, server),
            };
            one.write_all(b"all of it").unwrap();
            two.write_all(b"all of it").unwrap();
            one.shutdown(Half::Write).unwrap();
            if first == "both" {
                two.shutdown(Half::Write).unwrap();
            }
            assert_eq!(read_all(&mut two), b"all of it");
            let _may_be_closed = two.shutdown(Half::Write);
            assert_eq!(read_all(&mut one), b"all of it");
        });
        let both = async { tokio::join!(run_sender, run_receiver) };
        let (sender, receiver) = timeout(PATIENCE, both).await.unwrap();
        assert!(sender.is_ok() && receiver.is_ok(), "{first}: {sender:?}, {receiver:?}");
        peers.join().unwrap();
        // The receiver closed first: the sender's port is not in TIME_WAIT.
        let since = Instant::now();
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&port_of_sender.into())
        };
        while bind().is_err() {
            assert!(since.elapsed() < PATIENCE, "{first}: the port is still in use");
            sleep(Duration::from_millis(1)).await;
        }
    }
}
