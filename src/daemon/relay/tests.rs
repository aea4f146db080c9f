//! What cannot be brought about from outside.

use super::turn::RECORDS_OPENED;
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use rand::rngs::SysRng;

use crate::config::{Keepalive, Waiting};
use crate::daemon::shutdown::shutdown;
use crate::protocol::{
    AbortReason, Initiator, OVERHEAD, Opener, RECORD_MAX, Record, Responder, Sealer, SharedKey,
    Suite,
};

/// A stream of the runtime, and its other end.
fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Stream::accepted(ours.into(), Keepalive::Off).unwrap(), theirs)
}

fn sessions() -> (Session, Session) {
    let key = SharedKey::from_key_file(&[1; 32], Box::new([0; 32])).unwrap();
    let (initiator, message_1) = Initiator::start(Suite::Aes256Gcm, &key, &mut SysRng).unwrap();
    let responder = Responder::accept(&message_1, &[key], None, &mut SysRng).unwrap();
    (initiator.finish(&responder.reply).unwrap(), responder.session)
}

/// Opens the first of the records; what it says, and its bytes.
fn open_first(opener: &mut Opener, records: &mut Vec<u8>) -> (Record, Vec<u8>) {
    let length = opener.record_length(records).unwrap().unwrap();
    let mut record: Vec<_> = records.drain(..length).collect();
    (opener.open(&mut record).unwrap(), record)
}

/// It had gone before the first byte of the client came to it.
#[tokio::test]
async fn the_last_words_of_a_server_that_is_gone_arrive() {
    let (mut initiator, mut responder) = sessions();
    let mut open = initiator.sealer.open().unwrap();
    assert_eq!(responder.opener.open(&mut open), Ok(Record::Open));
    let (tunnel, mut sender) = pair();
    let mut data = [0; OVERHEAD + 1];
    initiator.sealer.seal_data(&mut data).unwrap();
    sender.write_all(&data).unwrap();
    let (local, mut server) = pair();
    server.write_all(b"-ERR").unwrap();
    drop(server);

    let heard = thread::spawn(move || {
        let mut records = Vec::new();
        sender.read_to_end(&mut records).unwrap();
        records
    });
    let mut relay = Relay {
        local,
        tunnel,
        outbound: Outbound::new(responder.sealer, None),
        inbound: Inbound::new(responder.opener),
        awake: Awake::new(Waiting::Asleep),
    };
    let (_trigger, shutdown) = shutdown();
    let result = relay.run(Role::Decrypt, &shutdown).await;
    assert!(matches!(result, Err(Close::Local(_))));
    assert!(matches!(relay.close(result).await, Close::Local(_)));

    let mut records = heard.join().unwrap();
    assert_eq!(open_first(&mut initiator.opener, &mut records).0, Record::Opened);
    let (Record::Data(range), data) = open_first(&mut initiator.opener, &mut records) else {
        panic!("no data");
    };
    assert_eq!(data.get(range), Some(&b"-ERR"[..]));
    let reset = Record::Abort(AbortReason::LocalPeerReset);
    assert_eq!(open_first(&mut initiator.opener, &mut records).0, reset);
}

/// A receiver's direction out of the tunnel, past OPEN, and the sender's sealer.
fn inbound() -> (Inbound, Sealer) {
    let (mut initiator, mut responder) = sessions();
    let mut open = initiator.sealer.open().unwrap();
    assert_eq!(responder.opener.open(&mut open), Ok(Record::Open));
    (Inbound::new(responder.opener), initiator.sealer)
}

fn sealed(sealer: &mut Sealer, bytes: usize) -> Vec<u8> {
    let mut record = vec![7; OVERHEAD.saturating_add(bytes)];
    sealer.seal_data(&mut record).unwrap();
    record
}

impl Inbound {
    /// Polls it until it has done all it can: of small records a turn at once.
    async fn settle(&mut self, tunnel: &Stream, local: &Stream) {
        let mut awake = Awake::new(Waiting::Asleep);
        for _ in 0..20 {
            let before = self.bytes();
            poll_fn(|context| {
                assert!(self.poll(context, (tunnel, local), &mut awake).is_pending());
                Poll::Ready(())
            })
            .await;
            let opened = usize::try_from(self.bytes().saturating_sub(before)).unwrap();
            // What the turn before has left, and one read.
            assert!(opened < 2 * RECORDS_OPENED || opened == RECORD_MAX - OVERHEAD, "{opened}");
            yield_now().await;
        }
    }
}

/// Their opening takes the time, not their bytes.
#[tokio::test]
async fn a_turn_opens_so_many_one_byte_records_and_no_more() {
    const RECORDS: usize = 5000;
    let (mut inbound, mut sealer) = inbound();
    let (tunnel, mut sender) = pair();
    let (local, mut server) = pair();
    let records: Vec<u8> = (0..RECORDS).flat_map(|_| sealed(&mut sealer, 1)).collect();
    sender.write_all(&records).unwrap();
    inbound.settle(&tunnel, &local).await;
    server.read_exact(&mut [0; RECORDS]).unwrap();
}

/// Whoever holds the key can leave as many as there may be connections.
#[tokio::test]
async fn part_of_a_large_record_holds_room_for_one_record() {
    const LARGE: usize = RECORD_MAX - OVERHEAD;
    let mut all = vec![];
    for _ in 0..200 {
        let (mut inbound, mut sealer) = inbound();
        let (tunnel, mut sender) = pair();
        let (local, mut server) = pair();
        // A flow of whole ones has large buffers, and holds none between them.
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
