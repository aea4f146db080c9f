//! The rules, each with what breaks it.

use super::*;
use crate::protocol::extensions::Client;
use crate::protocol::ids::HandshakeHash;

/// Both ends of a carrier of at most `allowed` streams.
fn ends(allowed: u32) -> (Carrier, Carrier) {
    (Carrier::new(Side::Initiator, allowed), Carrier::new(Side::Responder, allowed))
}

/// Both ends with stream 1, which the target has accepted.
fn opened() -> (Carrier, Carrier) {
    let (mut i, mut r) = ends(4);
    let first = i.open(Extensions::default()).unwrap();
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(1)]));
    r.opened(first);
    assert_eq!(events(&mut i, &due(&mut r)), Ok(vec![Event::Opened(first, NONE)]));
    (i, r)
}

/// Both ends with stream 1, for which the responder has accepted a session: its MOVED is
/// written, and has not come.
fn joined() -> (Carrier, Carrier, Vec<u8>) {
    let (mut i, mut r) = opened();
    i.join(id(1));
    assert!(r.accept_join(id(1)));
    let moved = due(&mut r);
    (i, r, moved)
}

const NONE: Result<Extensions, NotUnderstood> = Ok(Extensions { client: None });

fn open(number: u32) -> Event {
    Event::Open(id(number), NONE)
}

/// What no true responder sends at this moment.
#[track_caller]
fn initiator_refuses(mut i: Carrier, held: &[u8], violation: Violation) {
    refuses(&mut i, held, violation);
}

/// What no true initiator sends at this moment.
#[track_caller]
fn refuses(end: &mut Carrier, held: &[u8], violation: Violation) {
    assert_eq!(events(end, held), Err(violation), "{held:?}");
    // It has failed for ever.
    assert_eq!(events(end, &[]), Err(Violation::Failed));
    if end.side == Side::Initiator {
        assert_eq!(end.open(Extensions::default()), Err(NoStream::Over));
    }
}

#[test]
fn c3_the_numbers_of_an_initiator_ascend_from_1_and_never_repeat() {
    let (mut i, mut r) = ends(3);
    let numbers: Vec<_> = (0..3).map(|_| i.open(Extensions::default()).unwrap().number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(i.open(Extensions::default()), Err(NoStream::Full));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(1), open(2), open(3)]));
    // One that was never opened at the other end leaves its number behind.
    assert!(i.abort(id(2), AbortReason::LocalPeerReset));
    let aborted = Event::Abort(id(2), AbortReason::LocalPeerReset);
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![aborted]));
    let fourth = i.open(Extensions::default()).unwrap();
    assert!(!i.abort(fourth, AbortReason::LocalPeerReset));
    assert_eq!(i.open(Extensions::default()), Ok(id(5)));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(5)]));
}

#[test]
fn c3_the_last_number_ends_a_carrier_for_new_streams() {
    let (mut i, _) = ends(4);
    i.highest = Some(id(u32::MAX - 1));
    assert_eq!(i.open(Extensions::default()), Ok(id(u32::MAX)));
    assert_eq!(i.open(Extensions::default()), Err(NoStream::Over));
}

#[test]
fn c3_a_responder_refuses_numbers_that_do_not_ascend_and_streams_beyond_those_allowed() {
    for (numbers, violation) in [
        (&[1, 1][..], Violation::Order),
        (&[5, 4], Violation::Order),
        (&[1, 2, 3], Violation::TooMany),
    ] {
        let (_, mut r) = ends(2);
        let held = numbers.iter().flat_map(|number| frame(FrameType::Open, *number, &[]));
        refuses(&mut r, &held.collect::<Vec<_>>(), violation);
    }
}

#[test]
fn c4_data_and_end_may_follow_open_at_once() {
    let (mut i, mut r) = ends(4);
    let first = i.open(Extensions { client: Some(Client::Unix) }).unwrap();
    let mut held = data(&mut i, first, b"GET");
    i.end(first);
    held.extend(due(&mut i));
    let extensions = Ok(Extensions { client: Some(Client::Unix) });
    let start = 2 * FRAME_HEADER + 3;
    assert_eq!(
        events(&mut r, &held),
        Ok(vec![
            Event::Open(first, extensions),
            Event::Data(first, start..start + 3),
            Event::End(first)
        ])
    );
    assert_eq!(&held[start..start + 3], b"GET");
}

#[test]
fn c4_a_responder_says_opened_or_abort_first() {
    for held in [
        frame(FrameType::Data, 1, b"x"),
        frame(FrameType::End, 1, &[]),
        frame(FrameType::Done, 1, &[]),
        frame(FrameType::Credit, 1, &[0, 0, 0, 1]),
        frame(FrameType::Moved, 1, &[]),
    ] {
        let (mut i, _) = ends(4);
        let _first = i.open(Extensions::default()).unwrap();
        let _open = due(&mut i);
        initiator_refuses(i, &held, Violation::NotOpened);
    }
    let (mut i, _) = ends(4);
    let first = i.open(Extensions::default()).unwrap();
    let _open = due(&mut i);
    let refused = Event::Abort(first, AbortReason::ConnectionLimit);
    assert_eq!(events(&mut i, &frame(FrameType::Abort, 1, &[4])), Ok(vec![refused]));
    assert_eq!(i.streams(), 0);
}

#[test]
fn c5_a_stream_is_over_once_done_went_both_ways() {
    let (mut i, mut r) = opened();
    i.end(id(1));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![Event::End(id(1))]));
    r.end(id(1));
    r.done(id(1));
    assert_eq!(r.streams(), 1, "DONE is not written");
    let held = due(&mut r);
    assert_eq!(r.streams(), 1, "the other DONE has not come");
    assert_eq!(events(&mut i, &held), Ok(vec![Event::End(id(1)), Event::Done(id(1))]));
    i.done(id(1));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![Event::Done(id(1))]));
    assert_eq!((i.streams(), r.streams()), (0, 0));
}

#[test]
fn c5_a_stream_is_over_once_abort_was_sent_or_has_come() {
    let (mut i, mut r) = opened();
    let _unsent = data(&mut i, id(1), b"lost");
    assert!(i.abort(id(1), AbortReason::LocalPeerReset));
    assert!(!i.lives(id(1)) && i.streams() == 1, "ABORT is not written");
    assert!(!i.abort(id(1), AbortReason::ShuttingDown), "it was said before");
    let held = due(&mut i);
    assert_eq!(i.streams(), 0);
    let event = Event::Abort(id(1), AbortReason::LocalPeerReset);
    assert_eq!(events(&mut r, &held), Ok(vec![event]));
    assert_eq!((r.streams(), r.has_due()), (0, false));
}

#[test]
fn c6_frames_of_a_stream_that_is_over_are_ignored_and_others_are_violations() {
    let on_their_way = |number| {
        [
            frame(FrameType::Data, number, b"late"),
            frame(FrameType::Credit, number, &[0, 0, 0, 9]),
            frame(FrameType::Moved, number, &[]),
            frame(FrameType::End, number, &[]),
            frame(FrameType::Done, number, &[]),
            frame(FrameType::Abort, number, &[5]),
        ]
    };
    let (mut i, mut r) = opened();
    assert!(i.abort(id(1), AbortReason::LocalPeerReset));
    // Before and after ABORT is written.
    assert_eq!(events(&mut i, &on_their_way(1).concat()), Ok(vec![]));
    assert_eq!(i.streams(), 0, "ABORT both ways: nothing is left to be said");
    assert_eq!(events(&mut i, &on_their_way(1).concat()), Ok(vec![]));
    assert_eq!(events(&mut r, &on_their_way(1)[5]).map(|events| events.len()), Ok(1));
    assert_eq!(events(&mut r, &on_their_way(1).concat()), Ok(vec![]));
    for held in on_their_way(2) {
        let (mut i, mut r) = opened();
        refuses(&mut i, &held, Violation::NeverOpened);
        refuses(&mut r, &held, Violation::NeverOpened);
    }
    // Nor can anybody know of a stream whose OPEN is not written.
    let (mut i, _) = ends(4);
    let _first = i.open(Extensions::default()).unwrap();
    initiator_refuses(i, &frame(FrameType::Opened, 1, &[]), Violation::NeverOpened);
}

#[test]
fn c7_what_may_not_come_on_a_living_stream_ends_the_carrier() {
    let end = || frame(FrameType::End, 1, &[]);
    let data = || frame(FrameType::Data, 1, b"x");
    let credit = |bytes: u32| frame(FrameType::Credit, 1, &bytes.to_be_bytes());
    let both: [(Vec<u8>, Violation); 6] = [
        ([end(), end()].concat(), Violation::AfterEnd),
        ([end(), data()].concat(), Violation::AfterEnd),
        (frame(FrameType::Done, 1, &[]), Violation::AfterEnd),
        ([end(), frame(FrameType::Done, 1, &[])].concat(), Violation::Unfounded),
        (credit(i32::MAX.unsigned_abs()), Violation::TooMuchCredit),
        (frame(FrameType::Moved, 1, &[]), Violation::NotAsked),
    ];
    for (held, violation) in both {
        let (mut i, mut r) = opened();
        refuses(&mut i, &held, violation);
        refuses(&mut r, &held, violation);
    }
    let (mut i, mut r) = opened();
    refuses(&mut i, &frame(FrameType::Opened, 1, &[]), Violation::AfterEnd);
    refuses(&mut r, &frame(FrameType::Opened, 1, &[]), Violation::WrongEnd);
    let (mut i, mut r) = opened();
    refuses(&mut i, &frame(FrameType::Open, 9, &[]), Violation::WrongEnd);
    refuses(&mut r, &frame(FrameType::GoAway, 0, &[6]), Violation::WrongEnd);
}

#[test]
fn c7_credit_may_come_up_to_its_limit() {
    let (mut i, _) = opened();
    let most = i32::MAX.unsigned_abs();
    let credit = frame(FrameType::Credit, 1, &(most - FIRST_CREDIT).to_be_bytes());
    assert_eq!(events(&mut i, &credit), Ok(vec![Event::Credit(id(1))]));
    assert_eq!(i.sendable(id(1)), most);
    initiator_refuses(i, &frame(FrameType::Credit, 1, &[0, 0, 0, 1]), Violation::TooMuchCredit);
}

#[test]
fn c7_a_frame_has_a_known_type_a_possible_length_and_a_stream() {
    let mut unknown = frame(FrameType::End, 1, &[]);
    for kind in 10..=255 {
        unknown[0] = kind;
        let (mut i, mut r) = opened();
        refuses(&mut i, &unknown, Violation::Type);
        refuses(&mut r, &unknown, Violation::Type);
    }
    let whole = frame(FrameType::Data, 1, b"xy");
    for cut in 1..whole.len() {
        let (mut i, _) = opened();
        refuses(&mut i, &whole[..cut], Violation::Length);
    }
    let wrong = [
        (frame(FrameType::Data, 1, &[]), Violation::Length),
        (frame(FrameType::End, 1, &[0]), Violation::Length),
        (frame(FrameType::Done, 1, &[0]), Violation::Length),
        (frame(FrameType::Moved, 1, &[0]), Violation::Length),
        (frame(FrameType::Abort, 1, &[]), Violation::Length),
        (frame(FrameType::Abort, 1, &[1, 2]), Violation::Length),
        (frame(FrameType::Credit, 1, &[0; 3]), Violation::Length),
        (frame(FrameType::Credit, 1, &[0; 5]), Violation::Length),
        (frame(FrameType::Credit, 1, &[0; 4]), Violation::NoCredit),
        (frame(FrameType::GoAway, 0, &[]), Violation::Length),
        (frame(FrameType::GoAway, 1, &[6]), Violation::Number),
        (frame(FrameType::Data, 0, b"x"), Violation::Number),
        (frame(FrameType::Opened, 1, &[1]), Violation::Extensions),
        (vec![0, 0, 1], Violation::Padding),
    ];
    for (held, violation) in wrong {
        let (mut i, _) = opened();
        refuses(&mut i, &held, violation);
    }
}

#[test]
fn c7_padding_is_zeros_to_the_records_end() {
    let (mut i, _) = opened();
    let held = [&frame(FrameType::Data, 1, b"x")[..], &[0; 40]].concat();
    let range = FRAME_HEADER..FRAME_HEADER + 1;
    assert_eq!(events(&mut i, &held), Ok(vec![Event::Data(id(1), range)]));
    assert_eq!(events(&mut i, &[0]), Ok(vec![]));
    assert_eq!(events(&mut i, &[]), Ok(vec![]), "a sign of life (C17)");
}

#[test]
fn c8_no_more_is_sent_than_there_is_credit_for_and_no_more_is_taken() {
    let (mut i, mut r) = opened();
    let chunk = [7; 16_384 - FRAME_HEADER];
    let mut sent = 0;
    while sent < FIRST_CREDIT {
        let left = usize::try_from(FIRST_CREDIT - sent).unwrap();
        let held = data(&mut i, id(1), &chunk[..left.min(chunk.len())]);
        assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1));
        sent += u32::try_from(held.len() - FRAME_HEADER).unwrap();
    }
    assert_eq!(i.sendable(id(1)), 0);
    let mut full = record(100);
    let read = |_place: &mut [u8]| -> Result<usize, Infallible> { panic!("there is no credit") };
    assert_eq!(i.data(id(1), 1, &mut Batch::new(&mut full, 0), read), Ok(Sent::NoCredit));

    // CREDIT for what the local socket takes: once for half of the first credit.
    r.taken(id(1), FIRST_CREDIT / 2 - 1);
    assert!(!r.has_due());
    r.taken(id(1), 1);
    let held = due(&mut r);
    assert_eq!(held, frame(FrameType::Credit, 1, &(FIRST_CREDIT / 2).to_be_bytes()));
    assert_eq!(events(&mut i, &held), Ok(vec![Event::Credit(id(1))]));
    assert_eq!(i.sendable(id(1)), FIRST_CREDIT / 2);

    for number in 0..2 {
        let held = data(&mut i, id(1), &chunk);
        assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1), "{number}");
    }
    refuses(&mut r, &frame(FrameType::Data, 1, &[0; 15]), Violation::BeyondCredit);
}

#[test]
fn c8_no_credit_is_owed_after_the_end_and_one_that_comes_is_ignored() {
    let (mut i, mut r) = opened();
    for _ in 0..3 {
        let held = data(&mut i, id(1), &[7; 16_000]);
        assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1));
    }
    i.end(id(1));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![Event::End(id(1))]));
    r.taken(id(1), 48_000);
    assert_eq!(due(&mut r), b"");
    let credit = frame(FrameType::Credit, 1, &i32::MAX.unsigned_abs().to_be_bytes());
    assert_eq!(events(&mut i, &credit), Ok(vec![]));
}

#[test]
fn c9_only_an_initiator_moves_a_stream_and_only_once_after_opened() {
    let (mut i, _) = ends(4);
    let first = i.open(Extensions::default()).unwrap();
    assert!(!i.may_join(first));
    let (mut i, mut r) = opened();
    assert!(i.may_join(id(1)));
    i.join(id(1));
    assert!(!i.may_join(id(1)));
    i.join_lost(id(1));
    assert!(!i.may_join(id(1)), "a refused one stays");
    let held = data(&mut i, id(1), b"unharmed");
    assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1));
}

#[test]
fn c10_a_session_is_accepted_only_for_a_living_opened_stream_without_one() {
    let (mut i, mut r) = ends(4);
    assert!(!r.accept_join(id(1)), "never opened");
    let first = i.open(Extensions::default()).unwrap();
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(1)]));
    assert!(!r.accept_join(first), "not OPENED");
    r.opened(first);
    assert!(r.accept_join(first));
    assert!(!r.accept_join(first), "twice");
    let (_, mut r) = opened();
    assert!(r.abort(id(1), AbortReason::LocalPeerReset));
    assert!(!r.accept_join(id(1)), "aborted");
}

#[test]
fn c10_a_proof_is_of_one_secret_one_session_and_one_stream() {
    let secret = CarrierSecret::new(&[1; 32]);
    let hash = HandshakeHash::new([2; 32]);
    let proof = secret.proof(&hash, id(3));
    assert_eq!(proof, CarrierSecret::new(&[1; 32]).proof(&hash, id(3)));
    assert_ne!(proof, CarrierSecret::new(&[9; 32]).proof(&hash, id(3)));
    assert_ne!(proof, secret.proof(&HandshakeHash::new([9; 32]), id(3)));
    assert_ne!(proof, secret.proof(&hash, id(4)));
    assert_eq!(format!("{secret:?} {proof:?}"), "CarrierSecret(_) JoinProof(_)");
}

#[test]
fn c11_after_moved_both_sides_speak_in_the_session() {
    let (mut i, mut r, moved) = joined();
    assert_eq!(moved, frame(FrameType::Moved, 1, &[]));
    assert_eq!(r.sendable(id(1)), 0);
    // What the initiator has sent before is on its way.
    let held = data(&mut i, id(1), b"before");
    assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1));
    assert_eq!(events(&mut i, &moved), Ok(vec![Event::Moved(id(1))]));
    assert_eq!(i.sendable(id(1)), 0);
    let answer = due(&mut i);
    assert_eq!(answer, moved);
    assert_eq!(i.streams(), 0, "C15: an initiator's stream has left with its MOVED");
    assert_eq!(events(&mut r, &answer), Ok(vec![Event::Moved(id(1))]));
    assert_eq!(r.streams(), 0, "C15: a responder's when MOVED comes");
}

#[test]
fn c11_moved_may_follow_end_and_no_credit_follows_it() {
    let (mut i, mut r) = opened();
    for _ in 0..3 {
        let held = data(&mut i, id(1), &[7; 16_000]);
        assert_eq!(events(&mut r, &held).map(|events| events.len()), Ok(1));
    }
    r.end(id(1));
    i.join(id(1));
    assert!(r.accept_join(id(1)));
    r.taken(id(1), 48_000);
    let held = due(&mut r);
    let end_and_moved = [frame(FrameType::End, 1, &[]), frame(FrameType::Moved, 1, &[])].concat();
    assert_eq!(held, end_and_moved);
    assert_eq!(events(&mut i, &held), Ok(vec![Event::End(id(1)), Event::Moved(id(1))]));
}

#[test]
fn c11_nothing_follows_moved_on_the_carrier() {
    for late in [
        frame(FrameType::Data, 1, b"x"),
        frame(FrameType::End, 1, &[]),
        frame(FrameType::Moved, 1, &[]),
    ] {
        let (i, _, moved) = joined();
        initiator_refuses(i, &[moved, late].concat(), Violation::AfterEnd);
    }
}

#[test]
fn c14_moved_for_a_session_that_has_failed_is_answered_by_abort() {
    let (mut i, mut r, moved) = joined();
    i.join_lost(id(1));
    assert_eq!(events(&mut i, &moved), Ok(vec![Event::JoinLost(id(1))]));
    let held = due(&mut i);
    assert_eq!(held, frame(FrameType::Abort, 1, &[0]));
    let event = Event::Abort(id(1), AbortReason::Other(0));
    assert_eq!(events(&mut r, &held), Ok(vec![event]));
    assert_eq!((i.streams(), r.streams()), (0, 0));
}

#[test]
fn c14_moved_for_a_session_that_has_failed_is_answered_by_moved_after_done() {
    let (mut i, mut r) = opened();
    i.join(id(1));
    r.end(id(1));
    assert_eq!(events(&mut i, &due(&mut r)), Ok(vec![Event::End(id(1))]));
    i.end(id(1));
    i.done(id(1));
    let mut held = due(&mut i);
    i.join_lost(id(1));
    assert!(r.accept_join(id(1)));
    assert_eq!(events(&mut i, &due(&mut r)), Ok(vec![Event::JoinLost(id(1))]));
    held.extend(due(&mut i));
    assert_eq!(
        events(&mut r, &held),
        Ok(vec![Event::End(id(1)), Event::Done(id(1)), Event::Moved(id(1))])
    );
    assert_eq!((i.streams(), r.streams()), (0, 0));
}

#[test]
fn c14_moved_is_a_violation_where_nobody_asked() {
    let moved = frame(FrameType::Moved, 1, &[]);
    let (mut i, mut r) = opened();
    refuses(&mut i, &moved, Violation::NotAsked);
    refuses(&mut r, &moved, Violation::NotAsked);
    // A responder whose MOVED is said and not written.
    let (mut i, mut r) = opened();
    i.join(id(1));
    assert!(r.accept_join(id(1)));
    refuses(&mut r, &moved, Violation::NotAsked);
}

#[test]
fn c16_abort_is_said_on_the_carrier_before_moved_and_in_the_session_after_it() {
    let (mut i, mut r) = opened();
    i.join(id(1));
    assert!(r.accept_join(id(1)));
    assert!(r.abort(id(1), AbortReason::LocalPeerReset), "MOVED is not written");
    assert_eq!(due(&mut r), frame(FrameType::Abort, 1, &[5]));

    let (mut i, mut r, moved) = joined();
    assert!(!r.abort(id(1), AbortReason::LocalPeerReset), "MOVED is written");
    assert_eq!(due(&mut r), b"");
    assert_eq!(events(&mut i, &moved), Ok(vec![Event::Moved(id(1))]));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![]), "the stream is over");
    assert!(!i.abort(id(1), AbortReason::LocalPeerReset), "it has left");
}

#[test]
fn c19_after_goaway_an_initiator_opens_no_more_and_what_is_on_its_way_is_accepted() {
    let (mut i, mut r) = opened();
    r.go_away(AbortReason::ShuttingDown);
    let second = i.open(Extensions::default()).unwrap();
    let held = due(&mut r);
    assert_eq!(held, frame(FrameType::GoAway, 0, &[6]));
    assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(2)]));
    assert_eq!(events(&mut i, &held), Ok(vec![Event::GoAway(AbortReason::ShuttingDown)]));
    assert_eq!(i.open(Extensions::default()), Err(NoStream::Over));
    r.opened(second);
    assert_eq!(events(&mut i, &due(&mut r)).map(|events| events.len()), Ok(1));
    initiator_refuses(i, &held, Violation::AfterEnd);
}

#[test]
fn d1_all_that_is_due_gets_through_records_with_room_for_one_frame() {
    let (mut i, mut r) = ends(8);
    let mut told = Vec::new();
    for _ in 0..8 {
        let stream = i.open(Extensions { client: Some(Client::Unix) }).unwrap();
        i.end(stream);
    }
    loop {
        let mut small = record(FRAME_HEADER + 4);
        let mut batch = Batch::new(&mut small, 0);
        let is_all = i.write_due(&mut batch);
        let length = batch.filled();
        told.extend(events(&mut r, &small[PREFIX..PREFIX + length]).unwrap());
        if is_all {
            break;
        }
    }
    assert_eq!(told.len(), 16);
    let mut none = record(FRAME_HEADER);
    let read = |_place: &mut [u8]| -> Result<usize, Infallible> { panic!("there is no room") };
    r.opened(id(1));
    let _opened = due(&mut r);
    assert_eq!(r.data(id(1), 9, &mut Batch::new(&mut none, 0), read), Ok(Sent::NoRoom));
}

#[test]
fn d4_an_extension_that_must_be_understood_is_one_streams_matter() {
    let (mut i, mut r) = ends(4);
    let held = frame(FrameType::Open, 1, &[200, 0]);
    assert_eq!(events(&mut r, &held), Ok(vec![Event::Open(id(1), Err(NotUnderstood))]));
    assert!(r.abort(id(1), AbortReason::NotUnderstood));
    let first = i.open(Extensions::default()).unwrap();
    let _open = due(&mut i);
    let event = Event::Abort(first, AbortReason::NotUnderstood);
    assert_eq!(events(&mut i, &due(&mut r)), Ok(vec![event]));
    refuses(&mut r, &frame(FrameType::Open, 2, &[1]), Violation::Extensions);
}

#[test]
fn an_empty_read_and_an_error_write_nothing() {
    let (mut i, _) = opened();
    let mut room = record(100);
    let mut batch = Batch::new(&mut room, 0);
    let sent = i.data(id(1), 9, &mut batch, |_| Ok::<_, Infallible>(0));
    assert_eq!((sent, batch.filled()), (Ok(Sent::Bytes(0)), 0));
    assert_eq!(i.data(id(1), 9, &mut batch, |_| Err("broken")), Err("broken"));
    assert_eq!((batch.filled(), i.sendable(id(1))), (0, FIRST_CREDIT));
}

/// What waits to be written is bounded by the streams that are allowed, also while nothing can
/// be written.
#[test]
fn d1_streams_that_are_gone_do_not_wait_to_be_written() {
    let (mut i, mut r) = ends(4);
    for number in 1..1000 {
        // The answer waits, and the stream is over before it is written.
        let id = i.open(Extensions::default()).unwrap();
        assert_eq!(id.number(), number);
        assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![open(number)]));
        r.opened(id);
        i.end(id);
        i.abort(id, AbortReason::LocalPeerReset);
        let aborted = Event::Abort(id, AbortReason::LocalPeerReset);
        assert_eq!(events(&mut r, &due(&mut i)), Ok(vec![aborted]));
        for end in [&i, &r] {
            let (queued, most) = end.queued();
            assert!(queued <= most, "{queued}");
        }
    }
    assert_eq!((i.streams(), r.streams()), (0, 0));
}
