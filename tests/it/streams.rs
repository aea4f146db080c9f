//! The bytes that leave the pipe are the bytes that entered it, in both directions,
//! whichever side speaks first, however a stream ends, over every kind of socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::hop::Hop;
use crate::support::{
    Daemon, End, Folder, PATIENCE, Pipe, SPIPED, Server, noise, patient, read_to_end, reset,
    round_trip, say_urgently, signal, wait_until,
};
use sha2::{Digest, Sha256};

const MIB: usize = 1024 * 1024;

#[test]
fn a_server_that_speaks_first_is_heard() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"221 bye\r\n").unwrap();
    });
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    assert_eq!(read_to_end(&mut client), (b"221 bye\r\n".to_vec(), End::Clean));
}

/// The client ends its direction and then reads 64 MiB.
#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let answer = noise(1, 64 * MIB);
    let sent = answer.clone();
    let server = Server::start(move |mut stream| {
        let (question, end) = read_to_end(&mut stream);
        assert_eq!((question.as_slice(), end), (b"all of it?".as_slice(), End::Clean));
        stream.write_all(&sent).unwrap();
    });
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    client.write_all(b"all of it?").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The pause is long enough to lose a tunnel that forgot one direction.
    thread::sleep(Duration::from_millis(100));
    let (bytes, end) = read_to_end(&mut client);
    assert!(bytes == answer && end == End::Clean, "{} bytes, {end:?}", bytes.len());
}

/// The server ends its direction first; the client goes on sending.
#[test]
fn a_server_that_half_closes_still_hears_the_client() {
    let (reported, reports) = channel();
    let server = Server::start(move |mut stream| {
        stream.write_all(b"I am done").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reported.send(read_to_end(&mut stream)).unwrap();
    });
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    assert_eq!(read_to_end(&mut client), (b"I am done".to_vec(), End::Clean));
    client.write_all(&noise(2, MIB)).unwrap();
    drop(client);
    let (bytes, end) = reports.recv_timeout(PATIENCE).unwrap();
    assert!(bytes == noise(2, MIB) && end == End::Clean, "{} bytes, {end:?}", bytes.len());
}

/// Sends 1 GiB in each direction at once (`TEST_MIB` sets another size), and compares
/// checksums.
#[test]
fn a_gibibyte_each_way_at_once_arrives_unchanged() {
    let size = std::env::var("TEST_MIB").map_or(1024, |text| text.parse().unwrap()) * MIB;
    let (reported, reports) = channel();
    let server = Server::start(move |stream| reported.send(both_ways(stream, 3, size)).unwrap());
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let (client_got, client_sent) = both_ways(pipe.connect(), 4, size);
    let (server_got, server_sent) = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!((client_got, server_got), (server_sent, client_sent));
    assert_ne!(client_got, server_got);
    wait_until("both ends are done", || {
        [&pipe.sender, &pipe.receiver].iter().all(|end| end.log.count("reason=finished") == 1)
    });
    let line = pipe.sender.log.wait_for("reason=finished");
    assert!(line.contains(&format!("sent={size} received={size}")), "{line}");
}

#[test]
fn a_reset_goes_through_in_both_directions() {
    let folder = Folder::new();
    let (reported, reports) = channel();
    let server = Server::start(move |mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        match first {
            [b'r'] => reset(stream),
            _ => reported.send(read_to_end(&mut stream).1).unwrap(),
        }
    });
    let pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    client.write_all(b"r").unwrap();
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    let mut client = pipe.connect();
    client.write_all(b"x").unwrap();
    wait_until("the server is reached", || server.accepted() == 2);
    reset(client);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(End::Reset));
}

/// A client that resets after its END is still noticed on the other side.
#[test]
fn a_client_that_resets_after_half_closing_is_noticed() {
    let folder = Folder::new();
    let (reported, reports) = channel();
    let server = Server::start(move |mut stream| {
        assert_eq!(read_to_end(&mut stream).1, End::Clean);
        // Writes until the reset comes.
        while stream.write_all(b"still there?").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        reported.send(()).unwrap();
    });
    let pipe = Pipe::to(&folder, server.address);
    let client = pipe.connect();
    client.shutdown(Shutdown::Write).unwrap();
    wait_until("the server is reached", || server.accepted() == 1);
    reset(client);
    reports.recv_timeout(PATIENCE).unwrap();
}

/// A byte in between is urgent data (`MSG_OOB`): Linux ends a read before it.
#[test]
fn urgent_data_is_carried_in_its_place_and_holds_up_nothing() {
    let (accepted, at_server) = channel();
    let server = Server::start(move |stream| accepted.send(stream).unwrap());
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let client = pipe.connect();
    let far = at_server.recv_timeout(PATIENCE).unwrap();
    for (from, end, mut to) in [(&client, &pipe.sender, &far), (&far, &pipe.receiver, &client)] {
        // The stopped end finds all bytes at once.
        end.signal("STOP");
        say_urgently(from);
        end.signal("CONT");
        let mut heard = [0; 7];
        to.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"abcd!ef");
    }
}

#[test]
fn every_kind_of_socket_is_served() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();

    let six = TcpListener::bind("[::1]:0").unwrap();
    let six_address = six.local_addr().unwrap();
    thread::spawn(move || six.incoming().flatten().for_each(|stream| echo(patient(stream))));
    let unix = UnixListener::bind(folder.path("target.sock")).unwrap();
    thread::spawn(move || unix.incoming().flatten().for_each(echo_unix));

    // IPv6 target, unix tunnel, unix source.
    let (tunnel, source) = (path("tunnel.sock"), path("source.sock"));
    let six_address = six_address.to_string();
    let _receiver = Daemon::start(&["-d", "-s", &tunnel, "-t", &six_address, "-k", key]);
    let _sender = Daemon::start(&["-e", "-s", &source, "-t", &tunnel, "-k", key]);
    round_trip_unix(&source);

    // Unix target, IPv6 tunnel, a name as source and as target.
    let target = path("target.sock");
    let receiver = Daemon::start(&["-d", "-s", "[::1]:0", "-t", &target, "-k", key]);
    let tunnel = receiver.address.to_string();
    assert!(tunnel.starts_with("[::1]:"), "{tunnel}");
    let hop = Daemon::start(&["-e", "-s", "localhost:0", "-t", &tunnel, "-k", key]);
    round_trip(&mut hop.connect(), b"through all of them");
}

/// A stale socket is replaced, a live one is not, and the socket is removed at the end.
#[test]
fn the_source_socket_is_replaced_only_when_stale() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let source = folder.path("source.sock");
    let target = Server::echo();
    drop(UnixListener::bind(&source).unwrap());
    let arguments = ["-e", "-s", source.to_str().unwrap(), "-t", &target.address.to_string(), "-k"];
    let arguments = [&arguments[..], &[key.to_str().unwrap()]].concat();

    let mut running = Daemon::start(&arguments);
    let second = std::process::Command::new(SPIPED).arg("-F").args(&arguments).output().unwrap();
    assert_eq!(second.status.code(), Some(69));
    assert!(UnixStream::connect(&source).is_ok(), "the live socket is gone");
    running.signal("TERM");
    assert!(running.wait().success());
    assert!(!source.exists());

    // A file that is not a socket is never removed.
    std::fs::write(&source, "a file").unwrap();
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o600)).unwrap();
    let refused = std::process::Command::new(SPIPED).arg("-F").args(&arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(69));
    assert_eq!(std::fs::read(&source).unwrap(), b"a file");
}

/// The wire shows nothing of the bytes that are sent, only their number.
#[test]
fn nothing_readable_crosses_the_wire() {
    let folder = Folder::new();
    let server = Server::echo();
    for cipher in ["aes-256-gcm", "chacha20-poly1305"] {
        let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
        let hop = Hop::recording(receiver.address);
        let sender = Daemon::sender(&folder.shared_key(), hop.address, &["--cipher", cipher]);
        let secret = "the balance of account 4711 is 1,000,000".repeat(1000);
        let mut client = sender.connect();
        round_trip(&mut client, secret.as_bytes());
        drop(client);
        wait_until("it is all over", || sender.log.count("reason=finished") == 1);
        for way in <[Vec<u8>; 2]>::from(hop.recorded()) {
            assert!(way.len() > secret.len() && way.len() < secret.len() + 2500, "{}", way.len());
            assert!(
                !way.windows(8)
                    .any(|window| secret.as_bytes()[..100].windows(8).any(|s| s == window))
            );
            let mut counts = [0_usize; 256];
            for byte in &way {
                counts[usize::from(*byte)] += 1;
            }
            let expected = way.len() / 256;
            assert!(counts.iter().all(|count| (expected / 2..expected * 2).contains(count)));
        }
    }
}

/// With --pad, records of different data have the same length.
#[test]
fn padded_records_hide_their_length() {
    let folder = Folder::new();
    let server = Server::echo();
    for pad in [64, 512, 16_384] {
        let pad_text = pad.to_string();
        let receiver =
            Daemon::receiver(&folder.shared_key(), server.address, &["--pad", &pad_text]);
        let lengths = std::sync::Arc::<std::sync::Mutex<Vec<usize>>>::default();
        let seen = lengths.clone();
        let hop = Hop::tampering(receiver.address, move |_| {
            let seen = seen.clone();
            Box::new(move |unit| {
                seen.lock().unwrap().push(unit.bytes.len());
                vec![crate::support::hop::Act::Forward(unit.bytes)]
            })
        });
        let sender = Daemon::sender(&folder.shared_key(), hop.address, &["--pad", &pad_text]);
        let mut client = sender.connect();
        for size in [1, 2, 40] {
            round_trip(&mut client, &noise(5, size));
        }
        round_trip(&mut client, &noise(6, 300_000));
        drop(client);
        wait_until("it is all over", || sender.log.count("reason=finished") == 1);
        let lengths = lengths.lock().unwrap();
        // Apart from messages (1257, 1152) and OPEN, OPENED, END (19), all records are
        // padded.
        let padded: Vec<_> =
            lengths.iter().filter(|length| ![1257, 1152, 19].contains(length)).collect();
        assert!(padded.len() >= 6);
        assert!(padded.iter().all(|length| (**length - 18) % pad == 0), "{padded:?}");
    }
}

/// The target stops: the client has to wait, and memory does not grow.
#[test]
fn a_target_that_stops_reading_does_not_grow_memory() {
    let folder = Folder::new();
    let server = Server::start(|stream| {
        thread::sleep(Duration::from_mins(1));
        drop(stream);
    });
    let pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    client.write_all(&[0; 1]).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(count) = client.write(&[0; 16_000]) {
        sent += count;
        assert!(sent < 200 * MIB, "it never waits");
    }
    for end in [&pipe.sender, &pipe.receiver] {
        assert!(end.resident_kib() < 30 * 1024, "{} KiB", end.resident_kib());
    }
}

/// TERM tells the other end, resets the client, and ends with success.
#[test]
fn a_signal_ends_the_daemon_and_tells_its_peers() {
    let folder = Folder::new();
    let server = Server::echo();
    for name in ["TERM", "INT"] {
        let mut pipe = Pipe::to(&folder, server.address);
        let mut client = pipe.connect();
        round_trip(&mut client, b"before");
        pipe.receiver.signal(name);
        assert!(pipe.receiver.wait().success());
        assert_eq!(read_to_end(&mut client).1, End::Reset);
        pipe.sender.log.wait_for("reason=aborted-shutting-down");
        assert!(pipe.sender.is_running());
    }
}

/// The other end is killed: the client is reset, and the log says truncated.
#[test]
fn a_peer_that_is_killed_is_a_truncation() {
    let folder = Folder::new();
    let server = Server::echo();
    let mut pipe = Pipe::to(&folder, server.address);
    let mut client = pipe.connect();
    round_trip(&mut client, b"before");
    signal(&pipe.receiver.child, "KILL");
    pipe.receiver.wait();
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    pipe.sender.log.wait_for("reason=tunnel-failed");
}

/// This end is killed: its own peer is reset, too, and takes nothing for complete.
#[test]
fn a_killed_end_is_no_clean_end_for_its_local_peer() {
    let (reported, reports) = channel();
    let server = Server::start(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        reported.send(read_to_end(&mut stream)).unwrap();
    });
    let folder = Folder::new();
    for is_sender in [true, false] {
        let pipe = Pipe::to(&folder, server.address);
        let mut client = pipe.connect();
        client.read_exact(&mut [0; 5]).unwrap();
        let killed = if is_sender { &pipe.sender } else { &pipe.receiver };
        signal(&killed.child, "KILL");
        assert_eq!(read_to_end(&mut client).1, End::Reset, "sender: {is_sender}");
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap().1, End::Reset, "sender: {is_sender}");
    }
}

/// A server that refuses sends its reason and closes, without having read everything.
#[test]
fn the_last_words_of_a_server_that_closes_early_arrive() {
    let server = Server::start(|mut stream| {
        // The server reads only once, so some bytes are never read.
        let _some = stream.read(&mut [0; 10]);
        stream.write_all(b"-ERR max number of clients reached\r\n").unwrap();
    });
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, server.address);
    let mut heard = 0;
    for _ in 0..50 {
        let mut client = pipe.connect();
        let writing = client.try_clone().unwrap();
        let writer = thread::spawn(move || {
            let mut writing = writing;
            // The client writes until it is told to stop.
            while writing.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let mut words = [0; 36];
        heard += usize::from(client.read_exact(&mut words).is_ok() && words.starts_with(b"-ERR"));
        drop(client.shutdown(Shutdown::Both));
        writer.join().unwrap();
    }
    println!("the last words of {heard} of 50 servers were heard");
    assert!(heard >= 40, "{heard} of 50");
}

/// One flow that never stops leaves other flows of its thread their turn.
#[test]
fn a_fast_flow_does_not_hold_up_the_others_of_its_thread() {
    let server = Server::start(|mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        if first == [b'e'] {
            let _ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        } else {
            let mut buffer = vec![0; MIB];
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
    let folder = Folder::new();
    let pipe = Pipe::with(&folder, server.address, &["--threads", "1"]);
    let mut fast = pipe.connect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fast.write_all(&vec![b'f'; MIB]).unwrap();
            }
        });
        let mut client = pipe.connect();
        client.write_all(b"e").unwrap();
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let started = std::time::Instant::now();
                round_trip(&mut client, b"ping");
                started.elapsed()
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        times.sort();
        println!(
            "round trips beside a fast flow: median {:?}, longest {:?}",
            times[100], times[199]
        );
        // The time was 45 ms before flows took turns.
        assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
    });
}

/// A standard error that nobody reads any more must not end anything.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let folder = Folder::new();
    let server = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>/dev/full", "sh", SPIPED, "-F", "-e"]);
    let source = folder.path("source.sock");
    command.args(["-s", source.to_str().unwrap(), "-t", &receiver.address.to_string(), "-k"]);
    let mut child = command.arg(folder.shared_key()).spawn().unwrap();
    wait_until("it listens", || UnixStream::connect(&source).is_ok());
    round_trip_unix(source.to_str().unwrap());
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn many_connections_at_once_keep_their_streams_apart() {
    let folder = Folder::new();
    let server = Server::echo();
    let pipe = Pipe::with(&folder, server.address, &["--threads", "3"]);
    thread::scope(|scope| {
        for number in 0..100 {
            let pipe = &pipe;
            scope.spawn(move || {
                let mut client = pipe.connect();
                for turn in 0..20 {
                    round_trip(&mut client, &noise(number * 100 + turn, 5_000));
                }
            });
        }
    });
    assert_eq!(server.accepted(), 100);
}

/// Sends `size` bytes of noise and reads to the end, both at once; returns the checksums
/// of what came and of what was sent.
fn both_ways(stream: TcpStream, seed: u64, size: usize) -> ([u8; 32], [u8; 32]) {
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let mut sum = Sha256::new();
        for piece in pieces(seed, size) {
            sum.update(&piece);
            writing.write_all(&piece).unwrap();
        }
        writing.shutdown(Shutdown::Write).unwrap();
        <[u8; 32]>::from(sum.finalize())
    });
    let mut reading = stream;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; MIB];
    let mut total = 0;
    loop {
        let count = reading.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        total += count;
        sum.update(&buffer[..count]);
    }
    assert_eq!(total, size);
    (sum.finalize().into(), writer.join().unwrap())
}

/// `size` bytes in pieces: two MiB of noise, again and again, shifted each time.
fn pieces(seed: u64, size: usize) -> impl Iterator<Item = Vec<u8>> {
    let base = noise(seed, 2 * MIB);
    (0..size.div_ceil(MIB)).map(move |number| {
        let start = number * 4099 % MIB;
        base[start..start + MIB.min(size - number * MIB)].to_vec()
    })
}

fn echo(stream: TcpStream) {
    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
    let _gone = std::io::copy(&mut from, &mut to);
}

fn echo_unix(stream: UnixStream) {
    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
    let _gone = std::io::copy(&mut from, &mut to);
}

fn round_trip_unix(path: &str) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = noise(7, 100_000);
    let mut writing = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || writing.write_all(&sent).unwrap());
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == bytes);
}
