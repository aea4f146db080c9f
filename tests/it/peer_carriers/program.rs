//! The independent peer and the program, as either end of carriers.

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::thread;

use super::{ends, hostile_to_initiators, hostile_to_responders, moved, streams};
use crate::support::peer::{Initiated, Responder, initiate, is_installed};
use crate::support::{
    Daemon, End, Folder, PATIENCE, Server, nobody, noise, read_to_end, write_and_read_to_end,
};

/// One carrier, so that all streams are on it.
const ON: [&str; 4] = ["--carriers", "on", "--threads", "1"];

/// The options of the program for each suite of the peer.
const OPTIONS: [(&str, [&str; 4]); 4] = [
    ("2", ["--kex", "x25519", "--cipher", "chacha20-poly1305"]),
    ("3", ["--kex", "x25519", "--cipher", "aes-256-gcm"]),
    ("4", ["--kex", "x25519mlkem768", "--cipher", "chacha20-poly1305"]),
    ("5", ["--kex", "x25519mlkem768", "--cipher", "aes-256-gcm"]),
];

/// A receiver before a target, and the peer as the initiator of a carrier.
fn carry_to(target: &Server, options: &[&str], more: &[&str], input: &[u8]) -> Initiated {
    let folder = Folder::new();
    let on = if options.contains(&"--carriers") { &[][..] } else { &ON };
    let more_options = [on, options].concat();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &more_options);
    initiate(&folder.shared_key(), receiver.address, more, input)
}

#[test]
fn the_receiver_carries_streams_of_the_independent_peer_in_all_suites() {
    if !is_installed("the receiver with carriers of the independent peer") {
        return;
    }
    let input = noise(8, 1_000_000);
    for (suite, more, moving) in [
        ("2", &["--carrier", "40", "--pad", "512", "--prepare"][..], 0),
        ("3", &["--carrier", "5", "--move", "start:3"], 3),
        ("4", &["--carrier", "5", "--move", "middle:3"], 3),
        ("5", &["--carrier", "11", "--move", "end:3", "--extension", "1:00"], 3),
    ] {
        for options in [&[][..], &["--pad", "256"]] {
            let target = Server::echo();
            let more = [&["--suite", suite], more].concat();
            let initiated = carry_to(&target, options, &more, &input);
            assert_eq!(initiated.end(), "clean", "{more:?}: {}", initiated.report);
            assert!(initiated.output == input, "{more:?}");
            assert_eq!(moved(&initiated.report), moving, "{more:?}");
            assert_eq!(target.accepted(), streams(&initiated.report).len());
        }
    }
}

/// C11, from the other side: a target that ends first.
#[test]
fn the_receiver_moves_streams_whose_target_has_ended() {
    if !is_installed("half closed streams, with the receiver") {
        return;
    }
    let (took, taken) = channel();
    let target = Server::start(move |mut stream| {
        stream.write_all(b"ok").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        took.send(read_to_end(&mut stream)).unwrap();
    });
    let more = ["--carrier", "4", "--move", "answered:3"];
    let initiated = carry_to(&target, &[], &more, &noise(9, 400_000));
    assert_eq!((initiated.end(), &initiated.output[..]), ("clean", &b"okokokok"[..]));
    assert_eq!(moved(&initiated.report), 3);
    for (bytes, end) in taken.iter().take(4) {
        assert_eq!((bytes.len(), end), (100_000, End::Clean));
    }
}

#[test]
fn the_receiver_ends_single_streams_of_the_independent_peer() {
    if !is_installed("aborted streams, with the receiver") {
        return;
    }
    let input = noise(10, 400_000);
    for (ours, expected) in [
        (&["--aborts", "2"][..], ["clean", "clean", "abort 5 by us", "abort 5 by us"]),
        (&["--extension", "200:"], ["abort 8 by the other end"; 4]),
        (&["--join-fault", "proof", "--move", "middle:4"], ["clean"; 4]),
        (&["--join-fault", "stream", "--move", "middle:4"], ["clean"; 4]),
        (&["--join-fault", "carrier", "--move", "middle:4"], ["clean"; 4]),
        (&["--join-fault", "lost", "--move", "middle:4"], ["abort 0 by us"; 4]),
    ] {
        let initiated =
            carry_to(&Server::echo(), &[], &[&["--carrier", "4"], ours].concat(), &input);
        assert_eq!(initiated.end(), "clean", "{ours:?}");
        assert_eq!(ends(&initiated.report), expected, "{ours:?}");
        assert_eq!(moved(&initiated.report), 0, "{ours:?}");
    }
    let folder = Folder::new();
    let receiver = Daemon::receiver(&folder.shared_key(), nobody(), &ON);
    let initiated = initiate(&folder.shared_key(), receiver.address, &["--carrier", "2"], b"xy");
    assert_eq!(initiated.end(), "clean");
    assert_eq!(ends(&initiated.report), ["abort 1 by the other end"; 2]);
}

#[test]
fn the_receiver_has_no_carriers_where_they_are_off() {
    if !is_installed("no carriers, with the receiver") {
        return;
    }
    let target = Server::echo();
    let initiated = carry_to(&target, &["--carriers", "off"], &["--carrier", "2"], b"xy");
    assert_eq!((initiated.end(), target.accepted()), ("abort 9 by the other end", 0));
}

/// The targets of all streams are reset, and the receiver still serves.
#[test]
fn the_receiver_ends_a_carrier_of_the_independent_peer_that_breaks_a_rule() {
    if !is_installed("hostile carriers, with the receiver") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    let (reported, reports) = channel();
    // It never answers, so that the stream cannot end before the frames come.
    let target =
        Server::start(move |mut stream| reported.send(read_to_end(&mut stream).1).unwrap());
    let receiver = Daemon::receiver(&key, target.address, &ON);
    let input = noise(11, 1_000_000);
    for (frames, violation) in hostile_to_responders() {
        if violation == "more streams than are allowed" {
            continue;
        }
        let more = ["--carrier", "1", "--move", "end:1", "--frames", &frames];
        let initiated = initiate(&key, receiver.address, &more, &input);
        let cut = ["truncated: ", "cannot write: "];
        assert!(cut.iter().any(|text| initiated.end().starts_with(text)), "{violation}");
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(End::Reset), "{violation}");
    }
}

/// C17, at the receiver: its target never answers, and the peer says nothing.
#[test]
fn the_receiver_takes_a_silent_carrier_of_the_independent_peer_for_failed() {
    if !is_installed("a silent carrier, with the receiver") {
        return;
    }
    let (reported, reports) = channel();
    let target = Server::start(move |mut stream| {
        reported.send(read_to_end(&mut stream)).unwrap();
        thread::park();
    });
    let more = ["--carrier", "1", "--silent"];
    let initiated = carry_to(&target, &[], &more, b"no answer comes");
    assert!(initiated.end().starts_with("truncated: "), "{}", initiated.end());
    // END had come before.
    let whole = (b"no answer comes".to_vec(), End::Clean);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(whole));
}

/// A client of the sender opens a carrier at the peer; the next ones are its streams.
fn carried_by(peer: &Responder, sender: &Daemon) {
    let mut first = sender.connect();
    first.write_all(b"first").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut first), (b"FIRST".to_vec(), End::Clean));
    peer.report("carrying");
}

#[test]
fn the_sender_is_served_by_carriers_of_the_independent_peer_in_all_suites() {
    if !is_installed("the sender with carriers of the independent peer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    // Bulky ones, which move, and small ones.
    let inputs = [16_000_000, 10, 100_000, 1, 70_000].map(|bytes| noise(12, bytes));
    for (suite, options) in OPTIONS {
        for theirs in [&[][..], &["--refuse-join"], &["--pad", "512"]] {
            let peer = Responder::start(&key, &[&["--suites", suite], theirs].concat());
            let mut sender = Daemon::sender(&key, peer.address, &[&ON[..], &options].concat());
            carried_by(&peer, &sender);
            thread::scope(|scope| {
                for input in &inputs {
                    let mut client = sender.connect();
                    let mut writer = client.try_clone().unwrap();
                    scope.spawn(move || {
                        writer.write_all(input).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    scope.spawn(move || {
                        let output = read_to_end(&mut client);
                        assert!(output == (input.to_ascii_uppercase(), End::Clean));
                    });
                }
            });
            sender.signal("TERM");
            sender.wait();
            let report = peer.report("\"streams\"");
            assert_eq!(report["end"], "clean", "{report}");
            assert!(streams(&report).len() >= inputs.len(), "{report}");
            assert!(ends(&report).iter().all(|end| *end == "clean"), "{report}");
            let moves = usize::from(theirs != ["--refuse-join"]);
            assert_eq!(moved(&report), moves, "{report}");
        }
    }
}

/// C2 and C19: no client notices that there is no carrier.
#[test]
fn the_sender_goes_one_to_one_where_the_independent_peer_has_no_carrier() {
    if !is_installed("carriers that the independent peer refuses, with the sender") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (theirs, said) in [
        (["--carriers", "0"], "abort 9 by us"),
        (["--go-away", "6"], "carrying"),
        (["--go-away", "7"], "carrying"),
    ] {
        let peer = Responder::start(&key, &theirs);
        let sender = Daemon::sender(&key, peer.address, &ON);
        for _client in 0..5 {
            let mut client = sender.connect();
            client.write_all(b"x").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), (b"X".to_vec(), End::Clean), "{theirs:?}");
        }
        // The sender has asked for a carrier.
        peer.report(said);
    }
}

/// The clients of all streams are reset.
#[test]
fn the_sender_ends_a_carrier_of_the_independent_peer_that_breaks_a_rule() {
    if !is_installed("hostile carriers, with the sender") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    for (frames, violation) in hostile_to_initiators() {
        let peer = Responder::start(&key, &["--frames", &frames]);
        let sender = Daemon::sender(&key, peer.address, &ON);
        carried_by(&peer, &sender);
        let mut client = sender.connect();
        let (_, end) = write_and_read_to_end(&mut client, b"x");
        assert_eq!(end, End::Reset, "{violation}");
        let report = peer.report("\"streams\"");
        assert_ne!(report["end"], "clean", "{violation}: {report}");
    }
}
