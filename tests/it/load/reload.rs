//! HUP while clients talk.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{is_reset, talk, talkers};
use crate::support::{EndWhenDropped, Folder, Pipe, Server, round_trip};

/// Open connections keep their session keys; new connections need the new key.
#[test]
fn a_new_key_is_for_new_connections() {
    let folder = Folder::new();
    let server = Server::echo();
    let pipe = Pipe::to(&folder, server.address);
    while_clients_talk(&pipe, || {
        fs::copy(folder.key("new.key"), folder.shared_key()).unwrap();
        pipe.receiver.signal("HUP");
        pipe.receiver.log.wait_for("keys reloaded");
        assert!(is_reset(pipe.sender.address), "the old key still fits");
        pipe.receiver.log.wait_for("reason=wrong-key");
        pipe.sender.signal("HUP");
        pipe.sender.log.wait_for("keys reloaded");
        round_trip(&mut pipe.connect(), b"with the new key");
    });
}

#[test]
fn a_bad_key_file_changes_nothing() {
    let folder = Folder::new();
    let server = Server::echo();
    let pipe = Pipe::to(&folder, server.address);
    while_clients_talk(&pipe, || {
        fs::write(folder.shared_key(), "short").unwrap();
        pipe.receiver.signal("HUP");
        let line = pipe.receiver.log.wait_for("keys not reloaded");
        assert!(line.contains("error") && line.contains("hint="), "{line}");
        round_trip(&mut pipe.connect(), b"with the old key");
    });
}

/// Twenty clients talk for as long as `work` takes, and none is disturbed.
fn while_clients_talk(pipe: &Pipe, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let mut clients = talkers(&pipe.sender, 20);
    thread::scope(|scope| {
        // The clients must stop even when `work` fails.
        let _end = EndWhenDropped(&is_over);
        for client in &mut clients {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    round_trip(client, b"during");
                }
            });
        }
        work();
    });
    talk(&mut clients, b"after");
}
