//! A receiver with a thousand keys, and strangers who send whole first messages.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::rngs::SysRng;
use socket2::{Domain, Socket, Type};
use spiped::protocol::{Initiator, KEY_SECRETS, SharedKey, Suite};

use crate::support::{
    Daemon, End, EndWhenDropped, Folder, Server, noise, patient, read_to_end, round_trip,
    wait_until,
};

/// The most that a receiver may have.
const KEYS: u64 = 1000;
/// The keys of the clients: the first, one in the midst, and the last.
const CLIENTS: [u64; 3] = [0, 500, 999];
/// How many connections each client makes.
const EACH: usize = 30;
/// How many strangers of each kind come at least.
const STRANGERS: usize = 100;

/// Each client is served, and each stranger refused for what it is: what comes from strangers
/// takes nothing from clients.
#[test]
fn clients_of_a_thousand_keys_are_served_beside_hostile_first_messages() {
    let folder = Folder::new();
    fs::create_dir(folder.path("keys")).unwrap();
    let file = |number: u64| folder.path(&format!("keys/client-{number}.key"));
    for number in 0..KEYS {
        fs::write(file(number), noise(number, 32)).unwrap();
        fs::set_permissions(file(number), Permissions::from_mode(0o600)).unwrap();
    }
    let target = Server::echo();
    let mut receiver = Daemon::receiver(&folder.path("keys"), target.address, &[]);
    let to = receiver.address;
    let senders = CLIENTS.map(|number| {
        // An address of its own, as another host has.
        let from = format!("127.0.3.{}", number % 250);
        Daemon::sender(&file(number), to, &["-b", &from])
    });

    let other = key(&[0; 32]);
    let right = key(&noise(CLIENTS[1], 32));
    let random =
        Suite::ALL.map(|suite| [&[suite.byte()], &*noise(KEYS, suite.message_1() - 1)].concat());
    let wrong = Suite::ALL.map(|suite| Initiator::start(suite, &other, &mut SysRng).unwrap().1);
    let recorded = Suite::ALL.map(|suite| record(to, suite, &right));
    let is_over = AtomicBool::new(false);
    let strangers: usize = thread::scope(|scope| {
        let _end = EndWhenDropped(&is_over);
        let strangers: Vec<_> = [(1, random), (2, wrong), (3, recorded)]
            .map(|(kind, messages)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut count = 0;
                    while count < STRANGERS || !is_over.load(Ordering::Relaxed) {
                        let from = Ipv4Addr::new(127, 1, kind, u8::try_from(count % 250).unwrap());
                        refused(from, to, &messages[count % messages.len()]);
                        count += 1;
                    }
                    count
                })
            })
            .into();
        for _ in 0..EACH {
            for sender in &senders {
                round_trip(&mut sender.connect(), b"let me in");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        strangers.into_iter().map(|kind| kind.join().unwrap()).sum()
    });
    assert_eq!(target.accepted(), CLIENTS.len() * EACH, "a stranger reached the target");

    receiver.signal("TERM");
    assert!(receiver.wait().success());
    let all = strangers + Suite::ALL.len();
    wait_until("each stranger is logged, or counted", || told(&receiver) == all);
    for reason in ["wrong-key", "replay"] {
        assert!(receiver.log.count(&format!("reason={reason} ")) > 0, "{reason}");
    }
    for sender in &senders {
        assert_eq!(sender.log.count(" warn "), 0);
    }
}

/// How many strangers the lines of the log tell of; nobody else is warned of.
fn told(receiver: &Daemon) -> usize {
    let lines = receiver.log.all();
    let warnings = lines.iter().filter(|line| line.contains(" warn "));
    let told = warnings.map(|line| {
        // Those whose messages are recorded give up.
        let of_strangers =
            ["reason=wrong-key", "reason=replay", "reason=gave-up", "further log lines"];
        assert!(of_strangers.iter().any(|part| line.contains(part)), "{line}");
        let suppressed = line.split(" suppressed=").nth(1).and_then(|rest| rest.split(' ').next());
        let suppressed = suppressed.map_or(0, |count| count.parse().unwrap());
        suppressed + usize::from(line.contains(" reason="))
    });
    told.sum()
}

fn key(content: &[u8]) -> SharedKey {
    SharedKey::from_key_file(content, Box::new([0; KEY_SECRETS])).unwrap()
}

/// A first message that a holder of the key has sent, and that was answered.
fn record(to: SocketAddr, suite: Suite, key: &SharedKey) -> Vec<u8> {
    let mut peer = connect(Ipv4Addr::LOCALHOST, to);
    let (initiator, message_1) = Initiator::start(suite, key, &mut SysRng).unwrap();
    peer.write_all(&message_1).unwrap();
    let mut message_2 = vec![0; suite.message_2()];
    peer.read_exact(&mut message_2).unwrap();
    assert!(initiator.finish(&message_2).is_ok());
    message_1
}

/// Sends the message, and gets no answer.
fn refused(from: Ipv4Addr, to: SocketAddr, message: &[u8]) {
    let mut stranger = connect(from, to);
    stranger.write_all(message).unwrap();
    assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    patient(socket.into())
}
