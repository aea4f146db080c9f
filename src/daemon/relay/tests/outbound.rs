//! Tests of the direction from the local socket to the tunnel.

use super::*;

/// What a client has sent before its connection is open goes with OPEN. A client that has
/// sent nothing, and will not, is told apart from one that has sent nothing yet.
#[tokio::test]
async fn what_a_client_sends_before_open_is_part_of_its_stream() {
    for stream in [&b"first"[..], b""] {
        let ((local, mut client), (tunnel, mut other)) = (tcp_pair(), pair());
        let (initiator, mut responder) = sessions();
        client.write_all(stream).unwrap();
        client.shutdown(Half::Write).unwrap();
        while !local.is_ended_by_peer() {
            sleep(Duration::from_millis(1)).await;
        }
        let config = TunnelConfig::to(Address::Unix("/".into()));
        let traffic = Arc::<Traffic>::default();
        let tunnel = Tunnel { stream: TunnelStream(tunnel), session: initiator };
        let mut relay = Relay::new(LocalStream(local), tunnel, Arc::clone(&traffic), &config);
        let opened = responder.sealer.seal_opened().unwrap();
        let end = responder.sealer.seal_end().unwrap();
        other.write_all(&[&opened[..], &end].concat()).unwrap();
        let ends = thread::spawn(move || {
            let said = hear(&mut other, &mut responder.opener, &Record::Done);
            other.write_all(&responder.sealer.seal_done().unwrap()).unwrap();
            said
        });
        let (_trigger, shutdown) = shutdown();
        relay.queue(FirstRecord::Open(Extensions::default())).unwrap();
        let result =
            timeout(PATIENCE, relay.run(Role::Encrypt, &Ending::by(&shutdown))).await.unwrap();
        assert!(relay.close(result).await.is_ok());
        let others = vec![OPEN, Record::End, Record::Done];
        assert_eq!(ends.join().unwrap(), (stream.to_vec(), others));
        assert_eq!(traffic.sent(), u64::try_from(stream.len()).unwrap());
    }
}

/// The tunnel has no room, so the client's socket is not read, and no read tells its reset.
#[tokio::test]
async fn a_client_that_is_reset_is_noticed_while_the_tunnel_has_no_room() {
    let ((local, mut client), (tunnel, _other)) = (tcp_pair(), narrow_pair());
    let (relay, _session) = relay(local, tunnel);
    client.write_all(&vec![b'x'; 50_000]).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Err(RelayError::Local(error)) = run(relay).await else { panic!("it has not failed") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
