//! Wrong or missing input gets one clear line, a hint and the right exit code; a
//! connection that cannot be made is reset at once, and the daemon goes on.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Daemon, End, Folder, Pipe, SPIPED, Server, nobody, read_to_end, round_trip, wait_until,
    with_input, write_and_read_to_end,
};

#[test]
fn an_option_of_the_other_end_is_told_with_its_end() {
    for (end, option, hint) in [
        ("-e", "--per-key", "the other one is for a receiver (-d)"),
        ("-d", "--prewarm", "the other one is for a sender (-e)"),
    ] {
        let words = [end, option, "1", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k", "key"];
        let output = Command::new(SPIPED).args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let wrong = format!("spiped: {end} and {option} exclude each other\nhint: {hint}\n");
        assert_eq!((output.status.code(), said), (Some(64), wrong));
    }
}

#[test]
fn a_key_that_is_named_twice_is_refused() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let output =
        spiped(&["-d", "-F", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k", key, "-k", key]);
    refused(&output, 64, "is named twice");
}

#[test]
fn command_lines_that_cannot_be_are_named() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let (s, t) = ("127.0.0.1:0", "127.0.0.1:1");
    let cases: [(&[&str], &str); 42] = [
        (&[], "neither -e nor -d is given"),
        (&["-s", s, "-t", t, "-k", key], "neither -e nor -d is given"),
        (&["-e", "-d", "-s", s, "-t", t, "-k", key], "-e and -d exclude each other"),
        (&["-e", "-t", t, "-k", key], "-s is not given"),
        (&["-e", "-s", s, "-k", key], "-t is not given"),
        (&["-e", "-s", s, "-t", t], "-k is not given"),
        (&["-e", "-s", "x", "-t", t, "-k", key], "-s: 'x' has no port"),
        (&["-e", "-s", ":1", "-t", t, "-k", key], "-s: ':1' has no host"),
        (&["-e", "-s", s, "-t", "::1", "-k", key], "-t: '::1' is an IPv6 address without"),
        (&["-e", "-s", s, "-t", "x:0", "-k", key], "-t: port 0 cannot be connected to"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-n", "x"], "-n: 'x' is not a number"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-o", "0"], "-o: '0' is not a time"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--timeout", "0"], "--timeout: '0' is not a time"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--timeout=0"], "--timeout: '0' is not a time"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-q", "--verbose"], "-q and --verbose exclude each"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--cipher", "rot13"], "--cipher: 'rot13'"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--kex", "kyber"], "--kex: 'kyber' is not a key"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--pad", "1"], "--pad: '1'"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-f"], "-f is refused: every handshake has forward"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-r9", "-R"], "-r and -R exclude each other"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--prewarm", "1001"], "--prewarm: '1001' is not a"),
        (&["-d", "-s", s, "-t", t, "-k", key, "--prewarm", "1"], "-d and --prewarm exclude"),
        (&["-d", "-s", s, "-t", t, "-k", key, "--tell-client"], "-d and --tell-client exclude"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--proxy-protocol"], "-e and --proxy-protocol excl"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--proxy-protocol-address"], "-e and --proxy-proto"),
        (
            &["-d", "-s", s, "-t", t, "-k", key, "--proxy-protocol", "--proxy-protocol-address"],
            "--proxy-protocol and --proxy-protocol-address exclude",
        ),
        (&["-e", "-s", s, "-t", t, "-k", key, "-u", "a:"], "-u: 'a:' is none of user, :group"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-b", "x"], "-b: 'x' is no IP address"),
        (&["-e", "-s", s, "-t", t, "-k", key, "--nonsense"], "unexpected argument '--nonsense'"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-o", "-1"], "-o: '-1' is not a time in seconds"),
        (&["-e", "-s", s, "-t", t, "-k", key, "-n", "-1"], "-n: '-1' is not a number"),
        (&["-e", "-s", "*:1", "-t", t, "-k", key], "-s: '*:1' has no host before the port"),
        (
            &["-e", "-s", s, "-t", "tcp:x:1", "-k", key],
            "-t: an address has no 'tcp:' before it: write x:1",
        ),
        (
            &["-e", "-s", s, "-t", "redis://:pw@x:1/0", "-k", key],
            "no 'redis://' before it: write x:1",
        ),
        (&["-e", "-s", s, "-t", t, "-k", key, "--log", "trace"], "--log: 'trace' is not a level"),
        (&["-e", "-s"], "-s: no value follows it"),
        (&["-e", "-s", s, "--target"], "--target: no value follows it"),
        (&["-d", "-s", s, "-t", "/x", "-k", key, "--control", "/x"], "--control: -t is /x, too"),
        (&["-d", "-s", "/x", "-t", t, "-k", key, "--control", "/x"], "--control: -s is /x, too"),
        (&["setup", "send", "x", "-k"], "a value is required for '--key <FILE>'"),
        (&["keygen", "-"], "PATH: a key is written to a file only, and '-' is none"),
        (&["keygen"], "required arguments were not provided: <PATH>"),
    ];
    for (arguments, reason) in cases {
        refused(&spiped(arguments), 64, reason);
    }
}

/// The error names the nearest option, command or variable.
#[test]
fn a_mistyped_word_is_reported_with_the_nearest_one() {
    for (typed, meant) in [("--chipher", "--cipher"), ("keygne", "keygen")] {
        let output = spiped(&[typed, "x"]);
        refused(&output, 64, typed);
        assert!(text(&output).contains(&format!("hint: did you mean '{meant}'?")), "{output:?}");
    }

    let folder = Folder::new();
    let key = folder.shared_key();
    let command = || {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]).arg(&key);
        command.env("SPIPED_CIPHR", "auto").env("SPIPED_UNIT", "");
        command
    };
    let reason = "SPIPED_CIPHR is no variable of spiped";
    let hint = "did you mean SPIPED_CIPHER? '--help' lists the options";
    let daemon = Daemon::spawn(command());
    daemon.log.wait_for(&format!("warn {reason} hint=\"{hint}\""));
    // In a unit, a wrong variable stops the start.
    let in_unit = command().env("SPIPED_UNIT", "spiped-receive@x.service").output().unwrap();
    refused(&in_unit, 64, reason);
    assert!(text(&in_unit).ends_with(&format!("\nhint: {hint}\n")), "{in_unit:?}");

    let mut spipe = Command::new(folder.spipe());
    spipe.args(["-t", "127.0.0.1:1", "-k"]).arg(&key).env("SPIPED_TARGTE", "x");
    let said = text(&spipe.stdin(Stdio::null()).output().unwrap());
    let told = "spipe: SPIPED_TARGTE is no variable of spiped\nhint: did you mean SPIPED_TARGET?";
    assert!(said.starts_with(told), "{said}");
}

/// This includes errors that only the running daemon can see.
#[test]
fn a_message_names_what_the_operator_wrote() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let port = nobody().port();
    let (source, target) = (format!("127.0.0.1:{port}"), nobody().to_string());
    let daemon = |variables: &[(&str, &str)]| {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d"]).env("SPIPED_KEY", &key).env("SPIPED_SOURCE", &source);
        command.env("SPIPED_TARGET", &target).envs(variables.iter().copied());
        command
    };
    let at_port = format!("localhost:{port}");
    let cases = [
        ("SPIPED_KEY", "/none", 66, "SPIPED_KEY: cannot read the key file /none"),
        ("SPIPED_USER", "nobody-here", 67, "SPIPED_USER: there is no user 'nobody-here'"),
        ("SPIPED_TARGET", &at_port, 64, "SPIPED_TARGET: localhost"),
        ("SPIPED_TARGET", "x", 64, "SPIPED_TARGET: 'x' has no port"),
    ];
    for (variable, value, code, reason) in cases {
        let mut command = daemon(&[(variable, value)]);
        if value == at_port {
            // The addresses are known only once the source is bound.
            command.env("SPIPED_SOURCE", &at_port);
        }
        refused(&command.output().unwrap(), code, reason);
    }
    // Only binding the source shows this.
    let everywhere =
        [("SPIPED_SOURCE", format!("0.0.0.0:{port}")), ("SPIPED_TARGET", source.clone())];
    let everywhere = everywhere.each_ref().map(|(name, value)| (*name, value.as_str()));
    refused(&daemon(&everywhere).output().unwrap(), 64, "SPIPED_TARGET: [127.0.0.1]:");

    let receiver = Daemon::spawn(daemon(&[]));
    let sender = Daemon::sender(&key, receiver.address, &[]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    let line = receiver.log.wait_for("target refused the connection");
    assert!(line.contains("does it listen on the address in SPIPED_TARGET?"), "{line}");
}

/// Nobody must mistake this for an encrypted connection.
#[test]
fn plaintext_that_leaves_the_host_is_warned_of() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.to_str().unwrap();
    let start = |role: &str, source: &str, target: &str| {
        let more = ["-s", source, "-t", target, "-k", key];
        Daemon::start(&[&[role], more.as_slice()].concat())
    };
    let path = folder.path("source.sock");
    let path = path.to_str().unwrap();
    let open = start("-e", "0.0.0.0:0", "192.0.2.1:1");
    let line = open.log.wait_for("other hosts can connect to [0.0.0.0]:");
    assert!(line.contains("warn") && line.contains("hint=\"whoever reaches it"), "{line}");
    for target in ["192.0.2.1:1", "db.example:1"] {
        let away = start("-d", "127.0.0.1:0", target);
        let line = away.log.wait_for("plaintext goes to ");
        assert!(line.contains("which is not known to be this host hint=\"run the"), "{line}");
    }
    let well = [
        start("-e", "127.0.0.1:0", "192.0.2.1:1"),
        start("-d", "0.0.0.0:0", "127.0.0.1:1"),
        start("-d", "127.0.0.1:0", "localhost:1"),
        start("-d", "[::1]:0", "[::ffff:127.0.0.1]:1"),
        start("-d", "127.0.0.1:0", path),
    ];
    for mut daemon in well {
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        daemon.log.wait_for("TERM received");
        assert_eq!(daemon.log.count("warn"), 0, "{:?}", daemon.log.all());
    }
}

#[test]
fn keys_that_are_no_keys_are_refused() {
    let folder = Folder::new();
    let write = |name: &str, length: usize, mode: u32| {
        let path = folder.path(name);
        fs::write(&path, vec![7; length]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    fs::create_dir(folder.path("keys")).unwrap();
    let cases = [
        (folder.path("none"), 66, "cannot read the key file"),
        (folder.path("keys"), 66, "no key is in the folder"),
        (write("empty", 0, 0o600), 65, "the key has 0 bytes, fewer than 32"),
        (write("short", 31, 0o600), 65, "the key has 31 bytes, fewer than 32"),
        (write("long", 65_537, 0o600), 65, "the key has more than 65536 bytes"),
        (write("open", 32, 0o644), 77, "is open to others (mode 0644)"),
    ];
    for (path, code, reason) in cases {
        let path = path.to_str().unwrap();
        refused(&spiped(&["keyid", path]), code, reason);
        let daemon = ["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k", path];
        refused(&spiped(&daemon), code, reason);
    }
}

#[test]
fn a_key_is_made_once_and_its_id_shown() {
    let folder = Folder::new();
    let path = folder.path("new.key");
    let path = path.to_str().unwrap();
    let made = spiped(&["keygen", path]);
    let id = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success() && made.stderr.is_empty());
    assert_eq!(id.trim_end().split('-').map(str::len).collect::<Vec<_>>(), [4; 4], "{id}");
    assert_eq!(String::from_utf8(spiped(&["keyid", path]).stdout).unwrap(), id);

    let before = fs::read(path).unwrap();
    refused(&spiped(&["keygen", path]), 73, "exists and is not overwritten");
    assert_eq!(fs::read(path).unwrap(), before);
    refused(&spiped(&["keygen", "/nonexistent/x.key"]), 73, "cannot make the key file");
}

/// Standard input and a file give the same key.
#[test]
fn a_key_can_come_by_standard_input() {
    let folder = Folder::new();
    let key = fs::read(folder.shared_key()).unwrap();
    let given =
        |arguments: &[&str], input: &[u8]| with_input(Command::new(SPIPED).args(arguments), input);
    let id = spiped(&["keyid", folder.shared_key().to_str().unwrap()]).stdout;
    assert_eq!(given(&["keyid", "-"], &key).stdout, id);
    refused(&given(&["keyid", "-"], &key[..31]), 65, "fewer than 32");

    // A daemon with its key from standard input talks to one that read the file.
    let target = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    let mut command = Command::new("sh");
    command.arg("-c").arg("exec \"$0\" \"$@\" < \"$KEY\"").env("KEY", folder.shared_key());
    command.args([SPIPED, "-F", "-e", "-s", "127.0.0.1:0", "-t", &receiver.address.to_string()]);
    command.args(["-k", "-"]);
    let sender = Daemon::spawn(command);
    round_trip(&mut sender.connect(), b"by standard input");
}

#[test]
fn a_source_that_is_taken_is_named() {
    let folder = Folder::new();
    let running = Daemon::receiver(&folder.shared_key(), nobody(), &[]);
    let key = folder.shared_key();
    let source = running.address.to_string();
    let again = ["-F", "-d", "-s", &source, "-t", "127.0.0.1:1", "-k", key.to_str().unwrap()];
    let output = spiped(&again);
    refused(&output, 69, "cannot listen on");
    assert!(text(&output).contains("something listens there"), "{}", text(&output));

    let unresolvable = ["-F", "-d", "-s", "no.such.name.invalid:1", "-t", "127.0.0.1:1", "-k"];
    let output = spiped(&[&unresolvable[..], &[key.to_str().unwrap()]].concat());
    refused(&output, 69, "cannot listen on no.such.name.invalid:1");
    assert!(text(&output).contains("hint: check the name after -s"), "{}", text(&output));
}

#[test]
fn too_little_memory_for_threads_is_named() {
    let folder = Folder::new();
    let starts = |kib: u32| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v $0; exec \"$@\"", &kib.to_string(), SPIPED, "-F", "-d"]);
        shell.args(["-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "--threads", "1024", "-k"]);
        shell.arg(folder.shared_key()).output().unwrap()
    };
    // Each thread has a stack of 2 MiB.
    let output = starts(1 << 20);
    refused(&output, 71, "cannot start a thread");
    assert!(text(&output).contains("or of memory (ulimit -v)"), "{}", text(&output));
}

#[test]
fn version_and_help_are_no_errors() {
    for option in ["-v", "--version"] {
        let output = spiped(&[option]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("spiped "));
    }
    let output = spiped(&["--help"]);
    assert!(output.status.success() && output.stdout.len() > 500);
}

/// The receiver's target is down: the client is reset within 100 ms, and the sender's log
/// has the reason that the receiver gave.
#[test]
fn a_target_that_is_down_resets_the_client_at_once() {
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, nobody());
    // The first connection includes the cost of starting up.
    assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
    let best = (0..5).map(|_| {
        let started = Instant::now();
        let mut client = pipe.connect();
        assert_eq!(write_and_read_to_end(&mut client, b"PING\r\n"), (vec![], End::Reset));
        started.elapsed()
    });
    let best = best.min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
    let told = [
        (&pipe.receiver, "warn target refused the connection hint=\"is the server running"),
        (&pipe.sender, "warn the server behind the receiver refused the connection hint=\"start"),
    ];
    for (end, said) in told {
        let line = end.log.wait_for(said);
        assert!(line.contains("peer=") && !line.contains("address="), "{line}");
    }
}

/// A target that is down and clients that retry for ever do not fill the log: it has at
/// most 20 lines a second, and the next line counts the suppressed ones.
#[test]
fn repeated_failures_are_counted_and_not_all_logged() {
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, nobody());
    let started = Instant::now();
    for _ in 0..200 {
        read_to_end(&mut pipe.connect());
    }
    let most = 20 * (2 + usize::try_from(started.elapsed().as_secs()).unwrap());
    for end in [&pipe.sender, &pipe.receiver] {
        let lines = end.log.count("refused the connection hint=");
        assert!((1..=most).contains(&lines), "{lines} lines");
    }
    wait_until("a line that counts the others", || {
        read_to_end(&mut pipe.connect());
        pipe.sender.log.count("suppressed=") > 0 && pipe.receiver.log.count("suppressed=") > 0
    });
}

#[test]
fn a_target_that_does_not_resolve_is_named() {
    let folder = Folder::new();
    let pipe = Pipe::to(&folder, "no.such.name.invalid:6379");
    assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
    let line = pipe.receiver.log.wait_for("the name no.such.name.invalid does not resolve");
    assert!(line.contains("hint=\"check the name after -t"), "{line}");
    pipe.sender.log.wait_for("the server behind the receiver cannot be reached");
    assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
}

#[test]
fn a_receiver_that_is_down_resets_the_client_at_once() {
    let folder = Folder::new();
    let sender = Daemon::sender(&folder.shared_key(), nobody(), &[]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    let line = sender.log.wait_for("cannot reach the receiver: target refused the connection");
    assert!(line.contains("is 'spiped -d' running there"), "{line}");
    // The key is known from the start, the cipher is not.
    assert!(line.contains(" key_id=") && !line.contains(" kex="), "{line}");
}

/// A connect without an answer ends at the deadline. The kernel answers no further
/// connect once a backlog is full.
#[test]
fn a_target_that_does_not_answer_is_given_up_in_time() {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _fills_the_backlog = std::net::TcpStream::connect(address).unwrap();

    let folder = Folder::new();
    let pipe = Pipe::with(&folder, address, &["-o", "0.5"]);
    assert_eq!(read_to_end(&mut pipe.connect()), (vec![], End::Reset));
    let line = pipe.receiver.log.wait_for("target did not answer in 500ms");
    assert!(line.contains("hint=\"is that host up"), "{line}");
    let line = pipe.sender.log.wait_for("the server behind the receiver did not answer in time");
    assert!(line.contains("hint=\"that server hangs, or a firewall"), "{line}");
}

#[test]
fn a_key_with_a_wrong_byte_is_named_on_both_sides() {
    let folder = Folder::new();
    let mut bytes = fs::read(folder.shared_key()).unwrap();
    bytes[31] ^= 1;
    let other = folder.path("other.key");
    fs::copy(folder.shared_key(), &other).unwrap();
    fs::write(&other, bytes).unwrap();
    let target = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    let sender = Daemon::sender(&other, receiver.address, &[]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    let line = receiver.log.wait_for("reason=wrong-key");
    assert!(line.contains("peer=127.0.0.1:") && line.contains("compare 'spiped keyid"), "{line}");
    let line = sender.log.wait_for("in the handshake");
    assert!(line.contains("usually the keys differ"), "{line}");
    assert_eq!(target.accepted(), 0);
}

#[test]
fn both_ends_started_as_senders_are_noticed() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let second = Daemon::sender(&key, target.address, &["-o", "0.5"]);
    let first = Daemon::sender(&key, second.address, &["-o", "0.5"]);
    assert_eq!(read_to_end(&mut first.connect()), (vec![], End::Reset));
    // The echo sends the second sender its own message back; the first sender gets
    // nothing.
    let line = second.log.wait_for("warn");
    assert!(line.contains("receiver") && line.contains("hint="), "{line}");
    let line = first.log.wait_for("warn");
    assert!(line.contains("hint="), "{line}");
}

#[test]
fn both_ends_started_as_receivers_are_noticed() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let server_side = Daemon::receiver(&key, target.address, &[]);
    let client_side = Daemon::receiver(&key, server_side.address, &[]);
    let mut client = client_side.connect();
    client.write_all(b"PING\r\n").unwrap();
    assert_eq!(read_to_end(&mut client), (vec![], End::Reset));
    client_side.log.wait_for("looks like plaintext redis");
    assert_eq!(target.accepted(), 0);
}

/// The sender's -t names the server itself instead of a receiver.
#[test]
fn a_sender_that_points_at_the_server_itself_is_told() {
    let folder = Folder::new();
    let server = Server::start(|mut stream| {
        let _gone = stream.write_all(b"-ERR unknown command\r\n");
        read_to_end(&mut stream);
    });
    let sender = Daemon::sender(&folder.shared_key(), server.address, &["-o", "0.5"]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    let line = sender.log.wait_for("the answer is not our protocol, looks like plaintext redis");
    assert!(line.contains("-t must name a receiver"), "{line}");
}

#[test]
fn at_the_limit_connections_are_refused_and_served_again_after() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, target.address, &["-n", "1"]);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let mut first = sender.connect();
    round_trip(&mut first, b"first");
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
    receiver.log.wait_for("the connection limit of 1 is reached");
    sender.log.wait_for("the receiver has reached its connection limit");
    drop(first);
    wait_until("the place is free again", || {
        let mut next = sender.connect();
        next.write_all(b"x").is_ok()
            && std::io::Read::read(&mut next, &mut [0]).is_ok_and(|n| n == 1)
    });
}

#[test]
fn ciphers_and_exchanges_that_differ_are_named() {
    let folder = Folder::new();
    let target = Server::echo();
    let key = folder.shared_key();
    let cases = [
        ("--cipher", "chacha20-poly1305", "aes-256-gcm", "the cipher aes-256-gcm is not accepted"),
        ("--kex", "x25519mlkem768", "x25519", "the key exchange x25519 is not accepted here"),
        ("--kex", "x25519", "auto", "the key exchange x25519mlkem768 is not accepted here"),
    ];
    for (option, accepted, other, line) in cases {
        let receiver = Daemon::receiver(&key, target.address, &[option, accepted]);
        let sender = Daemon::sender(&key, receiver.address, &[option, other]);
        assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
        let line = receiver.log.wait_for(line);
        assert!(line.contains("-refused") && line.contains(option), "{line}");
        // H6: the sender tries nothing else by itself.
        sender.log.wait_for("reason=handshake-");
        assert_eq!(receiver.log.count("-refused "), 1);
        let sender = Daemon::sender(&key, receiver.address, &[option, accepted]);
        round_trip(&mut sender.connect(), b"this one is");
    }
}

fn spiped(arguments: &[&str]) -> Output {
    Command::new(SPIPED).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Standard error has one line that names what is wrong and one with a hint; the exit
/// code is right.
fn refused(output: &Output, code: i32, reason: &str) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let [error, hint] = lines.as_slice() else { panic!("not two lines: {text}") };
    assert!(error.starts_with("spiped: ") && error.contains(reason), "{error}");
    assert!(hint.starts_with("hint: ") && hint.len() > 20, "{hint}");
    assert!(!error.ends_with('.'), "{error}");
}
