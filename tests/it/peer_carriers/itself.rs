//! The independent peer carries streams to itself.

use serde_json::Value;

use super::{ends, hostile_to_initiators, hostile_to_responders, moved, streams};
use crate::support::peer::{Responder, initiate, is_installed};
use crate::support::{Folder, noise, wait_until};

#[test]
fn the_peer_carries_streams_to_itself_in_all_suites() {
    if !is_installed("carriers of the independent peer with itself") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let input = noise(1, 1_000_000);
    // Three streams at once; streams that end without moving, and those that move: before
    // their data, in the middle of it, and after END.
    for (suite, allowed, more, moving) in [
        ("2", "3", &["--carrier", "10", "--pad", "512", "--prepare"][..], 0),
        ("3", "9", &["--carrier", "5", "--move", "start:3"], 3),
        ("4", "9", &["--carrier", "5", "--move", "middle:3"], 3),
        ("5", "99", &["--carrier", "11", "--move", "end:3", "--extension", "1:00"], 3),
    ] {
        let often = ["--rekey-every", "50"];
        let responder = Responder::start(&key, &[&["--carriers", allowed], &often[..]].concat());
        let more = [&["--suite", suite], &often[..], more].concat();
        let initiated = initiate(&key, responder.address, &more, &input);
        assert_eq!(initiated.end(), "clean", "{more:?}: {}", initiated.report);
        assert!(initiated.output == input.to_ascii_uppercase(), "{more:?}");
        assert!(ends(&initiated.report).iter().all(|end| *end == "clean"), "{more:?}");
        assert_eq!(moved(&initiated.report), moving, "{more:?}");
        wait_until("all have ended", || responder.reports().len() == 1 + moving);
        same_on_both_sides(&initiated.report, &responder.reports());
    }
}

/// What one side has sent of each stream, on the carrier and in its session, came to the other.
fn same_on_both_sides(initiator: &Value, responder: &[Value]) {
    let name = &initiator["connection_id"];
    let carrier = responder.iter().find(|report| report["connection_id"] == *name).unwrap();
    for (number, (ours, theirs)) in (1..).zip(streams(initiator).iter().zip(streams(carrier))) {
        assert_eq!(ours["sent"], theirs["received"], "stream {number}");
        assert_eq!(ours["received"], theirs["sent"], "stream {number}");
        assert_eq!(theirs["end"], "clean", "stream {number}");
        if ours["moved"] == true {
            let of = |report: &&Value| report["join"]["stream"] == number;
            let session = responder.iter().find(of).unwrap();
            assert_eq!(session["join"]["carrier"], *name);
            assert_eq!(session["connection_id"], ours["session"]["connection_id"]);
            assert_eq!(session["received"], ours["session"]["sent"], "stream {number}");
            assert_eq!(session["sent"], ours["session"]["received"], "stream {number}");
            assert_eq!(session["end"], "clean");
        }
    }
}

/// C11: a direction that had ended on the carrier ends in the session again.
#[test]
fn the_peer_moves_streams_of_which_one_direction_has_ended() {
    if !is_installed("half closed streams of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let responder = Responder::start(&key, &["--answer", "6f6b"]);
    let more = ["--carrier", "4", "--move", "answered:3"];
    let initiated = initiate(&key, responder.address, &more, &noise(2, 400_000));
    assert_eq!(initiated.end(), "clean", "{}", initiated.report);
    assert_eq!(initiated.output, b"okokokok");
    assert_eq!(moved(&initiated.report), 3);
    wait_until("all have ended", || responder.reports().len() == 4);
    same_on_both_sides(&initiated.report, &responder.reports());
    let reports = responder.reports();
    let received = reports.iter().filter(|report| report.get("join").is_some());
    assert!(received.map(|report| report["received"].as_u64().unwrap()).all(|bytes| bytes > 0));
}

#[test]
fn the_peer_aborts_and_refuses_single_streams_of_its_carriers() {
    if !is_installed("aborted streams of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let input = noise(3, 400_000);
    for (theirs, ours, ends_of_streams, ended) in [
        (&[][..], &["--aborts", "2"][..], ["clean", "clean", "abort 5 by us", "abort 5 by us"], ""),
        (&["--abort", "4"], &[], ["abort 4 by the other end"; 4], ""),
        (&["--extension", "128:"], &[], ["abort 8 by us"; 4], ""),
        (&[], &["--extension", "200:"], ["abort 8 by the other end"; 4], ""),
        (&[], &["--join-fault", "proof", "--move", "middle:4"], ["clean"; 4], "abort 9"),
        (&[], &["--join-fault", "stream", "--move", "middle:4"], ["clean"; 4], "abort 9"),
        (&[], &["--join-fault", "carrier", "--move", "middle:4"], ["clean"; 4], "abort 9"),
        (&["--refuse-join"], &["--move", "start:4"], ["clean"; 4], "abort 9"),
        (&[], &["--join-fault", "lost", "--move", "middle:4"], ["abort 0 by us"; 4], "abort 0"),
    ] {
        let responder = Responder::start(&key, theirs);
        let more = [&["--carrier", "4"], ours].concat();
        let initiated = initiate(&key, responder.address, &more, &input);
        assert_eq!(initiated.end(), "clean", "{theirs:?} {ours:?}");
        assert_eq!(ends(&initiated.report), ends_of_streams, "{theirs:?} {ours:?}");
        assert_eq!(moved(&initiated.report), 0);
        let sessions = if ended.is_empty() { 0 } else { 4 };
        wait_until("all have ended", || responder.reports().len() == 1 + sessions);
        let reports = responder.reports();
        let sessions = reports.iter().filter(|report| report.get("join").is_some());
        let said: Vec<_> = sessions.map(|report| report["end"].as_str().unwrap()).collect();
        assert!(said.iter().all(|end| end.starts_with(ended)), "{said:?}");
    }
}

/// C10: another key of the same responder moves no stream.
#[test]
fn the_peer_refuses_a_join_of_another_key() {
    if !is_installed("a session of another key, with the independent peer") {
        return;
    }
    let folder = Folder::new();
    let (key, other) = (folder.shared_key(), folder.key("other"));
    let responder = Responder::start(&key, &["--key", other.to_str().unwrap()]);
    let more = ["--carrier", "2", "--move", "middle:2", "--join-key", other.to_str().unwrap()];
    let input = noise(4, 200_000);
    let initiated = initiate(&key, responder.address, &more, &input);
    assert_eq!(initiated.end(), "clean");
    assert!(initiated.output == input.to_ascii_uppercase());
    assert_eq!(moved(&initiated.report), 0);
}

#[test]
fn the_peer_has_carriers_or_none_and_ends_them() {
    if !is_installed("carriers that the independent peer refuses and ends") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (theirs, end, go_away) in [
        (&["--carriers", "0"][..], "abort 9 by the other end", Value::Null),
        (&["--carried-extension", "128:"], "abort 8 by us", Value::Null),
        (&["--carried-extension", "5:00"], "clean", Value::Null),
        (&["--go-away", "6"], "clean", Value::from(6)),
        (&["--record", "5:0a"], "abort 10 by the other end", Value::Null),
    ] {
        let responder = Responder::start(&key, theirs);
        let initiated = initiate(&key, responder.address, &["--carrier", "1"], &noise(5, 99_000));
        assert_eq!(initiated.end(), end, "{theirs:?}");
        if end == "clean" {
            assert_eq!(initiated.report["go_away"], go_away, "{theirs:?}");
        }
    }
}

/// The peer must be as strict as the program, so that the program's faults do not pass.
#[test]
fn the_peer_ends_a_carrier_that_breaks_a_rule() {
    if !is_installed("hostile carriers of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    // Too much for the stream to end without credit, before the frames come.
    let input = noise(6, 200_000);
    let endless = ["--carrier", "1", "--move", "end:1"];
    let responder = Responder::start(&key, &["--carriers", "1"]);
    for (frames, violation) in hostile_to_responders() {
        let before = responder.reports().len();
        let more = [&endless[..], &["--frames", &frames]].concat();
        let initiated = initiate(&key, responder.address, &more, &input);
        assert_ne!(initiated.end(), "clean", "{violation}");
        wait_until(violation, || responder.reports().len() > before);
        let expected = format!("violation: {violation}");
        assert_eq!(responder.reports()[before]["end"], expected, "{frames}");
    }
    for (more, violation) in [
        // A responder that gets no credit passes nothing on, and gives none.
        (&["--ignore-credit"][..], "data beyond the credit"),
        (&["--record", "3:78"], "kind 3 on a carrier"),
    ] {
        let before = responder.reports().len();
        let initiated = initiate(&key, responder.address, &[&endless[..], more].concat(), &input);
        assert_ne!(initiated.end(), "clean", "{violation}");
        wait_until(violation, || responder.reports().len() > before);
        assert_eq!(responder.reports()[before]["end"], format!("violation: {violation}"));
    }
    for (frames, violation) in hostile_to_initiators() {
        let responder = Responder::start(&key, &["--frames", &frames]);
        let initiated = initiate(&key, responder.address, &endless, &input);
        assert_eq!(initiated.end(), format!("violation: {violation}"), "{frames}");
    }
}

/// C17: neither gives a sign of life, and the stream stands still.
#[test]
fn the_peer_takes_a_silent_carrier_for_failed() {
    if !is_installed("silent carriers of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let responder = Responder::start(&key, &[]);
    let more = ["--carrier", "1", "--silent", "--move", "end:1"];
    let initiated = initiate(&key, responder.address, &more, &noise(7, 1_000_000));
    assert_ne!(initiated.end(), "clean");
    assert_eq!(responder.report("\"end\"")["end"], "truncated: TimeoutError");
}
