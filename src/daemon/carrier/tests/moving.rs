//! Bulk leaves the carrier.

use super::*;
use crate::daemon::carrier::bulk::MOVE_AFTER;
use crate::daemon::carrier::entry::Join as Joined;
use crate::protocol::{AbortReason, Record};

/// What a receiver does with a session that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accept,
    /// For a stream that does not live.
    Refuse,
    /// It cannot be reached.
    Fail,
    /// The session is cut behind its acceptance.
    Cut,
}

/// Makes the sessions of streams, which `receiver` answers so.
fn joining(joins: Joins, id: StreamId, answer: Answer) -> Join {
    Box::new(move || {
        let joins = joins.clone();
        Box::pin(async move {
            let cut = || Err(RelayError::Tunnel(io::ErrorKind::ConnectionReset.into()));
            if answer == Answer::Fail {
                return cut();
            }
            let (mut ours, theirs) = tunnels();
            let mut theirs = theirs;
            // As if JOIN had gone and proved the stream.
            let mut open = ours.session.sealer.seal_open(Extensions::default()).unwrap();
            theirs.session.opener.open(&mut open).unwrap();
            let other = StreamId::from_number(1000).unwrap();
            let id = if answer == Answer::Refuse { other } else { id };
            joins.send(id, theirs, ()).map_err(|_| ()).unwrap();
            let mut bytes = vec![0; 300];
            let (mut got, mut wanted) = (0, 19);
            while got < wanted {
                ours.stream.read_full(&mut bytes[..wanted], &mut got).await.unwrap();
                wanted = ours.session.opener.record_length(&bytes[..got]).unwrap().unwrap();
            }
            if answer == Answer::Cut {
                return cut();
            }
            let answer = ours.session.opener.open(&mut bytes[..wanted]).unwrap();
            if let Record::Abort(reason) = answer {
                return Err(RelayError::Aborted(reason));
            }
            assert!(matches!(answer, Record::Opened(_)), "{answer:?}");
            Ok(ours)
        })
    })
}

/// Opens a stream whose session is answered so. It is the first of its carrier.
async fn carried(answer: Answer) -> (End, End, Carried) {
    let (sender, mut receiver) = End::pair();
    let first = StreamId::from_number(1).unwrap();
    let join = joining(receiver.joins.clone(), first, answer);
    let carried = carry(&sender, &mut receiver, Some(join)).await;
    (sender, receiver, carried)
}

/// Sends bytes one way, and looks at them.
async fn send(from: &mut TcpStream, to: &mut TcpStream, sent: &[u8]) {
    let mut got = vec![0; sent.len()];
    let (written, read) = tokio::join!(from.write_all(sent), to.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn bulk_leaves_the_carrier_and_nothing_is_lost() {
    on_one_thread(async {
        for to_server in [true, false] {
            let (sender, receiver, mut carried) = carried(Answer::Accept).await;
            carried.round_trip(b"small").await;
            assert_eq!((sender.link.streams(), receiver.link.streams()), (1, 1));
            let Carried { client, server, .. } = &mut carried;
            let sent = bytes(4 << 20);
            if to_server {
                send(client, server, &sent).await;
            } else {
                send(server, client, &sent).await;
            }
            until(|| sender.link.streams() + receiver.link.streams() == 0).await;
            // It goes on, both ways, whatever becomes of the carrier (C15).
            carried.round_trip(&bytes(100_000)).await;
            sender.ended.abort();
            receiver.ended.abort();
            carried.round_trip(&bytes(100_000)).await;
            carried.end_well().await;
        }
    })
    .await;
}

/// One direction has ended before (C11): it ends again in the session.
#[tokio::test]
async fn a_stream_that_has_ended_one_way_is_moved_as_well() {
    on_one_thread(async {
        let (sender, receiver, mut carried) = carried(Answer::Accept).await;
        carried.client.write_all(b"question").await.unwrap();
        carried.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut carried.server).await.unwrap(), b"question");
        let answer = bytes(4 << 20);
        let expected = answer.clone();
        let mut server = carried.server;
        let write = spawn_local(async move {
            server.write_all(&answer).await.unwrap();
            server.shutdown().await.unwrap();
            server
        });
        assert!(rest(&mut carried.client).await.unwrap() == expected);
        write.await.unwrap();
        carried.at_sender.await.unwrap().unwrap();
        carried.at_receiver.await.unwrap().unwrap();
        assert_eq!(sender.link.streams() + receiver.link.streams(), 0);
    })
    .await;
}

/// The stream stays, unharmed, and is not moved again (C10).
#[tokio::test]
async fn a_stream_whose_session_is_refused_or_fails_stays() {
    on_one_thread(async {
        for answer in [Answer::Refuse, Answer::Fail] {
            let (sender, receiver, mut carried) = carried(answer).await;
            let Carried { client, server, id, .. } = &mut carried;
            send(client, server, &bytes(4 * MOVE_AFTER)).await;
            send(server, client, &bytes(4 * MOVE_AFTER)).await;
            assert_eq!(sender.link.lock().entries[id].join, Joined::Lost);
            assert_eq!((sender.link.streams(), receiver.link.streams()), (1, 1));
            carried.end_well().await;
        }
    })
    .await;
}

/// The other side has moved, and this one cannot: nobody may take the stream for complete
/// (C14).
#[tokio::test]
async fn a_stream_whose_session_is_lost_behind_moved_is_reset() {
    on_one_thread(async {
        let (_sender, _receiver, mut carried) = carried(Answer::Cut).await;
        let Carried { client, server, .. } = &mut carried;
        let sent = bytes(4 * MOVE_AFTER);
        let mut got = Vec::new();
        let (written, read) = tokio::join!(client.write_all(&sent), server.read_to_end(&mut got));
        assert!(written.is_err() || read.is_err());
        assert!(sent.starts_with(&got) && got.len() < sent.len());
        assert!(carried.at_sender.await.unwrap().is_err());
        assert!(carried.at_receiver.await.unwrap().is_err());
    })
    .await;
}

/// Whoever resets before the move, within it, or behind it: the other one is reset.
#[tokio::test]
async fn a_reset_while_a_stream_moves_reaches_the_other_peer() {
    on_one_thread(async {
        for after in (0..40).map(|step| step * MOVE_AFTER / 16) {
            for by_client in [true, false] {
                let (_sender, _receiver, carried) = carried(Answer::Accept).await;
                let Carried { mut client, mut server, at_sender, at_receiver, .. } = carried;
                send(&mut client, &mut server, &bytes(after)).await;
                let mut other = if by_client {
                    reset(client);
                    server
                } else {
                    reset(server);
                    client
                };
                assert!(rest(&mut other).await.is_err(), "{after} {by_client}");
                let errors = [at_sender.await.unwrap(), at_receiver.await.unwrap()];
                let is_told = |result: &Result| {
                    matches!(result, Err(RelayError::Aborted(AbortReason::LocalPeerReset)))
                };
                assert_eq!(errors.iter().filter(|error| is_told(error)).count(), 1, "{errors:?}");
            }
        }
    })
    .await;
}
