//! What cannot be brought about from outside.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use rand::rngs::SysRng;

use crate::config::{Keepalive, Waiting};
use crate::daemon::shutdown::shutdown;
use crate::protocol::{
    AbortReason, Initiator, OVERHEAD, Opener, Record, Responder, SharedKey, Suite,
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
