//! The inbound direction alone: how much is opened at once, and how much room is held.

use super::*;

use socket2::{Domain, Type};

/// The inbound direction of a receiver after OPEN, and the sender's sealer.
fn inbound() -> (Inbound, Sealer) {
    let (mut initiator, mut responder) = sessions();
    let mut open = initiator.sealer.seal_open(Extensions::default()).unwrap();
    assert_eq!(responder.opener.open(&mut open), Ok(OPEN));
    (Inbound::new(responder.opener, Arc::default()), initiator.sealer)
}

impl Inbound {
    /// Polls it until it has done all it can: one budget of small records in each poll.
    async fn settle(&mut self, tunnel: &TunnelStream, local: &LocalStream) {
        for _ in 0..20 {
            let before = self.traffic().received();
            self.poll_once(tunnel, local).await;
            let opened = usize::try_from(self.traffic().received() - before).unwrap();
            // The rest of the previous budget, and one read.
            assert!(
                u32::try_from(opened).unwrap() < 2 * RECORDS_OPENED
                    || opened == RECORD_MAX - OVERHEAD,
                "{opened}"
            );
            yield_now().await;
        }
    }

    async fn poll_once(&mut self, tunnel: &TunnelStream, local: &LocalStream) {
        let mut poller = BusyPoller::new(BusyPoll::Off);
        poll_fn(|cx| {
            assert!(self.poll(cx, tunnel, local, &mut poller).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}

/// Opening the records takes the time, not their bytes.
#[tokio::test]
async fn a_budget_opens_so_many_one_byte_records_and_no_more() {
    const RECORDS: usize = 5000;
    let (mut inbound, mut sealer) = inbound();
    let ((local, mut server), (tunnel, mut sender)) = (pair(), pair());
    let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
    let records: Vec<u8> = (0..RECORDS).flat_map(|_| sealed(&mut sealer, 1)).collect();
    sender.write_all(&records).unwrap();
    inbound.settle(&tunnel, &local).await;
    server.read_exact(&mut [0; RECORDS]).unwrap();
}

/// A holder of the key can send such a part on each connection.
#[tokio::test]
async fn part_of_a_large_record_holds_room_for_one_record() {
    const LARGE: usize = RECORD_MAX - OVERHEAD;
    let mut all = vec![];
    for _ in 0..200 {
        let (mut inbound, mut sealer) = inbound();
        let ((local, mut server), (tunnel, mut sender)) = (pair(), pair());
        let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
        // A flow of whole records has large buffers, and holds none in between.
        for _ in 0..3 {
            sender.write_all(&sealed(&mut sealer, LARGE)).unwrap();
            inbound.settle(&tunnel, &local).await;
            server.read_exact(&mut vec![0; LARGE]).unwrap();
            assert_eq!(inbound.held(), 0);
        }
        let record = sealed(&mut sealer, LARGE);
        let (start, end) = record.split_at(60_000);
        sender.write_all(start).unwrap();
        inbound.settle(&tunnel, &local).await;
        all.push((inbound, (tunnel, local), (sender, server), end.to_vec()));
    }
    for (inbound, (tunnel, local), (sender, server), end) in &mut all {
        assert_eq!(inbound.held(), RECORD_MAX);
        sender.write_all(end).unwrap();
        inbound.settle(tunnel, local).await;
        server.read_exact(&mut vec![0; LARGE]).unwrap();
        assert_eq!(inbound.held(), 0);
    }
}

/// Of the next record there is little.
#[tokio::test]
async fn part_of_a_small_record_behind_bulk_holds_little_room() {
    const LARGE: usize = RECORD_MAX - OVERHEAD;
    let (mut inbound, mut sealer) = inbound();
    let ((local, mut server), (tunnel, mut sender)) = (pair(), pair());
    let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
    for _ in 0..3 {
        sender.write_all(&sealed(&mut sealer, LARGE)).unwrap();
        inbound.settle(&tunnel, &local).await;
        server.read_exact(&mut vec![0; LARGE]).unwrap();
    }
    let (whole, next) = (sealed(&mut sealer, LARGE), sealed(&mut sealer, 1));
    let (start, end) = next.split_at(10);
    sender.write_all(&[&whole, start].concat()).unwrap();
    inbound.settle(&tunnel, &local).await;
    assert_eq!(inbound.held(), SMALL);
    sender.write_all(end).unwrap();
    inbound.settle(&tunnel, &local).await;
    server.read_exact(&mut vec![0; LARGE + 1]).unwrap();
    assert_eq!(inbound.held(), 0);
}

/// Thousands of connections wait between two requests.
#[tokio::test]
async fn no_room_is_held_from_the_moment_when_all_is_written() {
    let (mut inbound, mut sealer) = inbound();
    let ((local, _server), (tunnel, mut sender)) = (pair(), pair());
    let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
    sender.write_all(&sealed(&mut sealer, 1)).unwrap();
    let mut poller = BusyPoller::new(BusyPoll::Off);
    while inbound.traffic().received() == 0 {
        yield_now().await;
        poll_fn(|cx| {
            assert!(inbound.poll(cx, &tunnel, &local, &mut poller).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    assert_eq!(inbound.held(), 0);
}

#[tokio::test]
async fn the_largest_record_arrives_when_all_large_buffers_are_lent() {
    const LARGE: usize = RECORD_MAX - OVERHEAD;
    let _lent: Vec<_> = std::iter::from_fn(Buffer::lend_large).collect();
    let (mut inbound, mut sealer) = inbound();
    let ((local, mut server), (tunnel, mut sender)) = (pair(), pair());
    let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
    for _ in 0..3 {
        sender.write_all(&sealed(&mut sealer, LARGE)).unwrap();
        inbound.settle(&tunnel, &local).await;
        server.read_exact(&mut vec![0; LARGE]).unwrap();
        assert_eq!(inbound.held(), 0);
    }
}

/// The local peer has read nothing so far, and the connection has failed meanwhile.
#[tokio::test]
async fn what_came_before_a_failure_is_still_written_and_so_is_its_end() {
    let (mut inbound, mut sealer) = inbound();
    let (tunnel, mut sender) = pair();
    let (mut ours, mut server) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut heard = vec![];
    while let Ok(count) = ours.write(&[9; 512]) {
        heard.resize(heard.len() + count, 9);
    }
    let (local, tunnel) = (LocalStream(stream(ours)), TunnelStream(tunnel));
    assert!(!inbound.is_ended());
    let (record, end) = (sealed(&mut sealer, 1), sealer.seal_end().unwrap());
    sender.write_all(&[&record[..], &end].concat()).unwrap();
    let mut poller = BusyPoller::new(BusyPoll::Off);
    while !inbound.is_ended() {
        poll_fn(|cx| {
            assert!(inbound.poll(cx, &tunnel, &local, &mut poller).is_pending());
            Poll::Ready(())
        })
        .await;
        yield_now().await;
    }
    heard.push(7);
    let reader = thread::spawn(move || assert_eq!(read_all(&mut server), heard));
    inbound.write_rest(&local).await.unwrap();
    reader.join().unwrap();
}

/// A stream whose every write comes as one packet, and its other end.
fn packets() -> (Stream, Socket) {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream(ours), theirs)
}

/// The next packet.
fn packet(from: &mut Socket) -> Vec<u8> {
    let mut room = vec![0; 100_000];
    let count = from.read(&mut room).unwrap();
    room.truncate(count);
    room
}

const HEADER: &[u8] = b"whose it is";

#[tokio::test]
async fn a_header_goes_in_one_write_with_what_has_come_and_is_no_part_of_the_stream() {
    // Short parts are moved up to the header, long ones are not.
    for sizes in [&[5][..], &[1, 2, 3], &[2000, 3, 2000], &[16_384]] {
        let (mut inbound, mut sealer) = inbound();
        let ((local, mut server), (tunnel, mut sender)) = (packets(), pair());
        let records: Vec<u8> = sizes.iter().flat_map(|size| sealed(&mut sealer, *size)).collect();
        sender.write_all(&records).unwrap();
        inbound.queue_header(HEADER);
        let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
        // The first poll only learns that there is room to write.
        while inbound.held() > 0 {
            inbound.poll_once(&tunnel, &local).await;
            yield_now().await;
        }
        let stream = vec![7; sizes.iter().sum()];
        let got = packet(&mut server);
        assert!(got == [HEADER, &stream].concat(), "{sizes:?}: {} bytes", got.len());
        assert_eq!(inbound.traffic().received(), u64::try_from(stream.len()).unwrap());
    }
}

#[tokio::test]
async fn a_header_waits_for_nothing() {
    let (mut inbound, mut sealer) = inbound();
    let ((local, mut server), (tunnel, mut sender)) = (packets(), pair());
    let (local, tunnel) = (LocalStream(local), TunnelStream(tunnel));
    let record = sealed(&mut sealer, 5);
    let (start, end) = record.split_at(7);
    // A part of a record is nothing to send.
    sender.write_all(start).unwrap();
    inbound.queue_header(HEADER);
    inbound.settle(&tunnel, &local).await;
    assert_eq!(packet(&mut server), HEADER);
    sender.write_all(end).unwrap();
    inbound.settle(&tunnel, &local).await;
    assert_eq!(packet(&mut server), [7; 5]);
}

/// Whatever the client did meanwhile, the server has the header and what came behind it.
#[tokio::test]
async fn a_header_arrives_though_the_client_is_gone() {
    for is_clean in [true, false] {
        let ((local, server), (tunnel, mut sender)) = (pair(), pair());
        let (mut relay, mut session) = relay(local, tunnel);
        sender.write_all(&data(&mut session, b'x')).unwrap();
        if is_clean {
            sender.write_all(&session.sealer.seal_end().unwrap()).unwrap();
        } else {
            let abort = session.sealer.seal_abort(AbortReason::LocalPeerReset).unwrap();
            sender.write_all(&abort).unwrap();
        }
        sender.shutdown(Half::Write).unwrap();
        relay.queue_header(HEADER);
        let got = thread::spawn(move || read_all(server));
        assert!(run(relay).await.is_err());
        assert_eq!(got.join().unwrap(), [HEADER, b"x"].concat(), "{is_clean}");
    }
}
