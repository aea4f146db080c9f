//! Names, with a real resolver: names that change, that do not resolve, and that have
//! several addresses.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::net::{NOBODY, Resolver, ip, namespaces_can_be};
use crate::support::{Daemon, End, Pipe, SPIPED, Server, read_to_end, round_trip, wait_until};

/// The target of all pipes here.
const TARGET: &str = "target.test:6379";
/// An interval that is short enough for a test.
const OFTEN: [&str; 2] = ["-r", "0.3"];
/// Several times that interval.
const A_WHILE: Duration = Duration::from_secs(1);
/// The limit for events that must not wait for a hanging resolver, which takes 5 s or
/// more; the limit is long enough for a busy machine.
const SOON: Duration = Duration::from_secs(2);
/// The delay that an unresponsive address may cause (RFC 8305).
const SPACING: Duration = Duration::from_millis(250);

/// A test with a resolver of its own.
fn with_resolver(test: impl FnOnce(&mut Resolver) + Send) {
    if namespaces_can_be("names of targets and sources") {
        Resolver::with(test);
    }
}

/// A server that sends its own address to each client, and then echoes.
fn server(address: &'static str) -> Server {
    Server::start_at(&format!("{address}:6379"), move |mut stream| {
        let mut from = stream.try_clone().unwrap();
        let _gone = writeln!(stream, "{address}");
        let _gone = std::io::copy(&mut from, &mut stream);
    })
}

/// Which server a new connection through the pipe reaches, and how soon.
fn ask(pipe: &Pipe) -> (String, Duration) {
    let begin = Instant::now();
    let mut client = pipe.connect();
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') {
        client.read_exact(&mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    (line.trim_end().to_owned(), begin.elapsed())
}

/// The server that several connections reach, and the shortest time: a busy machine
/// delays some of them. None waits as long as for a resolver.
fn ask_often(pipe: &Pipe) -> (String, Duration) {
    let all: Vec<_> = (0..5).map(|_| ask(pipe)).collect();
    assert!(all.iter().all(|(_, took)| *took < SOON), "{all:?}");
    all.into_iter().min_by_key(|(_, took)| *took).unwrap()
}

fn server_of(pipe: &Pipe) -> String {
    ask(pipe).0
}

/// Starts `spiped -F` without waiting for anything.
fn launch(arguments: &[&str]) -> Daemon {
    let mut command = Command::new(SPIPED);
    command.arg("-F").args(arguments);
    Daemon::launch(command)
}

#[test]
fn a_target_that_moves_is_followed() {
    with_resolver(|resolver| {
        let _servers = ["127.0.0.1", "127.0.0.2"].map(server);
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        let mut before = pipe.connect();
        let mut greeting = [0; 10];
        before.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"127.0.0.1\n");

        resolver.say(&["127.0.0.2"]);
        let begin = Instant::now();
        let line = pipe.receiver.log.wait_for("now=[127.0.0.2:6379]");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert!(line.contains("target.test resolves to another address"), "{line}");
        assert!(line.contains("before=[127.0.0.1:6379]"), "{line}");
        assert_eq!(server_of(&pipe), "127.0.0.2");
        // An open connection keeps its server.
        round_trip(&mut before, b"still there?");
        assert_eq!(pipe.receiver.log.count("resolves to another address"), 1);
    });
}

/// The change is noticed within seconds, not with the next look-up a minute later. The
/// log has the address that was tried beside the name.
#[test]
fn a_target_that_moves_is_followed_at_once_where_the_old_address_fails() {
    with_resolver(|resolver| {
        let _server = server("127.0.0.2");
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let pipe = Pipe::to(&resolver.folder, TARGET);
        pipe.receiver.log.wait_for("now=[127.0.0.1:6379]");
        // Nothing listens at the old address, so each of these connections fails.
        let fails = || assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
        fails();
        let line = pipe.receiver.log.wait_for("target refused the connection");
        assert!(line.contains(" target=target.test:6379 address=127.0.0.1:6379 "), "{line}");
        resolver.say(&["127.0.0.2"]);
        let begin = Instant::now();
        fails();
        pipe.receiver.log.wait_for("now=[127.0.0.2:6379]");
        assert!(begin.elapsed() < 5 * A_WHILE, "{:?}", begin.elapsed());
        let mut client = pipe.connect();
        let mut greeting = [0; 10];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"127.0.0.2\n");
        drop(client);
        let line = pipe.receiver.log.wait_for("info closed reason=finished id=");
        assert!(line.contains(" address=127.0.0.2:6379 "), "{line}");
    });
}

/// Clients that try again and again cost the resolver one question a second.
#[test]
fn a_target_that_stays_down_is_looked_up_once_a_second_at_most() {
    with_resolver(|resolver| {
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let pipe = Pipe::to(&resolver.folder, TARGET);
        pipe.receiver.log.wait_for("now=[127.0.0.1:6379]");
        let (begin, before) = (Instant::now(), resolver.asked());
        while begin.elapsed() < 3 * A_WHILE {
            assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
        }
        let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
        let asked = resolver.asked() - before;
        assert!((2..=seconds + 2).contains(&asked), "{asked} look-ups in {seconds} s");
    });
}

/// No client gets a session that was made ready at the old address.
#[test]
fn sessions_kept_ready_follow_the_receiver() {
    with_resolver(|resolver| {
        let hosts = ["127.0.0.1", "127.0.0.2"];
        let _servers = hosts.map(server);
        let key = resolver.folder.shared_key();
        let key = key.to_str().unwrap();
        let receivers = hosts.map(|host| {
            let [source, target] = [6400, 6379].map(|port| format!("{host}:{port}"));
            Daemon::start(&["-d", "-s", &source, "-t", &target, "-k", key])
        });
        let idle = receivers.each_ref().map(Daemon::descriptors);
        let has_sessions = |number: usize, sessions| {
            wait_until(&format!("receiver {number} has {sessions}"), || {
                receivers[number].descriptors() == idle[number] + sessions
            });
        };
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let options = [&["--prewarm", "3"][..], &OFTEN].concat();
        let sender = Daemon::sender(key.as_ref(), "target.test:6400", &options);
        has_sessions(0, 3);
        resolver.say(&["127.0.0.2"]);
        sender.log.wait_for("now=[127.0.0.2:6400]");
        has_sessions(0, 0);
        has_sessions(1, 3);
        assert_eq!(sender.log.count("warn"), 0);
    });
}

#[test]
fn a_target_is_not_followed_if_not_wanted() {
    with_resolver(|resolver| {
        let _servers = ["127.0.0.1", "127.0.0.2"].map(server);
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let pipe = Pipe::with(&resolver.folder, TARGET, &["-R"]);
        assert_eq!(server_of(&pipe), "127.0.0.1");
        resolver.say(&["127.0.0.2"]);
        thread::sleep(A_WHILE);
        assert_eq!(server_of(&pipe), "127.0.0.1");
        assert_eq!(pipe.receiver.log.count("now=[127.0.0.2"), 0);
    });
}

#[test]
fn without_a_resolver_the_last_good_address_is_used() {
    with_resolver(|resolver| {
        let _servers = ["127.0.0.1", "127.0.0.2"].map(server);
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        assert_eq!(server_of(&pipe), "127.0.0.1");
        resolver.stop();
        let warning = pipe.receiver.log.wait_for("does not resolve");
        assert!(
            warning.contains("warn") && warning.contains("keeping the last good answer"),
            "{warning}"
        );
        thread::sleep(A_WHILE);
        assert_eq!(server_of(&pipe), "127.0.0.1");
        assert_eq!(pipe.receiver.log.count("does not resolve"), 1);

        // The resolver is back, and so are changes of the name.
        resolver.say(&["127.0.0.2"]);
        resolver.start();
        pipe.receiver.log.wait_for("now=[127.0.0.2:6379]");
        assert_eq!(server_of(&pipe), "127.0.0.2");
    });
}

#[test]
fn a_target_that_does_not_resolve_yet_is_waited_for() {
    with_resolver(|resolver| {
        let _server = server("127.0.0.1");
        let pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
        let line = pipe.receiver.log.wait_for("warn the name target.test does not resolve: ");
        assert!(line.contains(" id=1 "), "{line}");
        // There is no last good answer to keep.
        pipe.receiver.log.wait_for("the name target.test does not resolve, retrying: ");
        assert_eq!(pipe.receiver.log.count("good answer"), 0);

        resolver.say(&["127.0.0.1"]);
        resolver.start();
        pipe.receiver.log.wait_for("now=[127.0.0.1:6379]");
        assert_eq!(server_of(&pipe), "127.0.0.1");
    });
}

#[test]
fn a_source_that_does_not_resolve_yet_is_waited_for() {
    with_resolver(|resolver| {
        let echo = Server::echo();
        let key = resolver.folder.shared_key();
        let key = key.to_str().unwrap();
        let receiver = Daemon::receiver(key.as_ref(), echo.address, &[]);
        let to = receiver.address.to_string();
        let arguments = ["-e", "-s", "target.test:0", "-t", &to, "-k", key];
        let mut impatient = launch(&arguments);
        assert!(!impatient.wait().success());

        let waiting = || launch(&[&arguments, ["-D"].as_slice()].concat());
        let (mut ended, mut sender) = (waiting(), waiting());
        for daemon in [&ended, &sender] {
            daemon.log.wait_for("warn the name target.test does not resolve");
        }
        ended.signal("TERM");
        assert!(ended.wait().success());

        resolver.say(&["127.0.0.3"]);
        resolver.start();
        sender.wait_until_listening();
        assert_eq!(sender.address.ip().to_string(), "127.0.0.3");
        assert_eq!(sender.log.count("does not resolve"), 1);
        round_trip(&mut sender.connect(), b"hello");
    });
}

/// A resolver that does not answer delays nothing, not even the end.
#[test]
fn nothing_waits_for_a_resolver_that_hangs() {
    with_resolver(|resolver| {
        let _server = server("127.0.0.1");
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let mut pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        assert_eq!(server_of(&pipe), "127.0.0.1");
        let key = resolver.folder.shared_key();
        let key = key.to_str().unwrap();
        resolver.signal("STOP");
        // The pause is long enough that the receiver is asking now.
        thread::sleep(A_WHILE);
        let (_, took) = ask_often(&pipe);
        assert!(took < Duration::from_millis(200), "{took:?}");
        let start = ["-d", "-s", "target.test:0", "-t", TARGET, "-k", key];
        let mut starting = launch(&start);
        let mut waiting = launch(&[&start, ["-D"].as_slice()].concat());
        // TERM is the fifteenth bit of the signals that they handle.
        let handles_term = |daemon: &Daemon| {
            let status = format!("/proc/{}/status", daemon.child.id());
            let status = std::fs::read_to_string(status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
        };
        wait_until("both handle signals", || handles_term(&starting) && handles_term(&waiting));
        thread::sleep(Duration::from_millis(100));
        for daemon in [&mut pipe.receiver, &mut starting, &mut waiting] {
            let begin = Instant::now();
            daemon.signal("TERM");
            assert!(daemon.wait().success());
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        }
        // The time limit holds as well, and the message names the resolver, because
        // neither the receiver nor a firewall can help.
        let begin = Instant::now();
        let spipe = ["-t", TARGET, "-k", key, "-o", "0.2"];
        let spipe = Command::new(SPIPED).arg0("spipe").args(spipe).output().unwrap();
        let said = String::from_utf8_lossy(&spipe.stderr);
        let reason = "the name target.test does not resolve: no answer in 200ms\n";
        assert!(said.contains(reason) && said.contains("hint: check the name after -t"), "{said}");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    });
}

#[test]
fn an_address_that_refuses_costs_no_time() {
    with_resolver(|resolver| {
        let _server = server("127.0.0.2");
        resolver.say(&["127.0.0.1", "127.0.0.2"]);
        resolver.start();
        let pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        // The order matters: the first address is the nearer one.
        pipe.receiver.log.wait_for("now=[127.0.0.1:6379, 127.0.0.2:6379]");
        let (server, took) = ask_often(&pipe);
        assert_eq!(server, "127.0.0.2");
        assert!(took < Duration::from_millis(200), "{took:?}");
    });
}

/// IPv6 may be set up and lead nowhere.
#[test]
fn an_address_that_does_not_answer_costs_a_moment() {
    with_resolver(|resolver| {
        ip("link add void0 type veth peer name void1");
        ip("address add 2001:db8::1/64 dev void0 nodad");
        ip("link set void0 up");
        ip("link set void1 up");
        ip(&format!("neighbour add 2001:db8::2 lladdr {NOBODY} nud permanent dev void0"));
        let _server = server("127.0.0.1");
        resolver.say(&["127.0.0.1", "2001:db8::2"]);
        resolver.start();
        let pipe = Pipe::with(&resolver.folder, TARGET, &OFTEN);
        pipe.receiver.log.wait_for("now=[[2001:db8::2]:6379, 127.0.0.1:6379]");
        let (server, took) = ask_often(&pipe);
        assert_eq!(server, "127.0.0.1");
        assert!(took >= SPACING && took < 4 * SPACING, "{took:?}");
    });
}
