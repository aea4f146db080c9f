//! The opener: records that are genuine, altered, reordered, or of a peer that holds
//! the key and breaks the rules.

use super::input::{Input, Seeded};
use crate::protocol::carrier::CarrierSecret;
use crate::protocol::testing::{To, one_direction};
use crate::protocol::{
    AbortReason, Client, Extensions, FIRST_RECORD_MAX, FRAMES_MAX, HEADER, Join, OVERHEAD,
    OpenError, Opener, PADDED_COUNT, PREFIX, RECORD_MAX, Record, SUFFIX, Sealer, Suite,
};

/// How many records there are at most.
const RECORDS: usize = 40;

/// Any records come in any order. Only the next genuine one is opened, and only where
/// `man/spiped-protocol.7` lets it stand; whatever else comes is the last.
pub fn opener(data: &[u8]) {
    let mut input = Input::new(data);
    let suite = Suite::ALL[input.below(4)];
    let to = if input.choice() { To::Responder } else { To::Initiator };
    let rekey_interval = u64::from(input.byte() % 8 + 1);
    let (sealer, opener) = one_direction(suite, Seeded::new(data).array(), to, rekey_interval);
    let phase = if to == To::Responder { Phase::First } else { Phase::Opening };
    let mut both = Both { sealer, opener, sealed: vec![], opened: 0, phase };
    while !input.is_over() && both.sealed.len() < RECORDS {
        let said = both.say(&mut input);
        both.sealed.push(said);
        let mut record = both.next(&mut input);
        both.come(&mut record);
    }
}

/// A record on the wire, and what was sealed into it.
struct Sealed {
    record: Vec<u8>,
    plaintext: Vec<u8>,
}

/// Both ends of a direction, and what should be known of them.
struct Both {
    sealer: Sealer,
    opener: Opener,
    sealed: Vec<Sealed>,
    /// How many were opened.
    opened: usize,
    phase: Phase,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// At the responder.
    First,
    /// After an empty PADDED.
    Ready,
    /// At the initiator.
    Opening,
    Streaming,
    Ended,
    /// FRAMES.
    Carrying,
    /// Nothing: DONE has come.
    Done,
    /// Nothing, and nothing is decrypted.
    Over,
}

impl Both {
    /// Seals what the input says.
    fn say(&mut self, input: &mut Input<'_>) -> Sealed {
        let sealer = &mut self.sealer;
        let (record, plaintext) = match input.byte() % 13 {
            0 => open(sealer, input),
            1 => (sealer.seal_opened().unwrap(), vec![2]),
            2 => data(sealer, input),
            3 => (sealer.seal_end().unwrap().to_vec(), vec![4]),
            4 => {
                let reason = input.byte();
                let record = sealer.seal_abort(AbortReason::from_byte(reason)).unwrap();
                (record.to_vec(), vec![5, reason])
            }
            5 => padded(sealer, input),
            6 => (sealer.seal_ready().unwrap().to_vec(), vec![6, 0, 0]),
            7 => (sealer.seal_done().unwrap().to_vec(), vec![11]),
            8 => (sealer.seal_carry().unwrap(), vec![7]),
            9 => carried(sealer, input),
            10 => frames(sealer, input),
            11 => join(sealer, input),
            _ => {
                let length = usize::from(input.byte() % 32);
                let plaintext = input.take(length).to_vec();
                (sealer.seal_raw(&plaintext), plaintext)
            }
        };
        Sealed { record, plaintext }
    }

    /// What comes: mostly the next genuine record.
    fn next(&self, input: &mut Input<'_>) -> Vec<u8> {
        let genuine = &self.sealed[self.opened.min(self.sealed.len() - 1)].record;
        let mut record = genuine.clone();
        match input.byte() {
            0 => input.alter(&mut record),
            1 => record.truncate(input.below(record.len() + 1)),
            2 => record.push(input.byte()),
            3 => record.clone_from(&self.sealed[input.below(self.sealed.len())].record),
            4 => record = input.take(64).to_vec(),
            _ => {}
        }
        record
    }

    /// A record comes.
    fn come(&mut self, record: &mut [u8]) {
        let expected = self.expected(record);
        let before = record.to_vec();
        let length = self.opener.record_length(record);
        let said = length.and_then(|_| self.opener.open(record));
        assert_eq!(said, expected);
        match said {
            Ok(said) => {
                assert_eq!(length, Ok(Some(record.len())));
                let plaintext = &self.sealed[self.opened].plaintext;
                if let Record::Data(range) = said {
                    assert_eq!(
                        record[range.clone()],
                        plaintext[range.start - HEADER..][..range.len()]
                    );
                } else if let Record::Abort(_) = said {
                    self.phase = Phase::Over;
                }
                self.opened += 1;
            }
            Err(_) => self.phase = Phase::Over,
        }
        if self.phase == Phase::Over {
            let mut again = before;
            assert_eq!(self.opener.record_length(&again), Err(OpenError::Failed));
            assert_eq!(self.opener.open(&mut again), Err(OpenError::Failed));
        }
    }

    /// What should be said of it.
    fn expected(&mut self, record: &[u8]) -> Result<Record, OpenError> {
        let max = match self.phase {
            Phase::Over => return Err(OpenError::Failed),
            Phase::First | Phase::Ready | Phase::Opening => FIRST_RECORD_MAX,
            Phase::Carrying => OVERHEAD + FRAMES_MAX,
            Phase::Streaming => RECORD_MAX,
            Phase::Ended | Phase::Done => OVERHEAD + 1,
        };
        let [high, low, ..] = *record else { return Err(OpenError::Length) };
        let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
        if length != record.len() || !(OVERHEAD..=max).contains(&length) {
            return Err(OpenError::Length);
        }
        let Some(sealed) = self.sealed.get(self.opened).filter(|next| next.record == record) else {
            return Err(OpenError::AuthenticationFailed);
        };
        let (said, phase) = self.phase.allows(&sealed.plaintext)?;
        self.phase = phase;
        Ok(said)
    }
}

impl Phase {
    /// What a plaintext says here, and what may come after it.
    fn allows(self, plaintext: &[u8]) -> Result<(Record, Self), OpenError> {
        let at = |start: usize, length: usize| Record::Data(start..start + length);
        Ok(match (self, plaintext) {
            (Self::Done, _) => return Err(OpenError::Violation),
            (_, [5, reason]) => (Record::Abort(AbortReason::from_byte(*reason)), Self::Over),
            (Self::First, [6, 0, 0]) => (Record::Ready, Self::Ready),
            (Self::First | Self::Ready, [1, rest @ ..]) => {
                (Record::Open(extensions(rest)?), Self::Streaming)
            }
            (Self::Opening, [2, rest @ ..]) => (Record::Opened(extensions(rest)?), Self::Streaming),
            (Self::First | Self::Ready, [7, rest @ ..]) => {
                (Record::Carry(extensions(rest)?), Self::Carrying)
            }
            (Self::Carrying, [9, frames @ ..]) => {
                (Record::Frames(PREFIX..PREFIX + frames.len()), Self::Carrying)
            }
            (Self::First | Self::Ready, [10, rest @ ..]) => {
                (Record::Join(join_of(rest)?), Self::Streaming)
            }
            (Self::First | Self::Ready, [0 | 12.., ..]) => return Err(OpenError::NotUnderstood),
            (Self::Streaming, [3, stream @ ..]) if !stream.is_empty() => {
                (at(PREFIX, stream.len()), Self::Streaming)
            }
            (Self::Streaming, [6, high, low, rest @ ..]) => {
                let count = usize::from(u16::from_be_bytes([*high, *low]));
                let zeros = rest.get(count..).ok_or(OpenError::Violation)?;
                if count == 0 || zeros.iter().any(|byte| *byte != 0) {
                    return Err(OpenError::Violation);
                }
                (at(PREFIX + PADDED_COUNT, count), Self::Streaming)
            }
            (Self::Streaming, [4]) => (Record::End, Self::Ended),
            (Self::Ended, [11]) => (Record::Done, Self::Done),
            _ => return Err(OpenError::Violation),
        })
    }
}

/// What the body of JOIN says (rule C10).
fn join_of(body: &[u8]) -> Result<Join, OpenError> {
    let body = <[u8; 28]>::try_from(body).map_err(|_| OpenError::Violation)?;
    Join::parse(&body).ok_or(OpenError::Violation)
}

/// What extensions say (rules X1 to X3).
fn extensions(mut bytes: &[u8]) -> Result<Extensions, OpenError> {
    if bytes.len() > 255 {
        return Err(OpenError::Violation);
    }
    let (mut extensions, mut types) = (Extensions::default(), vec![]);
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length)).ok_or(OpenError::Violation)?;
        if *kind == 1 {
            extensions.client = Some(match value {
                [0] => Client::Unix,
                [4, a, b, c, d, high, low] => {
                    let port = u16::from_be_bytes([*high, *low]);
                    Client::Ip(([*a, *b, *c, *d], port).into())
                }
                [6, address @ .., high, low] => {
                    let address =
                        <[u8; 16]>::try_from(address).map_err(|_| OpenError::Violation)?;
                    Client::Ip((address, u16::from_be_bytes([*high, *low])).into())
                }
                _ => return Err(OpenError::Violation),
            });
        }
        if *kind == 2 {
            if !value.is_empty() {
                return Err(OpenError::Violation);
            }
            extensions.client = Some(Client::Nobody);
        }
        types.push(*kind);
        bytes = &rest[value.len()..];
    }
    match types.last() {
        _ if !bytes.is_empty() || !types.is_sorted_by(|a, b| a < b) => Err(OpenError::Violation),
        Some(128..) => Err(OpenError::NotUnderstood),
        _ => Ok(extensions),
    }
}

fn open(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let bytes = input.stream(19);
    let ip: [u8; 16] = bytes[..16].try_into().unwrap();
    let (client, extension) = match input.byte() % 4 {
        0 => (None, vec![]),
        1 => (Some(Client::Unix), vec![1, 1, 0]),
        2 => (Some(Client::Nobody), vec![2, 0]),
        _ => {
            let port = u16::from_be_bytes([bytes[16], bytes[17]]);
            (Some(Client::Ip((ip, port).into())), [&[1, 19, 6], &bytes[..18]].concat())
        }
    };
    let record = sealer.seal_open(Extensions { client }).unwrap();
    (record, [&[1], &extension[..]].concat())
}

fn data(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let length = input.length(RECORD_MAX - OVERHEAD).max(1);
    let stream = input.stream(length);
    let mut record = [&[0; PREFIX], &stream[..], &[0; SUFFIX]].concat();
    sealer.seal_data(&mut record).unwrap();
    (record, [&[3], &stream[..]].concat())
}

fn carried(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let secret: [u8; 32] = input.stream(32).try_into().unwrap();
    let streams = u32::from(input.byte());
    let record = sealer.seal_carried(streams, &CarrierSecret::new(&secret)).unwrap();
    (record.to_vec(), [&[8], &streams.to_be_bytes()[..], &secret].concat())
}

fn frames(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let length = input.length(FRAMES_MAX);
    let frames = input.stream(length);
    let mut record = [&[0; PREFIX], &frames[..], &[0; SUFFIX]].concat();
    sealer.seal_frames(&mut record).unwrap();
    (record, [&[9], &frames[..]].concat())
}

fn join(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let body: [u8; 28] = input.stream(28).try_into().unwrap();
    match Join::parse(&body) {
        Some(join) => (sealer.seal_join(&join).unwrap().to_vec(), [&[10], &body[..]].concat()),
        None => (sealer.seal_raw(&[10]), vec![10]),
    }
}

fn padded(sealer: &mut Sealer, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
    const MAX: usize = RECORD_MAX - OVERHEAD - PADDED_COUNT;
    let length = input.length(MAX);
    let zeros = input.length(MAX - length);
    let stream = input.stream(length);
    let count = u16::try_from(length).unwrap().to_be_bytes();
    // What is behind the stream is not sent.
    let mut record =
        [&[0; PREFIX + PADDED_COUNT], &stream[..], &vec![9; zeros], &[0; SUFFIX]].concat();
    sealer.seal_padded(&mut record, length).unwrap();
    (record, [&[6], &count[..], &stream, &vec![0; zeros]].concat())
}
