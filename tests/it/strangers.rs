//! A peer without the key learns nothing, reaches no target, and costs one log line that
//! says what the peer was.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SysRng;
use spiped::protocol::{
    AbortReason, Accepted, Extensions, Initiator, KEY_SECRETS, Kex, Record, Responder, SharedKey,
    Suite,
};

use crate::support::{
    Daemon, End, EndWhenDropped, Folder, Pipe, SPIPED, SUITE, Server, connect, need, nobody,
    patient, read_to_end, reset, round_trip, wait_until,
};

#[test]
fn what_is_not_our_protocol_is_closed_at_once_and_named() {
    let cases: [(&[u8], &str, &str); 6] = [
        (
            b"*1\r\n$4\r\nPING\r\n",
            "looks like plaintext redis",
            "redis clients connect to a sender",
        ),
        (b"PING\r\n", "looks like plaintext redis", "redis clients connect to a sender"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "looks like http", "only a sender"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "looks like tls", "only a sender"),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n",
            "like the proxy protocol",
            "turn it off before",
        ),
        (&[0xc5; 32], "looks like spiped 1.x", "speaks another protocol"),
    ];
    for (bytes, reason, hint) in cases {
        let stage = Stage::new(&["-o", "30"]);
        let started = Instant::now();
        let mut stranger = stage.pipe.receiver.connect();
        stranger.write_all(bytes).unwrap();
        assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
        assert!(started.elapsed() < Duration::from_secs(5), "not at once");
        let line = stage.logged(reason);
        assert!(line.contains(hint), "{line}");
        stage.still_serves();
    }
}

/// A real load balancer that announces its client's address.
#[test]
fn the_proxy_protocol_of_haproxy_is_named() {
    need("haproxy", "haproxy");
    for version in ["send-proxy", "send-proxy-v2"] {
        let folder = Folder::new();
        let receiver = Daemon::receiver(&folder.shared_key(), nobody(), &[]);
        let (address, to) = (nobody(), receiver.address);
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
             listen pipe\n bind {address}\n server receiver {to} {version}\n"
        );
        fs::write(folder.path("haproxy.cfg"), config).unwrap();
        let mut haproxy = Command::new("haproxy");
        let mut haproxy =
            haproxy.args(["-q", "-db", "-f"]).arg(folder.path("haproxy.cfg")).spawn().unwrap();
        wait_until("haproxy listens", || TcpStream::connect(address).is_ok());
        let line = receiver.log.wait_for("not our protocol, looks like the proxy protocol");
        haproxy.kill().unwrap();
        haproxy.wait().unwrap();
        assert!(line.contains("haproxy send-proxy, nginx proxy_protocol"), "{line}");
    }
}

/// Our own messages begin with 0x02 or 0x03, too: only the tag shows the difference.
#[test]
fn garbage_that_begins_like_ours_is_refused_for_its_tag() {
    let stage = Stage::new(&[]);
    for first in [0x02, 0x03] {
        let mut stranger = stage.pipe.receiver.connect();
        stranger.write_all(&[first; 57]).unwrap();
        assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
    }
    let line = stage.logged("reason=wrong-key");
    assert!(line.contains("spiped keyid"), "{line}");
    stage.still_serves();
}

#[test]
fn a_peer_that_says_nothing_is_closed_at_the_deadline() {
    let stage = Stage::new(&["-o", "0.3"]);
    let mut stranger = stage.pipe.receiver.connect();
    assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
    let line = stage.logged("reason=silent");
    assert!(line.contains("a health check"), "{line}");
    stage.still_serves();
}

#[test]
fn a_peer_that_stops_after_48_bytes_is_closed_at_the_deadline() {
    let stage = Stage::new(&["-o", "0.3"]);
    let mut stranger = stage.pipe.receiver.connect();
    stranger.write_all(&[3; 48]).unwrap();
    assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
    stage.logged("reason=stalled");
    stage.still_serves();
}

/// A byte now and then does not move the deadline.
#[test]
fn a_peer_that_drips_is_closed_at_the_deadline() {
    let stage = Stage::new(&["-o", "0.5"]);
    let mut stranger = stage.pipe.receiver.connect();
    let started = Instant::now();
    while stranger.write_all(&[3]).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(4), "it drips on");
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.logged("reason=stalled");
    stage.still_serves();
}

#[test]
fn a_peer_that_closes_within_its_message_is_named() {
    let stage = Stage::new(&[]);
    let mut stranger = stage.pipe.receiver.connect();
    stranger.write_all(&[3; 20]).unwrap();
    stranger.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut stranger);
    stage.logged("reason=cut-short");
    stage.still_serves();
}

/// Probes of a load balancer must not fill the log.
#[test]
fn connect_and_close_is_no_more_than_a_debug_line() {
    let stage = Stage::new(&[]);
    drop(stage.pipe.receiver.connect());
    reset(stage.pipe.receiver.connect());
    wait_until("both are logged", || stage.pipe.receiver.log.count("reason=probe") == 2);
    assert_eq!(stage.pipe.receiver.log.count("warn"), 0);
    stage.still_serves();
}

/// Many strangers cause few lines, and the next line counts the suppressed ones.
#[test]
fn lines_about_strangers_are_rate_limited_and_counted() {
    let stage = Stage::new(&[]);
    let strangers = 200;
    let refuse = || {
        let mut stranger = stage.pipe.receiver.connect();
        stranger.write_all(b"PING\r\n").unwrap();
        read_to_end(&mut stranger);
    };
    let started = Instant::now();
    (0..strangers).for_each(|_| refuse());
    let lines = stage.pipe.receiver.log.count("reason=not-our-protocol");
    assert!(lines <= 2 + usize::try_from(started.elapsed().as_secs()).unwrap(), "{lines} lines");
    wait_until("a line that counts the others", || {
        refuse();
        stage.pipe.receiver.log.count("suppressed=") > 0
    });
    // At the end, one line counts those that no further line would count.
    (0..strangers).for_each(|_| refuse());
    stage.pipe.receiver.signal("TERM");
    stage
        .pipe
        .receiver
        .log
        .wait_for("further log lines of connections were suppressed suppressed=");
}

/// Noise of one kind hides no line of another: a sender with a wrong key stands out.
#[test]
fn a_wrong_key_is_named_whatever_others_say() {
    let stage = Stage::new(&[]);
    let receiver = &stage.pipe.receiver;
    let refuse = |bytes: &[u8]| {
        let mut stranger = receiver.connect();
        let _reset = stranger.write_all(bytes);
        read_to_end(&mut stranger);
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = EndWhenDropped(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                refuse(b"PING\r\n");
            }
        });
        receiver.log.wait_for("looks like plaintext redis");
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            refuse(&[3; 57]);
        }
    });
    assert!(receiver.log.count("reason=wrong-key") > 0);
}

/// A connection that was open before the key was replaced, and sends its first message
/// afterwards, needs the new key.
#[test]
fn a_key_that_was_replaced_opens_nothing_more() {
    let stage = Stage::new(&["-o", "30"]);
    let mut stranger = stage.pipe.receiver.connect();
    let old = stage.replace_key();
    let (_initiator, message_1) = Initiator::start(SUITE, &old, &mut SysRng).unwrap();
    stranger.write_all(&message_1).unwrap();
    assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
    stage.logged("reason=wrong-key");
    stage.still_serves();
}

/// So does a connection that has come as far as the proof.
#[test]
fn a_key_that_was_replaced_in_a_handshake_reaches_no_target() {
    let stage = Stage::new(&["-o", "30"]);
    let old = stage.key();
    let mut peer = stage.pipe.receiver.connect();
    let (initiator, message_1) = Initiator::start(SUITE, &old, &mut SysRng).unwrap();
    peer.write_all(&message_1).unwrap();
    let mut message_2 = vec![0; SUITE.message_2()];
    peer.read_exact(&mut message_2).unwrap();
    let mut session = initiator.finish(&message_2).unwrap();
    stage.replace_key();
    peer.write_all(&session.sealer.seal_open(Extensions::default()).unwrap()).unwrap();
    let (mut abort, _end) = read_to_end(&mut peer);
    let reason = session.opener.open(&mut abort).unwrap();
    assert_eq!(reason, Record::Abort(AbortReason::KeyReplaced));
    let line = stage.pipe.receiver.log.wait_for("reason=key-replaced");
    assert!(line.contains("info"), "{line}");
    stage.still_serves();
}

/// A sender whose key is replaced during a handshake starts again with the new key,
/// because nothing of the stream has been sent.
#[test]
fn a_sender_whose_key_is_replaced_begins_again() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = Daemon::sender(&folder.shared_key(), address, &["-o", "30"]);
    let _client = sender.connect();
    listener.set_nonblocking(true).unwrap();
    let message_1 = || {
        let mut came = None;
        wait_until("the sender connects", || {
            came = listener.accept().ok();
            came.is_some()
        });
        let mut stream = patient(came.unwrap().0);
        stream.set_nonblocking(false).unwrap();
        let mut message_1 = vec![0; SUITE.message_1()];
        stream.read_exact(&mut message_1).unwrap();
        (stream, message_1)
    };
    let (mut with_old, _message_1) = message_1();
    fs::copy(folder.key("new.key"), folder.shared_key()).unwrap();
    sender.signal("HUP");
    let (_with_new, message_1) = message_1();
    let new = key_of(&folder);
    assert!(Responder::accept(&message_1, [&new], Accepted::default(), &mut SysRng).is_ok());
    assert_eq!(read_to_end(&mut with_old), (vec![], End::Reset));
}

fn key_of(folder: &Folder) -> SharedKey {
    SharedKey::from_key_file(&fs::read(folder.shared_key()).unwrap(), Box::new([0; KEY_SECRETS]))
        .unwrap()
}

/// Strangers have slots apart from the holders of the key; the oldest stranger is
/// evicted.
#[test]
fn silent_strangers_keep_no_keyed_peer_waiting() {
    let mut stage = Stage::new(&["-o", "600"]);
    // There are more strangers than slots: 1024 descriptors give 112 slots.
    stage.pipe.receiver = {
        let mut command = Command::new("sh");
        let key = stage.folder.shared_key();
        let target = stage.target.address.to_string();
        command.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh", SPIPED, "-F", "-d"]);
        command.args(["-o", "600", "-s", "127.0.0.1:0", "-t", &target, "-k"]).arg(key);
        Daemon::spawn(command)
    };
    let address = stage.pipe.receiver.address;
    stage.pipe.sender = Daemon::sender(&stage.folder.shared_key(), address, &[]);
    let strangers: Vec<_> = (0..400).map(|_| connect(address)).collect();
    let started = Instant::now();
    round_trip(&mut stage.pipe.connect(), b"let me in");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    stage.pipe.receiver.log.wait_for("reason=evicted");
    assert!(stage.pipe.receiver.descriptors() < 300, "{}", stage.pipe.receiver.descriptors());
    drop(strangers);
}

/// Strangers can be many when the process ends, each in a slot or parked.
#[test]
fn strangers_at_a_shutdown_write_no_line_of_the_usual_level() {
    let mut stage = Stage::new(&["-o", "30"]);
    let strangers: Vec<_> = (0..20).map(|_| stage.pipe.receiver.connect()).collect();
    // Accepted after them.
    stage.still_serves();
    stage.pipe.receiver.signal("TERM");
    assert!(stage.pipe.receiver.wait().success());
    let lines = stage.pipe.receiver.log.all();
    let told = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(told("reason=unproved-shutting-down"), strangers.len(), "{lines:?}");
    assert_eq!(told("reason=shutting-down"), 0, "{lines:?}");
    for line in lines.iter().filter(|line| line.contains("reason=unproved-shutting-down")) {
        assert!(line.contains(" debug "), "{line}");
    }
}

/// However its bytes come, a message is one.
#[test]
fn a_first_message_may_come_in_pieces() {
    let stage = Stage::new(&[]);
    for kex in Kex::ALL {
        let mut peer = stage.pipe.receiver.connect();
        peer.set_nodelay(true).unwrap();
        let suite = Suite { kex, ..SUITE };
        let (initiator, message_1) = Initiator::start(suite, &stage.key(), &mut SysRng).unwrap();
        for piece in message_1.chunks(message_1.len() / 20) {
            peer.write_all(piece).unwrap();
            // Long enough that most pieces are read alone.
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut message_2 = vec![0; suite.message_2()];
        peer.read_exact(&mut message_2).unwrap();
        assert!(initiator.finish(&message_2).is_ok(), "{suite}");
    }
}

/// H5: whoever has more recordings than the replay set keeps is not answered for ever. The
/// answers of other addresses are their own.
#[test]
fn an_address_that_leaves_its_answers_unproved_gets_no_more_for_a_while() {
    let stage = Stage::new(&[]);
    let (key, receiver) = (stage.key(), &stage.pipe.receiver);
    let unproved = || {
        let mut peer = receiver.connect();
        let (_initiator, message_1) = Initiator::start(SUITE, &key, &mut SysRng).unwrap();
        peer.write_all(&message_1).unwrap();
        let mut message_2 = vec![0; SUITE.message_2()];
        peer.read_exact(&mut message_2).is_ok()
    };
    // Four at once leave more answers unproved than are forgiven meanwhile.
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while answered.load(Ordering::Relaxed) < 50_000 && unproved() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let answered = answered.into_inner();
    assert!((4096..50_000).contains(&answered), "{answered}");
    let line = stage.logged("reason=too-many-unproved");
    assert!(line.contains("its address has left too many answers unproved"), "{line}");
    let elsewhere = Daemon::sender(
        &stage.folder.shared_key(),
        receiver.address,
        &["-b", "127.0.0.2", "--kex", "x25519"],
    );
    round_trip(&mut elsewhere.connect(), b"from another address");
    // The budget comes back, and what is proved takes nothing of it.
    wait_until("the address is answered again", || {
        let mut client = stage.pipe.connect();
        client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
    });
    for _ in 0..50 {
        round_trip(&mut stage.pipe.connect(), b"proved");
    }
}

/// Both ends with options, before a target that counts its connections.
struct Stage {
    folder: Folder,
    target: Server,
    pipe: Pipe,
}

impl Stage {
    fn new(options: &[&str]) -> Self {
        let folder = Folder::new();
        let target = Server::echo();
        let pipe = Pipe::with(&folder, target.address, options);
        Self { folder, target, pipe }
    }

    /// The key of both ends.
    fn key(&self) -> SharedKey {
        key_of(&self.folder)
    }

    /// Gives both ends another key. Returns the old one.
    fn replace_key(&self) -> SharedKey {
        let old = self.key();
        fs::copy(self.folder.key("new.key"), self.folder.shared_key()).unwrap();
        for end in [&self.pipe.receiver, &self.pipe.sender] {
            end.signal("HUP");
            end.log.wait_for("keys reloaded");
        }
        old
    }

    /// The line about the stranger names the peer, the reason and a hint.
    fn logged(&self, reason: &str) -> String {
        let line = self.pipe.receiver.log.wait_for(reason);
        assert!(line.contains("warn") && line.contains("peer=127.0.0.1:"), "{line}");
        assert!(line.contains("hint="), "{line}");
        line
    }

    /// The stranger reached no target, and holders of the key still do.
    fn still_serves(&self) {
        assert_eq!(self.target.accepted(), 0, "a stranger reached the target");
        round_trip(&mut self.pipe.connect(), b"still there?");
        assert_eq!(self.target.accepted(), 1);
    }
}

/// Nothing is read beyond message 1 from a peer whose tag fits no key.
#[test]
fn a_stranger_is_not_listened_to_for_long() {
    let stage = Stage::new(&[]);
    let mut stranger = stage.pipe.receiver.connect();
    let mut sent = 0;
    while sent < 100_000_000 && stranger.write_all(&[3; 16_000]).is_ok() {
        sent += 16_000;
    }
    assert!(sent < 100_000_000, "it listens on");
    stage.still_serves();
}
