//! How streams and carriers end.

use super::*;
use crate::daemon::carrier::link::OPENS;
use crate::daemon::carrier::owner::CHECK;
use crate::protocol::{AbortReason, OpenError, PREFIX, SUFFIX};

/// What was sent before a reset arrives, and then the reset.
#[tokio::test]
async fn a_reset_of_a_peer_reaches_the_other_behind_its_last_words() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut other = carry(&sender, &mut receiver, None).await;
        let mut stream = carry(&sender, &mut receiver, None).await;
        stream.round_trip(b"before").await;
        stream.server.write_all(b"-ERR no").await.unwrap();
        stream.server.shutdown().await.unwrap();
        let mut got = [0; 7];
        stream.client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"-ERR no");
        reset(stream.client);
        let error = stream.at_receiver.await.unwrap().unwrap_err();
        assert!(matches!(error, RelayError::Aborted(AbortReason::LocalPeerReset)), "{error}");
        assert!(matches!(stream.at_sender.await.unwrap(), Err(RelayError::Local(_))));
        let reset = rest(&mut stream.server).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        other.round_trip(b"goes on").await;
        assert_eq!((sender.link.streams(), receiver.link.streams()), (1, 1));
    })
    .await;
}

/// As a panic of its task drops it.
#[tokio::test]
async fn a_stream_that_is_dropped_is_aborted_alone() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut other = carry(&sender, &mut receiver, None).await;
        let mut stream = carry(&sender, &mut receiver, None).await;
        stream.round_trip(b"before").await;
        stream.at_sender.abort();
        let error = stream.at_receiver.await.unwrap().unwrap_err();
        assert!(matches!(error, RelayError::Aborted(_)), "{error}");
        for peer in [&mut stream.client, &mut stream.server] {
            assert_eq!(rest(peer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        other.round_trip(b"goes on").await;
    })
    .await;
}

/// C20, C19.
#[tokio::test]
async fn a_carrier_that_is_to_leave_ends_once_it_has_no_streams() {
    on_one_thread(async {
        for by_sender in [true, false] {
            let (mut sender, mut receiver) = End::pair();
            let mut stream = carry(&sender, &mut receiver, None).await;
            let end = if by_sender { &mut sender } else { &mut receiver };
            end.leave.take().unwrap().send(Leave::Replaced).unwrap();
            until(|| sender.link.is_retired()).await;
            assert!(CarriedStream::open(&sender.link, Extensions::default()).is_err());
            stream.round_trip(b"goes on").await;
            assert!(!sender.ended.is_finished() && !receiver.ended.is_finished());
            stream.end_well().await;
            assert!(matches!(sender.ended.await.unwrap(), CarrierEnd::Closed));
            assert!(matches!(receiver.ended.await.unwrap(), CarrierEnd::Closed));
        }
    })
    .await;
}

/// For many checks nothing but signs of life goes.
#[tokio::test]
async fn an_idle_carrier_stays_and_a_silent_one_fails() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut stream = carry(&sender, &mut receiver, None).await;
        tokio::time::sleep(CHECK * 20).await;
        assert!(sender.link.is_usable());
        stream.round_trip(b"as before").await;

        let (initiator, _silent) = carried();
        let silent = End::run(Side::Initiator, initiator, None);
        let lost = CarriedStream::open(&silent.link, Extensions::default()).unwrap();
        assert!(matches!(silent.ended.await.unwrap(), CarrierEnd::Silent));
        assert!(matches!(lost.lost().await, RelayError::Tunnel(_)));
        assert!(CarriedStream::open(&silent.link, Extensions::default()).is_err());
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_and_a_revocation_are_told_and_end_all_streams() {
    on_one_thread(async {
        for is_revoked in [false, true] {
            let (initiator, responder) = carried();
            let key = Key::for_tests("a");
            let sender = End::run(Side::Initiator, initiator, None);
            let mut receiver = End::run(Side::Responder, responder, Some(Arc::clone(&key)));
            let mut stream = carry(&sender, &mut receiver, None).await;
            stream.round_trip(b"before").await;
            let told = if is_revoked {
                key.revoke();
                receiver.shutdown.ask_again();
                AbortReason::KeyRevoked
            } else {
                receiver.begin_shutdown.begin();
                AbortReason::ShuttingDown
            };
            let (at_sender, at_receiver) = stream.is_reset().await;
            assert!(matches!(at_sender, RelayError::Aborted(reason) if reason == told));
            assert_eq!(matches!(at_receiver, RelayError::KeyRevoked), is_revoked);
            assert!(matches!(sender.ended.await.unwrap(), CarrierEnd::Aborted(_)));
        }
    })
    .await;
}

/// C18.
#[tokio::test]
async fn a_carrier_that_is_cut_resets_its_streams() {
    on_one_thread(async {
        let (initiator, responder) = carried();
        let cut = initiator.stream.duplicate();
        let sender = End::run(Side::Initiator, initiator, None);
        let mut receiver = End::run(Side::Responder, responder, None);
        let mut first = carry(&sender, &mut receiver, None).await;
        first.round_trip(b"before").await;
        let second = carry(&sender, &mut receiver, None).await;
        cut.shutdown(std::net::Shutdown::Both).unwrap();
        for stream in [first, second] {
            let (at_sender, at_receiver) = stream.is_reset().await;
            for error in [at_sender, at_receiver] {
                let is_cut = matches!(error, RelayError::Truncated | RelayError::Tunnel(_));
                assert!(is_cut, "{error}");
            }
        }
    })
    .await;
}

/// Nothing is answered to a violation, and nothing of it reaches a stream.
#[tokio::test]
async fn a_frame_that_breaks_a_rule_ends_the_carrier() {
    on_one_thread(async {
        // Of no type; DATA of a stream that was never opened; OPEN of stream 0.
        for frame in
            [[99, 0, 0, 0, 1, 0, 0].as_slice(), &[3, 0, 0, 0, 9, 0, 1, 7], &[1, 0, 0, 0, 0, 0, 0]]
        {
            let (mut initiator, responder) = carried();
            let receiver = End::run(Side::Responder, responder, None);
            let record = frames(&mut initiator.session, frame);
            initiator.stream.write_all(&record).await.unwrap();
            assert!(matches!(receiver.ended.await.unwrap(), CarrierEnd::Violation(_)));
            assert_eq!(receiver.link.streams(), 0);
        }
        // No frames at all.
        let (mut initiator, responder) = carried();
        let receiver = End::run(Side::Responder, responder, None);
        let end = initiator.session.sealer.seal_end().unwrap();
        initiator.stream.write_all(&end).await.unwrap();
        let ended = receiver.ended.await.unwrap();
        assert!(matches!(ended, CarrierEnd::Record(OpenError::Violation)), "{ended:?}");
    })
    .await;
}

/// A record of these frames.
fn frames(session: &mut Session, frames: &[u8]) -> Vec<u8> {
    let mut record = vec![0; PREFIX + frames.len() + SUFFIX];
    record[PREFIX..][..frames.len()].copy_from_slice(frames);
    session.sealer.seal_frames(&mut record).unwrap();
    record
}

/// A peer that has said OPEN and ABORT in one record (D3): nothing is left of the stream.
#[tokio::test]
async fn a_stream_that_was_aborted_at_once_is_lost_at_once() {
    on_one_thread(async {
        let (mut initiator, responder) = carried();
        let mut receiver = End::run(Side::Responder, responder, None);
        let record = frames(&mut initiator.session, &[1, 0, 0, 0, 1, 0, 0, 5, 0, 0, 0, 1, 0, 1, 5]);
        initiator.stream.write_all(&record).await.unwrap();
        let stream = receiver.opened.recv().await.unwrap();
        assert!(matches!(stream.lost().await, RelayError::Aborted(_)));
        drop(stream);
        assert_eq!(receiver.link.streams(), 0);
        // It answers nothing.
        let record = frames(&mut initiator.session, &[8, 0, 0, 0, 0, 0, 1, 0]);
        initiator.stream.write_all(&record).await.unwrap();
        assert!(matches!(receiver.ended.await.unwrap(), CarrierEnd::Violation(_)));
    })
    .await;
}

/// The violation stands behind what opens streams, in one record.
#[tokio::test]
async fn streams_of_a_record_that_breaks_a_rule_are_dropped() {
    on_one_thread(async {
        let (mut initiator, responder) = carried();
        let mut receiver = End::run(Side::Responder, responder, None);
        let open_and_no_type = [1, 0, 0, 0, 1, 0, 0, 99, 0, 0, 0, 1, 0, 0];
        let record = frames(&mut initiator.session, &open_and_no_type);
        initiator.stream.write_all(&record).await.unwrap();
        assert!(matches!(receiver.ended.await.unwrap(), CarrierEnd::Violation(_)));
        assert!(receiver.opened.recv().await.is_none());
        assert!(receiver.link.lock().entries.is_empty());
    })
    .await;
}

/// A peer that opens streams and gives them up at once, for ever (D3): beyond the limit, they
/// are refused, and cost nothing more.
#[tokio::test]
async fn a_peer_opens_only_so_many_streams_between_two_checks() {
    on_one_thread(async {
        let (mut initiator, responder) = carried();
        let receiver = End::run(Side::Responder, responder, None);
        let mut opened = receiver.opened;
        let taken = spawn_local(async move {
            let mut count = 0;
            while let Some(stream) = opened.recv().await {
                drop(stream);
                count += 1;
            }
            count
        });
        let mut number = 0_u32;
        while number < 3 * OPENS {
            let mut some = Vec::new();
            for _ in 0..500 {
                number += 1;
                let id = number.to_be_bytes();
                some.extend([&[1], &id[..], &[0, 0], &[5], &id, &[0, 1, 5]].concat());
            }
            let record = frames(&mut initiator.session, &some);
            initiator.stream.write_all(&record).await.unwrap();
        }
        drop(initiator);
        assert!(matches!(receiver.ended.await.unwrap(), CarrierEnd::Closed | CarrierEnd::Tunnel(_)));
        let count = taken.await.unwrap();
        assert!(count >= OPENS && count < number, "{count}");
    })
    .await;
}
