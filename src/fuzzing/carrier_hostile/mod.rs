//! One end of a carrier whose other end says anything: right frames, nearly right ones, and
//! any bytes.
//!
//! The end's owner makes no mistake. What may come, and what it means, is told once more in
//! [`rules`] and [`model`]: the carrier tells exactly that, up to the first frame that may not
//! come, and has then failed for ever. What it writes is right and fits its record. Streams,
//! and what waits to be written, stay bounded.

mod model;
mod owner;
mod peer;
mod rules;

use self::model::Model;
use self::rules::Broken;
use super::input::Input;
use crate::protocol::carrier::{Carrier, Side, StreamId, Violation};

/// How often what happens after a failure is tried.
const AFTER_FAILURE: usize = 16;

/// Any bytes are any frames, among what any owner does.
pub fn carrier_hostile(data: &[u8]) {
    let mut input = Input::new(data);
    let side = if input.choice() { Side::Initiator } else { Side::Responder };
    let allowed = input.byte() % 6 + 1;
    let mut end = End {
        carrier: Carrier::new(side, allowed.into()),
        model: Model::new(side, allowed.into()),
        has_failed: false,
        patience: [0, 200, 240, 250][usize::from(input.byte() % 4)],
        stuck: [0, 100, 240, 250][usize::from(input.byte() % 4)],
    };
    let mut left = AFTER_FAILURE;
    while !input.is_over() && left > 0 {
        if input.choice() {
            end.receive(&mut input);
        } else {
            end.step(&mut input);
        }
        end.check();
        left -= usize::from(end.has_failed);
    }
    end.finish();
}

/// The end, and what must be known of it.
struct End {
    carrier: Carrier,
    model: Model,
    has_failed: bool,
    /// How often nothing can be written, of 256.
    stuck: u8,
    /// How often the owner gives no stream up where it could, of 256.
    patience: u8,
}

impl End {
    /// A record comes. If it breaks a rule, a copy of the carrier takes it, so that the run
    /// goes on; sometimes the carrier itself does, which has then failed.
    fn receive(&mut self, input: &mut Input<'_>) {
        let held = peer::record(&self.model, input);
        if self.has_failed {
            assert_eq!(self.carrier.receive(&held, &mut 0), Err(Violation::Failed));
            return;
        }
        let (mut carrier, mut model) = (self.carrier.clone(), self.model.clone());
        let (expected, result) = model.receive(&held);
        let mut at = 0;
        for event in expected {
            assert_eq!(carrier.receive(&held, &mut at), Ok(Some(event)));
        }
        match (carrier.receive(&held, &mut at), &result) {
            (Ok(None), Ok(())) => {}
            (Err(violation), Err(Broken)) => assert_ne!(violation, Violation::Failed),
            (told, expected) => panic!("{told:?} and not {expected:?} for {held:?}"),
        }
        if result.is_ok() || input.byte() == 0 {
            self.carrier = carrier;
            self.model = model;
            self.has_failed = result.is_err();
        }
    }

    /// The carrier knows what must be known, and no more waits than may.
    fn check(&self) {
        let Self { carrier, model, .. } = self;
        let (queued, most) = carrier.queued();
        assert!(queued <= most, "{queued} wait, {most} may");
        assert_eq!(carrier.streams(), model.streams.len());
        assert!(carrier.streams() <= model.allowed);
        for (number, stream) in &model.streams {
            let id = id(*number);
            assert_eq!(carrier.lives(id), !stream.said.abort);
            assert_eq!(u64::from(carrier.sendable(id)), stream.sendable(), "{stream:?}");
            let is_due = stream.said != stream.wrote || stream.is_credit_due();
            assert!(carrier.has_due() || !is_due, "{stream:?} waits for nothing");
        }
    }

    /// All that is said is written, as long as the carrier has not failed.
    fn finish(&mut self) {
        self.stuck = 0;
        while self.carrier.has_due() {
            self.write(0, &mut Input::new(&[]));
        }
        self.check();
    }
}

fn id(number: u32) -> StreamId {
    StreamId::from_number(number).unwrap()
}
