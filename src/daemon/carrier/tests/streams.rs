//! Streams beside each other.

use super::*;
use crate::daemon::carrier::outgoing::Outgoing;
use crate::protocol::carrier::{Carrier, Event, Sent};
use crate::protocol::{Padding, Record, SealError};

#[tokio::test]
async fn streams_share_a_carrier_and_end_alone() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut first = carry(&sender, &mut receiver, None).await;
        let mut second = carry(&sender, &mut receiver, None).await;
        for size in [1, 100, 8 * 1024, 60_000] {
            first.round_trip(&bytes(size)).await;
            second.round_trip(&bytes(size)).await;
        }
        assert_eq!((sender.link.streams(), receiver.link.streams()), (2, 2));
        first.end_well().await;
        second.round_trip(b"goes on").await;
        assert_eq!((sender.link.streams(), receiver.link.streams()), (1, 1));
        second.end_well().await;
    })
    .await;
}

/// More than all credit goes through, in either direction alone.
#[tokio::test]
async fn much_goes_one_way() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let Carried { client, server, at_sender, at_receiver, .. } =
            carry(&sender, &mut receiver, None).await;
        let sent = bytes(3_000_000);
        let (mut from, mut to) = (client, server);
        for _ in 0..2 {
            let expected = sent.clone();
            let read = spawn_local(async move {
                let mut got = vec![0; expected.len()];
                to.read_exact(&mut got).await.unwrap();
                assert!(got == expected);
                to
            });
            from.write_all(&sent).await.unwrap();
            (from, to) = (read.await.unwrap(), from);
        }
        drop((from, to));
        drop((at_sender.await.unwrap(), at_receiver.await.unwrap()));
    })
    .await;
}

/// What it is sent waits, bounded by its credit. Nobody else notices (D1, C8).
#[tokio::test]
async fn a_reader_that_stands_still_holds_up_nobody_else() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let Carried { id, mut client, mut server, .. } = carry(&sender, &mut receiver, None).await;
        let mut other = carry(&sender, &mut receiver, None).await;
        // So much fits into no buffer of the way.
        let sent = bytes(32 << 20);
        let expected = sent.clone();
        let write = spawn_local(async move {
            server.write_all(&sent).await.unwrap();
            server
        });
        for _ in 0..100 {
            other.round_trip(&bytes(1000)).await;
        }
        until(|| receiver.link.lock().carrier.sendable(id) == 0).await;
        other.round_trip(&bytes(1000)).await;
        assert!(!write.is_finished());
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).await.unwrap();
        assert!(got == expected);
        write.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_client_may_end_its_stream_and_read_on() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut carried = carry(&sender, &mut receiver, None).await;
        carried.client.write_all(b"question").await.unwrap();
        carried.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut carried.server).await.unwrap(), b"question");
        let answer = bytes(200_000);
        carried.server.write_all(&answer).await.unwrap();
        carried.server.shutdown().await.unwrap();
        assert!(rest(&mut carried.client).await.unwrap() == answer);
        carried.at_sender.await.unwrap().unwrap();
        carried.at_receiver.await.unwrap().unwrap();
    })
    .await;
}

/// As many as are allowed, and then one in the place of each that has ended (C3).
#[tokio::test]
async fn a_place_is_free_once_its_stream_is_over() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut all = Vec::new();
        for _ in 0..ALLOWED {
            all.push(carry(&sender, &mut receiver, None).await);
        }
        let full = CarriedStream::open(&sender.link, Extensions::default());
        assert!(matches!(full.map(drop), Err(NoStream::Full)));
        all.pop().unwrap().end_well().await;
        let mut again = carry(&sender, &mut receiver, None).await;
        assert_eq!(again.id.number(), ALLOWED + 1);
        again.round_trip(b"again").await;
    })
    .await;
}

/// Idle streams and carriers hold no buffer.
#[tokio::test]
async fn nothing_is_held_while_nothing_moves() {
    on_one_thread(async {
        let (sender, mut receiver) = End::pair();
        let mut carried = carry(&sender, &mut receiver, None).await;
        carried.round_trip(&bytes(100_000)).await;
        for end in [&sender, &receiver] {
            until(|| end.link.lock().outgoing.is_empty()).await;
            assert_eq!(end.link.lock().entries[&carried.id].capacity(), 0);
        }
    })
    .await;
}

/// Beside the one byte of the record's kind.
#[test]
fn each_record_is_padded_to_a_multiple() {
    const RECORD: usize = 3 + 16;
    for padding in [2, 100, 256, 8192, 16_384] {
        for bytes in [1, 200, 4000, 60_000] {
            let (mut sealing, mut opening) = sessions();
            opening.opener.open(&mut sealing.sealer.seal_carry().unwrap()).unwrap();
            let mut outgoing = Outgoing::new(sealing.sealer, Padding::new(padding).ok());
            let mut sender = Carrier::new(Side::Initiator, 1);
            let id = sender.open(Extensions::default()).unwrap();
            let mut left = bytes;
            outgoing
                .fill(|batch| {
                    while left > 0 {
                        let most = left;
                        let read = |room: &mut [u8]| Ok::<_, SealError>(room.len());
                        let Sent::Bytes(count) = sender.data(id, most, batch, read)? else {
                            return Ok(false);
                        };
                        left -= count;
                    }
                    Ok::<_, SealError>(true)
                })
                .unwrap();
            outgoing.seal().unwrap();
            let mut sealed = outgoing.sealed().to_vec();
            let (mut rest, mut got) = (&mut sealed[..], 0);
            let mut receiver = Carrier::new(Side::Responder, 1);
            while let Some(length) = opening.opener.record_length(rest).unwrap() {
                let (record, behind) = rest.split_at_mut(length);
                assert_eq!((length - RECORD + 1) % usize::from(padding), 0, "{padding} {bytes}");
                let Record::Frames(frames) = opening.opener.open(record).unwrap() else {
                    panic!("no frames");
                };
                let mut at = 0;
                while let Some(event) = receiver.receive(&record[frames.clone()], &mut at).unwrap()
                {
                    if let Event::Data(_, range) = event {
                        got += range.len();
                    }
                }
                rest = behind;
            }
            assert_eq!(got, bytes, "{padding}");
        }
    }
}
