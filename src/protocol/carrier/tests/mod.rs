//! Tests of carriers: both ends against each other, and an end against what no true one sends.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail that way"
)]

mod rules;
mod simulation;
mod vectors;

use std::convert::Infallible;

use super::frame::{FrameType, header};
use super::*;
use crate::protocol::record::{FRAMES_MAX, PREFIX, SUFFIX};

/// A record's bytes, with room for so many bytes of frames.
fn record(frames: usize) -> Vec<u8> {
    vec![0xee; PREFIX + frames + SUFFIX]
}

/// What is due at an end, as a record holds it.
fn due(carrier: &mut Carrier) -> Vec<u8> {
    let mut record = record(FRAMES_MAX);
    let mut batch = Batch::new(&mut record, 0);
    assert!(carrier.write_due(&mut batch), "a record has room for so few frames");
    let length = batch.filled();
    record[PREFIX..PREFIX + length].to_vec()
}

/// DATA of a stream, behind what else is due of it, as a record holds it.
fn data(carrier: &mut Carrier, id: StreamId, data: &[u8]) -> Vec<u8> {
    let mut record = record(FRAMES_MAX);
    let mut batch = Batch::new(&mut record, 0);
    let read = |place: &mut [u8]| {
        let count = place.len().min(data.len());
        place[..count].copy_from_slice(&data[..count]);
        Ok::<_, Infallible>(count)
    };
    let sent = carrier.data(id, usize::MAX, &mut batch, read);
    assert_eq!(sent, Ok(Sent::Bytes(data.len())));
    let length = batch.filled();
    record[PREFIX..PREFIX + length].to_vec()
}

/// All events of what a record held.
fn events(carrier: &mut Carrier, held: &[u8]) -> Result<Vec<Event>, Violation> {
    let mut at = 0;
    let mut events = Vec::new();
    while let Some(event) = carrier.receive(held, &mut at)? {
        events.push(event);
    }
    Ok(events)
}

/// A frame of any kind, number and payload.
fn frame(kind: FrameType, number: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&header(kind, StreamId::new(number), length)[..], payload].concat()
}

fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}
