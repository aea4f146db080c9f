//! Tests of how a connection ends: well, or with which error.

use super::*;

/// Both streams have ended, and the other end has the last word.
#[tokio::test]
async fn an_abort_that_comes_last_is_the_result() {
    let ((local, client), (tunnel, mut other)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    client.shutdown(Half::Write).unwrap();
    let ends = thread::spawn(move || {
        other.write_all(&session.sealer.seal_end().unwrap()).unwrap();
        let records = hear(&mut other, &mut session.opener, &Record::Done).1;
        other.write_all(&session.sealer.seal_abort(AbortReason::LocalPeerReset).unwrap()).unwrap();
        records
    });
    let ended = run(relay).await;
    assert!(matches!(ended, Err(RelayError::Aborted(AbortReason::LocalPeerReset))), "{ended:?}");
    assert_eq!(ends.join().unwrap(), [OPENED, Record::End, Record::Done]);
}

/// A peer that has had all and has said all may go as it likes.
#[tokio::test]
async fn a_peer_that_is_reset_after_both_ends_does_no_harm() {
    let ((local, client), (tunnel, mut other)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    client.shutdown(Half::Write).unwrap();
    let ends = thread::spawn(move || {
        other.write_all(&data(&mut session, b'x')).unwrap();
        other.write_all(&session.sealer.seal_end().unwrap()).unwrap();
        hear(&mut other, &mut session.opener, &Record::Done);
        // What it has not read makes this a reset, also on a unix socket.
        drop(client);
        other.write_all(&session.sealer.seal_done().unwrap()).unwrap();
    });
    let ended = run(relay).await;
    assert!(ended.is_ok(), "{ended:?}");
    ends.join().unwrap();
}

/// The other end has ended its stream, but has not had the end of this one.
#[tokio::test]
async fn an_end_without_the_end_of_this_stream_is_truncated() {
    let ((local, _client), (tunnel, mut other)) = (pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    other.write_all(&session.sealer.seal_end().unwrap()).unwrap();
    other.shutdown(Half::Write).unwrap();
    let ended = run(relay).await;
    assert!(matches!(ended, Err(RelayError::Truncated)), "{ended:?}");
}

/// The local peer does not read, so the end of the tunnel is not read either.
#[tokio::test]
async fn a_tunnel_that_has_ended_is_noticed_while_the_local_peer_does_not_read() {
    let ((local, _client), (tunnel, mut other)) = (narrow_pair(), pair());
    let (relay, mut session) = relay(local, tunnel);
    for _ in 0..5 {
        other.write_all(&sealed(&mut session.sealer, 10_000)).unwrap();
    }
    other.shutdown(Half::Write).unwrap();
    let since = Instant::now();
    let ended = run(relay).await;
    assert!(matches!(ended, Err(RelayError::Truncated)), "{ended:?}");
    // It may have ended just before the first check.
    assert!(since.elapsed() >= CHECK * 2, "{:?}", since.elapsed());
}

/// A relay whose local peer has not read all that has come: 15 000 bytes, and `last`.
async fn stuck(last: fn(&mut Sealer) -> Vec<u8>) -> (Relay, UnixStream, UnixStream) {
    let ((local, server), (tunnel, mut other)) = (narrow_pair(), pair());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut relay, mut session) = relay(local, tunnel);
    for _ in 0..5 {
        other.write_all(&sealed(&mut session.sealer, 3000)).unwrap();
    }
    other.write_all(&last(&mut session.sealer)).unwrap();
    while relay.inbound.traffic().received() < 15_000 {
        let Relay { local, tunnel, inbound, poller, .. } = &mut relay;
        let local = open(local.as_ref());
        poll_fn(|cx| {
            assert!(inbound.poll(cx, tunnel, local, poller).is_pending());
            Poll::Ready(())
        })
        .await;
        yield_now().await;
    }
    (relay, server, other)
}

#[tokio::test]
async fn a_stream_that_has_come_as_a_whole_is_passed_on_after_the_tunnel_has_failed() {
    for error in [RelayError::Truncated, RelayError::Tunnel(io::ErrorKind::BrokenPipe.into())] {
        let (mut relay, server, _other) = stuck(|sealer| sealer.seal_end().unwrap().to_vec()).await;
        assert!(relay.inbound.is_ended());
        let got = thread::spawn(move || read_all(server));
        timeout(PATIENCE, relay.last_words(&error)).await.unwrap().unwrap();
        assert_eq!(got.join().unwrap(), [7; 15_000], "{error}");
    }
}

/// A server that does not read is not waited for: its stream is cut anyway.
#[tokio::test]
async fn a_stream_that_is_cut_is_given_up_at_once() {
    let (mut relay, _server, _other) = stuck(|_| vec![]).await;
    let mut last = pin!(relay.last_words(&RelayError::Truncated));
    let ended = poll_fn(|cx| Poll::Ready(last.as_mut().poll(cx))).await;
    assert!(matches!(ended, Poll::Ready(Ok(()))));
}

/// If the tunnel were closed while the other end is sending, a reset could overtake ABORT.
#[tokio::test]
async fn a_tunnel_is_not_closed_before_the_other_end_has_ended_its_stream() {
    let (tunnel, mut other) = pair();
    let mut aborted = tokio::spawn(abort(TunnelStream(tunnel), Some([3; OVERHEAD + 1])));
    for _ in 0..20 {
        other.write_all(b"x").unwrap();
        yield_now().await;
        assert!(!aborted.is_finished());
    }
    other.shutdown(Half::Write).unwrap();
    timeout(PATIENCE, &mut aborted).await.unwrap().unwrap();
    assert_eq!(read_all(other), [3; OVERHEAD + 1]);
}

#[tokio::test]
async fn the_bytes_of_both_streams_are_counted() {
    let ((local, mut client), (tunnel, mut other)) = (pair(), pair());
    let (mut relay, mut session) = relay(local, tunnel);
    client.write_all(b"abc").unwrap();
    client.shutdown(Half::Write).unwrap();
    for _ in 0..2 {
        other.write_all(&data(&mut session, b'x')).unwrap();
    }
    other.write_all(&session.sealer.seal_end().unwrap()).unwrap();
    let ends = thread::spawn(move || {
        hear(&mut other, &mut session.opener, &Record::Done);
        other.write_all(&session.sealer.seal_done().unwrap()).unwrap();
    });
    let (_trigger, shutdown) = shutdown();
    relay.queue(FirstRecord::Opened).unwrap();
    timeout(PATIENCE, relay.run(Role::Decrypt, &Ending::by(&shutdown))).await.unwrap().unwrap();
    ends.join().unwrap();
    let traffic = relay.inbound.traffic();
    assert_eq!((traffic.sent(), traffic.received()), (3, 2));
}
