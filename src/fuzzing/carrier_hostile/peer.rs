//! A hostile peer: mostly frames that may come, else nearly those, else any bytes.

use super::model::Model;
use super::rules::CREDIT_MAX;
use crate::fuzzing::input::Input;
use crate::protocol::FRAMES_MAX;
use crate::protocol::carrier::{FRAME_HEADER, Side};

/// What a record holds.
pub(super) fn record(model: &Model, input: &mut Input<'_>) -> Vec<u8> {
    let what = input.byte();
    if what < 4 {
        return input.take(usize::from(what) * 16).to_vec();
    }
    let mut record = vec![];
    for _ in 0..=what % 3 {
        record.extend(frame(model, input));
    }
    record.truncate(FRAMES_MAX);
    match what {
        4..=11 => input.alter(&mut record),
        12..=15 => record.truncate(input.below(record.len() + 1)),
        16..=31 => record.resize((record.len() + input.below(40)).min(FRAMES_MAX), 0),
        _ => {}
    }
    record
}

fn frame(model: &Model, input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte() % 32;
    let kind = match kind {
        0..=10 => kind,
        11..=14 if model.side == Side::Responder => 1,
        11..=14 => 2,
        15..=20 => 3,
        21..=23 => 4,
        24 | 25 => 6,
        26..=28 => 7,
        _ => 9,
    };
    let number = match (kind, input.byte() % 32) {
        (8, 1..) | (_, 0) => 0,
        (1, 1..=29) => model.highest.saturating_add(1),
        (_, 1) => model.highest.saturating_add(input.byte().into()),
        (_, 2) => u32::from_be_bytes(input.take(4).try_into().unwrap_or_default()),
        (_, 3..=5) => u32::try_from(input.number()).unwrap() % model.highest.saturating_add(1),
        _ => some_stream(model, input),
    };
    let payload = payload(model, kind, number, input);
    let length = u16::try_from(payload.len()).unwrap();
    [&[kind][..], &number.to_be_bytes(), &length.to_be_bytes(), &payload].concat()
}

/// A stream that lives, if there is any.
pub(super) fn some_stream(model: &Model, input: &mut Input<'_>) -> u32 {
    let at = usize::from(input.byte()) % model.streams.len().max(1);
    model.streams.keys().nth(at).copied().unwrap_or(1)
}

/// Mostly one that a frame of this type can have, as long as credit lets it or a little longer.
fn payload(model: &Model, kind: u8, number: u32, input: &mut Input<'_>) -> Vec<u8> {
    let stream = model.streams.get(&number);
    let choice = input.byte();
    match (kind, choice) {
        (_, 0) => {
            let length = input.byte().into();
            input.take(length).to_vec()
        }
        // Extensions: none; one to be passed over; one that must be understood; no client.
        (1 | 2, 1..=199) => vec![],
        (1 | 2, _) => [&[100, 1, 7][..], &[200, 0], &[2, 0]][usize::from(choice % 3)].to_vec(),
        (3, _) => {
            let left = stream
                .map_or(0, |stream| stream.wrote.may_be_sent().saturating_sub(stream.came.bytes));
            let length = match choice {
                1..=99 => usize::try_from(left).unwrap() + usize::from(choice % 2),
                _ => input.any_length(FRAMES_MAX),
            };
            vec![choice; length.clamp(1, FRAMES_MAX - FRAME_HEADER)]
        }
        (5 | 8, _) => vec![choice % 12],
        (6, _) => {
            let unspent = stream
                .map_or(0, |stream| stream.came.may_be_sent().saturating_sub(stream.wrote.bytes));
            let more = match choice {
                1..=19 => (CREDIT_MAX + u64::from(choice % 2)).saturating_sub(unspent),
                _ => u64::try_from(input.any_length(100_000)).unwrap(),
            };
            u32::try_from(more).unwrap().to_be_bytes().to_vec()
        }
        _ => vec![],
    }
}
