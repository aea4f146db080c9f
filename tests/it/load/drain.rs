//! TERM while clients talk.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{is_reset, talkers};
use crate::support::{End, Folder, Pipe, Server, read_to_end, round_trip, wait_until};

const CLIENTS: usize = 20;

/// Open connections go on and end by themselves; no new connection is accepted; a HUP in
/// the meantime does no harm.
#[test]
fn open_connections_go_on_while_it_drains() {
    let folder = Folder::new();
    let server = Server::echo();
    let mut pipe = Pipe::with(&folder, server.address, &["--drain-timeout", "60"]);
    let turns = AtomicUsize::new(0);
    let last_turn = AtomicUsize::new(usize::MAX);
    let clients = talkers(&pipe.sender, CLIENTS);
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        for mut client in clients {
            let (turns, last_turn) = (&turns, &last_turn);
            scope.spawn(move || {
                while turns.fetch_add(1, Ordering::Relaxed) < last_turn.load(Ordering::Relaxed) {
                    round_trip(&mut client, b"in the middle of something");
                }
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_to_end(&mut client), (vec![], End::Clean));
            });
        }
        pipe.receiver.signal("TERM");
        pipe.receiver.log.wait_for("TERM received: ");
        wait_until("connects are refused", || TcpStream::connect(pipe.receiver.address).is_err());
        assert!(is_reset(pipe.sender.address));
        pipe.receiver.signal("HUP");
        pipe.receiver.log.wait_for("keys not reloaded: this process only lets");
        let after = turns.load(Ordering::Relaxed);
        wait_until("they all go on", || turns.load(Ordering::Relaxed) > after + 20 * CLIENTS);
        assert!(pipe.receiver.is_running());
        let told = Instant::now();
        last_turn.store(0, Ordering::Relaxed);
        assert!(pipe.receiver.wait().success());
        took = told.elapsed();
    });
    println!("{CLIENTS} talking clients ended cleanly, the process {took:?} later");
    assert!(took < Duration::from_secs(5), "{took:?}");
    wait_until("all ended cleanly", || {
        [&pipe.sender, &pipe.receiver].iter().all(|end| end.log.count("reason=finished") == CLIENTS)
    });
    assert_eq!(pipe.receiver.log.count("warn"), 1, "but for the keys");
}

/// A stranger's connection does not count as open.
#[test]
fn a_stranger_does_not_hold_up_the_end() {
    let folder = Folder::new();
    let options = ["-o", "600", "--drain-timeout", "60"];
    let mut pipe = Pipe::with(&folder, Server::echo().address, &options);
    let mut stranger = pipe.receiver.connect();
    wait_until("it is let in", || pipe.receiver.descriptors() > pipe.sender.descriptors());
    let started = Instant::now();
    pipe.receiver.signal("TERM");
    assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
    assert!(pipe.receiver.wait().success());
    println!("a silent stranger: ended after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// A connection that does not end by itself is reset when the time is over.
#[test]
fn connections_that_do_not_end_in_time_are_reset() {
    let mut stage = Stage::new("0.5");
    let started = Instant::now();
    stage.pipe.receiver.signal("TERM");
    stage.all_are_reset();
    let took = started.elapsed();
    println!("--drain-timeout 0.5: all are reset after {took:?}");
    assert!(took >= Duration::from_millis(450) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut stage = Stage::new("60");
    stage.pipe.receiver.signal("TERM");
    stage.pipe.receiver.log.wait_for("TERM received: ");
    let started = Instant::now();
    stage.pipe.receiver.signal("TERM");
    stage.all_are_reset();
    println!("the second TERM: all are reset after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// As on a host that was suspended meanwhile: what was not done in time is not waited for.
#[test]
fn a_process_that_stood_still_at_its_end_names_what_it_has_cut() {
    let folder = Folder::new();
    let server = Server::echo();
    let options = ["--drain-timeout", "60", "--threads", "1"];
    let mut pipe = Pipe::with(&folder, server.address, &options);
    let _clients = talkers(&pipe.sender, CLIENTS);
    // The receiver waits until its ABORT is read, which does not happen.
    pipe.sender.signal("STOP");
    for said in ["TERM received: ", "TERM received again: "] {
        pipe.receiver.signal("TERM");
        pipe.receiver.log.wait_for(said);
    }
    pipe.receiver.signal("STOP");
    thread::sleep(Duration::from_millis(3100));
    pipe.receiver.signal("CONT");
    pipe.receiver.log.wait_for("warn some connections were cut: they took longer than 3s to end");
    assert!(pipe.receiver.wait().success());
}

/// Clients that talk, and then do nothing.
struct Stage {
    _folder: Folder,
    pipe: Pipe,
    clients: Vec<TcpStream>,
}

impl Stage {
    fn new(drain_timeout: &str) -> Self {
        let folder = Folder::new();
        let server = Server::echo();
        let pipe = Pipe::with(&folder, server.address, &["--drain-timeout", drain_timeout]);
        let clients = talkers(&pipe.sender, CLIENTS);
        Self { _folder: folder, pipe, clients }
    }

    fn all_are_reset(&mut self) {
        for client in &mut self.clients {
            assert_eq!(read_to_end(client), (vec![], End::Reset));
        }
        assert!(self.pipe.receiver.wait().success());
        let told = "reason=aborted-shutting-down";
        wait_until("the sender is told", || self.pipe.sender.log.count(told) == CLIENTS);
        assert!(self.pipe.sender.is_running());
    }
}
