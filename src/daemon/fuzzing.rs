//! The targets of the fuzzer that need sockets: real ones, on an event loop.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a target fails that way"
)]

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use tokio::join;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::control::{Answer, LINE_MAX, Request, Verb, server};
use super::net::sides::{LocalStream, TunnelStream};
use super::net::stream::Stream;
use super::relay::error::RelayError;
use super::relay::{Ending, FirstRecord, Relay, Tunnel};
use super::runtime::shutdown::shutdown;
use crate::config::{Address, Keepalive, Role, TunnelConfig};
use crate::fuzzing::input::{Input, Seeded};
use crate::protocol::testing::{OPEN, To, one_direction};
use crate::protocol::{
    AbortReason, ConnectionId, Extensions, HandshakeHash, KEY_FILE_MAX, OVERHEAD, Opener,
    PADDED_COUNT, PREFIX, RECORD_MAX, Record, SUFFIX, Sealer, Session, Suite,
};

thread_local! {
    /// One for all runs.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

/// A stream of records, in any pieces, perhaps altered or cut: what reaches the local
/// peer is a beginning of what was sent, and complete if the relay says so. What the
/// relay sends itself is whole records, with the local peer's stream.
pub fn relay(data: &[u8]) {
    RUNTIME.with(|runtime| runtime.block_on(run_relay(Input::new(data))));
}

/// A session of no handshake.
fn session_of(sealer: Sealer, opener: Opener, suite: Suite) -> Session {
    let hash = HandshakeHash::new([0; 32]);
    Session { sealer, opener, suite, hash, connection_id: ConnectionId::of(&hash) }
}

async fn run_relay(mut input: Input<'_>) {
    let role = if input.choice() { Role::Encrypt } else { Role::Decrypt };
    let suite = Suite::ALL[input.below(4)];
    let mut random = Seeded::new(input.rest());
    let (to, from) = match role {
        Role::Encrypt => (To::Initiator, To::Responder),
        Role::Decrypt => (To::Responder, To::Initiator),
    };
    let (mut sealer, opener) = one_direction(suite, random.array(), to, 5);
    let (answers, answered) = one_direction(suite, random.array(), from, 5);
    let mut session = session_of(answers, opener, suite);
    let mut first = match role {
        Role::Encrypt => sealer.seal_opened().unwrap(),
        Role::Decrypt => sealer.seal_open(Extensions::default()).unwrap(),
    };
    let mut sent = Sent::default();
    // A receiver's relay begins when OPEN has come.
    match role {
        Role::Encrypt => sent.wire.extend(first),
        Role::Decrypt => assert_eq!(session.opener.open(&mut first), Ok(OPEN)),
    }
    sent.say(&mut sealer, &mut input);
    sent.spoil(&mut input);
    let answer = input.take(300).to_vec();
    let ((local, client), (tunnel, other)) = (pair(), pair());
    let mut config = TunnelConfig::to(Address::Unix("/".into()));
    config.padding = input.number().to_string().parse().unwrap_or_default();
    let tunnel = Tunnel { stream: TunnelStream(tunnel), session };
    let mut relay = Relay::new(LocalStream(local), tunnel, Arc::default(), &config);
    if role == Role::Decrypt && answer.len() % 2 == 1 {
        sent.stand_behind_header(&mut relay);
    }
    let pieces = RefCell::new(input);
    let (end, ended) = oneshot::channel();
    let say = async {
        write(&other, &sent.wire, || next_piece(&mut pieces.borrow_mut())).await;
        if let Some(done) = sent.done
            && ended.await.is_ok()
        {
            write(&other, &done, || next_piece(&mut pieces.borrow_mut())).await;
        }
        end_stream(&other);
    };
    let (result, received, (), said, ()) = join!(
        finish(relay, role),
        read_all(&client),
        write_all(&client, &answer, || usize::MAX),
        hear(&other, answered, role, end),
        say,
    );
    assert!(sent.stream.starts_with(&received), "bytes that nobody sent");
    assert!(answer.starts_with(&said.stream));
    match result {
        Ok(()) => {
            assert!(sent.end.is_some(), "a clean end of what was cut or altered");
            assert_eq!((received, said.stream, said.is_done), (sent.stream, answer, true));
        }
        Err(error) => assert!(!sent.is_clean, "{error}"),
    }
}

/// What stands before the stream.
const HEADER: &[u8] = &[7; 200];

/// What the other end sends.
#[derive(Default)]
struct Sent {
    wire: Vec<u8>,
    stream: Vec<u8>,
    /// Behind its END, and a DONE that comes too early, if these come as they were sent.
    end: Option<usize>,
    /// DONE, which is sent once the relay has sent its END.
    done: Option<[u8; OVERHEAD]>,
    /// Whether nothing is altered, cut or left out.
    is_clean: bool,
}

impl Sent {
    /// Has a receiver's relay say something to the server before the stream.
    fn stand_behind_header(&mut self, relay: &mut Relay) {
        relay.queue_header(HEADER);
        self.stream.splice(0..0, HEADER.iter().copied());
    }

    fn say(&mut self, sealer: &mut Sealer, input: &mut Input<'_>) {
        const MAX: usize = RECORD_MAX - OVERHEAD - PADDED_COUNT;
        for _ in 0..input.byte() % 32 {
            let is_padded = input.choice();
            let length = input.length(MAX).max(1);
            let stream = input.stream(length);
            let zeros = input.length(MAX.saturating_sub(stream.len()));
            let mut record;
            if is_padded {
                let before = [0; PREFIX + PADDED_COUNT];
                record = [&before, &stream[..], &vec![9; zeros], &[0; SUFFIX]].concat();
                sealer.seal_padded(&mut record, stream.len()).unwrap();
            } else {
                record = [&[0; PREFIX], &stream[..], &[0; SUFFIX]].concat();
                sealer.seal_data(&mut record).unwrap();
            }
            self.wire.extend(record);
            self.stream.extend(stream);
        }
        let end = input.byte();
        if !end.is_multiple_of(4) {
            self.wire.extend(sealer.seal_end().unwrap());
            let done = sealer.seal_done().unwrap();
            if end.is_multiple_of(5) {
                self.wire.extend(done);
            } else {
                self.done = Some(done);
                self.is_clean = true;
            }
            self.end = Some(self.wire.len());
        }
        if end > 200 {
            self.wire.extend(sealer.seal_abort(AbortReason::LocalPeerReset).unwrap());
            (self.end, self.done, self.is_clean) = (None, None, false);
        }
    }

    /// Changes a bit of it, leaves out its end, or does neither.
    fn spoil(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let at = input.number() * 7;
        if !matches!(what, 1 | 2) || self.wire.is_empty() {
            return;
        }
        let at = at % self.wire.len();
        if what == 1 {
            self.wire[at] ^= 1 << (input.byte() % 8);
        } else {
            self.wire.truncate(at);
        }
        self.end = self.end.filter(|end| *end <= at);
        self.is_clean = false;
    }
}

/// How much comes at once; all of it, once the input is used up.
fn next_piece(input: &mut Input<'_>) -> usize {
    if input.is_over() { usize::MAX } else { input.length(RECORD_MAX) }
}

async fn finish(mut relay: Relay, role: Role) -> Result<(), RelayError> {
    let (_trigger, shutdown) = shutdown();
    let first = match role {
        Role::Encrypt => FirstRecord::Open(Extensions::default()),
        Role::Decrypt => FirstRecord::Opened,
    };
    relay.queue(first).unwrap();
    let result = relay.run(role, &Ending::by(&shutdown)).await;
    relay.close(result).await
}

/// What the relay has sent.
#[derive(Default)]
struct Said {
    stream: Vec<u8>,
    is_done: bool,
}

/// Reads whole records to the end; the last of them may be cut. Tells when END has come.
async fn hear(from: &UnixStream, mut opener: Opener, role: Role, end: oneshot::Sender<()>) -> Said {
    let (mut said, mut wire, mut end) = (Said::default(), vec![], Some(end));
    let mut is_aborted = false;
    while let Some(part) = read(from).await {
        wire.extend(part);
        while !is_aborted
            && let Some(length) = opener.record_length(&wire).unwrap()
            && length <= wire.len()
        {
            let behind = wire.split_off(length);
            let mut record = std::mem::replace(&mut wire, behind);
            match opener.open(&mut record).unwrap() {
                Record::Data(range) => said.stream.extend_from_slice(&record[range]),
                Record::Open(_) => assert_eq!(role, Role::Encrypt),
                Record::Opened(_) => assert_eq!(role, Role::Decrypt),
                Record::End => drop(end.take().unwrap().send(())),
                Record::Done => said.is_done = true,
                Record::Abort(_) => is_aborted = true,
                Record::Ready
                | Record::Carry(_)
                | Record::Carried(..)
                | Record::Frames(_)
                | Record::Join(_) => unreachable!("no relay says that"),
            }
        }
    }
    said
}

/// The control socket: a first line is read to its end, and not a byte more; then the
/// whole body, or none. What is understood is written in the same form.
pub fn control(data: &[u8]) {
    for verb in Verb::ALL {
        if let Some(answer) = Answer::parse(data, verb) {
            let (Answer::Ok(text) | Answer::Refused(text) | Answer::NotServed(text)) = &answer;
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            assert_eq!(Answer::parse(&answer.bytes(verb), verb), Some(answer));
        }
    }
    RUNTIME.with(|runtime| runtime.block_on(run_control(data)));
}

async fn run_control(data: &[u8]) {
    let (ours, theirs) = pair();
    let asked = async {
        let ours = ours;
        let request = server::read_request(&ours).await.ok()??.ok()?;
        let is_key = request.length <= KEY_FILE_MAX;
        let body = if is_key { server::read_body(&ours, request.length).await.ok() } else { None };
        Some((request, body))
    };
    let (asked, ()) = join!(asked, write_all(&theirs, data, || usize::MAX));
    // A first line is understood as it stands, with its end.
    let end = data.iter().take(LINE_MAX).position(|byte| *byte == b'\n');
    let (line, rest) = end.map_or((data, None), |end| (&data[..end], data.get(end + 1..)));
    let expected = rest.and_then(|_| Request::parse(line).ok());
    assert_eq!(asked.as_ref().map(|(request, _)| *request), expected);
    let Some((request, body)) = asked else { return };
    let again = request.line();
    assert_eq!(Request::parse(again.trim_end().as_bytes()), Ok(request));
    let expected = rest.and_then(|rest| rest.get(..request.length));
    assert_eq!(body.as_deref(), expected.filter(|body| body.len() <= KEY_FILE_MAX));
}

/// A stream of the relay's, and its other end.
fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let ours = Stream::accepted(ours.into(), Keepalive::Off).unwrap();
    (ours, UnixStream::from_std(theirs).unwrap())
}

async fn read_all(from: &UnixStream) -> Vec<u8> {
    let mut all = vec![];
    while let Some(part) = read(from).await {
        all.extend(part);
    }
    all
}

/// What comes next.
async fn read(from: &UnixStream) -> Option<Vec<u8>> {
    let mut some = vec![0; RECORD_MAX];
    loop {
        from.readable().await.unwrap();
        match from.try_read(&mut some) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Also where it is closed with something unread.
            Ok(0) | Err(_) => return None,
            Ok(count) => {
                some.truncate(count);
                return Some(some);
            }
        }
    }
}

/// Writes it in pieces, then ends the stream.
async fn write_all(to: &UnixStream, bytes: &[u8], piece: impl Fn() -> usize) {
    write(to, bytes, piece).await;
    end_stream(to);
}

/// Writes it in pieces, each seen before the next is there.
async fn write(to: &UnixStream, mut bytes: &[u8], piece: impl Fn() -> usize) {
    while !bytes.is_empty() {
        let mut part = &bytes[..piece().clamp(1, bytes.len())];
        bytes = &bytes[part.len()..];
        while !part.is_empty() {
            to.writable().await.unwrap();
            match to.try_write(part) {
                Ok(count) => part = &part[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It is read no more.
                Err(_) => return,
            }
        }
        yield_now().await;
    }
}

fn end_stream(to: &UnixStream) {
    // It may be closed already.
    let _ended = socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
}
