//! Who may use a sender (`--allow-uid`, `--allow-gid`) and connect to a unix source
//! (`--socket-mode`, `--socket-owner`, `--socket-group`): real clients of several users.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::net::{Net, namespaces_can_be};
use crate::support::{
    Daemon, End, Folder, SPIPED, Server, is_root, need, read_to_end, round_trip, wait_until,
};

/// Connects to an address or path, says a line, and prints the answer.
const CLIENT: &str = "\
    $SIG{PIPE} = 'IGNORE'; $| = 1;
    my ($host, $port) = @ARGV;
    my $s = $port ? IO::Socket::IP->new(PeerHost => $host, PeerPort => $port)
                  : IO::Socket::UNIX->new(Peer => $host);
    print('cannot connect'), exit unless $s;
    print $s \"hello\\n\"; $s->flush;
    my $answer = <$s>;
    print defined $answer ? $answer : 'refused';";

const PERL: [&str; 3] = ["perl", "-MIO::Socket::IP", "-MIO::Socket::UNIX"];

/// A user without any group but these, of which the first is the main one.
struct User(u32, &'static [u32]);

/// Users that no account has.
const ALLOWED: User = User(65533, &[65533]);
const OTHER: User = User(65532, &[65532]);
const ROOT: User = User(0, &[0]);

impl User {
    /// A program that the user runs.
    fn runs(&self, program: &[&str]) -> Command {
        let Self(uid, gids) = self;
        let all: Vec<_> = gids.iter().map(u32::to_string).collect();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &all[0]]);
        command.args(["--groups", &all.join(",")]).args(program).stdin(Stdio::null());
        command
    }

    /// The user's client: its number, and what it prints.
    fn connects(&self, to: &str) -> (u32, String) {
        let mut command = self.runs(&PERL);
        command.args(["-e", CLIENT]).args(
            to.rsplit_once(':')
                .map_or(vec![to], |(host, port)| vec![host.trim_matches(['[', ']']), port]),
        );
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        (id, said(&child.wait_with_output().unwrap()))
    }

    fn is_served(&self, to: &str) -> bool {
        match self.connects(to).1.as_str() {
            "hello" => true,
            "refused" => false,
            other => panic!("{other}"),
        }
    }
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// A folder that every user can enter.
fn open_folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// A receiver before an echo server, and a sender on `source` before the receiver.
struct Ends {
    server: Server,
    _receiver: Daemon,
    sender: Daemon,
}

impl Ends {
    fn on(folder: &Folder, source: &str, more: &[&str]) -> Self {
        Self::with(folder, source, more, |_| {})
    }

    fn with(folder: &Folder, source: &str, more: &[&str], set: impl Fn(&mut Command)) -> Self {
        let server = Server::echo();
        let key = folder.shared_key();
        let receiver = Daemon::receiver(&key, server.address, &[]);
        let to = receiver.address.to_string();
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-e", "-s", source, "-t", &to, "-k", key.to_str().unwrap()]).args(more);
        set(&mut command);
        Self { server, _receiver: receiver, sender: Daemon::spawn(command) }
    }
}

#[test]
fn only_allowed_users_use_a_sender_on_loopback() {
    if !is_root("users at a sender on loopback") {
        return;
    }
    let folder = open_folder();
    // daemon is user 1 on every Debian.
    let from_environment = |command: &mut Command| {
        command.env("SPIPED_ALLOW_UID", "65533,daemon");
    };
    let pipes = [
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "65533,1"]),
        Ends::on(&folder, "[::1]:0", &["--allow-uid", "daemon", "--allow-uid", "65533"]),
        Ends::with(&folder, "127.64.0.7:0", &[], from_environment),
    ];
    for Ends { server, _receiver, sender } in pipes {
        let at = sender.address.to_string();
        assert!(ALLOWED.is_served(&at) && User(1, &[1]).is_served(&at));
        assert!(!OTHER.is_served(&at));
        let line = sender.log.wait_for("reason=not-allowed");
        assert!(line.contains(" warn ") && line.contains(" uid=65532 "), "{line}");
        // A group, or a user in a group of that number, is not a user.
        assert!(!User(65532, &[65533, 1]).is_served(&at) && !ROOT.is_served(&at));
        if sender.address.is_ipv4() {
            // The socket is one for IPv6, and the connection is not.
            let inside = format!("[::ffff:{}]:{}", sender.address.ip(), sender.address.port());
            assert!(ALLOWED.is_served(&inside) && !OTHER.is_served(&inside));
        }
        assert_eq!(server.accepted(), if sender.address.is_ipv4() { 3 } else { 2 });
    }
}

#[test]
fn only_allowed_users_and_groups_use_a_sender_on_a_unix_socket() {
    if !is_root("users and groups at a unix socket") {
        return;
    }
    let folder = open_folder();
    let path = folder.path("source");
    let at = path.to_str().unwrap();
    let more = ["--socket-mode", "666", "--allow-uid", "65533", "--allow-gid", "daemon,4242"];
    let Ends { server, _receiver, sender } = Ends::on(&folder, at, &more);
    assert!(ALLOWED.is_served(at), "its user");
    assert!(User(65532, &[4242]).is_served(at), "its main group");
    assert!(User(65532, &[65532, 7, 1]).is_served(at), "a supplementary group");
    let many: &[u32] = &(1000..1200).chain([4242]).collect::<Vec<_>>();
    let many: &'static [u32] = Box::leak(many.into());
    assert!(User(65532, many).is_served(at), "one of many groups");
    let (client, answer) = OTHER.connects(at);
    assert_eq!(answer, "refused");
    let line = sender.log.wait_for("reason=not-allowed");
    assert!(line.contains(&format!(" uid=65532 pid={client} ")), "{line}");
    // The number of an allowed group is no user.
    assert!(!User(4242, &[65532]).is_served(at) && !User(65532, &[65533]).is_served(at));
    assert!(!ROOT.is_served(at));
    assert_eq!(server.accepted(), 4);
}

#[test]
fn a_client_that_is_refused_takes_no_place() {
    if !is_root("places of clients that are refused") {
        return;
    }
    let folder = open_folder();
    let more = ["--allow-uid", "0", "-n", "1"];
    let Ends { _receiver, sender, .. } = Ends::on(&folder, "127.0.0.1:0", &more);
    let mut only = sender.connect();
    round_trip(&mut only, b"the only one");
    assert!(!OTHER.is_served(&sender.address.to_string()));
    sender.log.wait_for("reason=not-allowed");
    assert_eq!(sender.log.count("reason=connection-limit"), 0);
    round_trip(&mut only, b"still served");
}

/// The kernel shows a socket without a process as one of root.
#[test]
fn a_client_that_has_closed_already_is_refused() {
    if !is_root("clients that close at once") {
        return;
    }
    let folder = open_folder();
    let Ends { server, _receiver, mut sender } =
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "0"]);
    let (host, port) = (sender.address.ip().to_string(), sender.address.port().to_string());
    sender.signal("STOP");
    let goes = "my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1],
                    LocalPort => $ARGV[2], ReuseAddr => 1);
                print $s 'FLUSHALL'; $s->flush;
                setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $ARGV[3];
                print $s->sockport; close $s;";
    let go = |from: &str, reset: &str| {
        let mut other = OTHER.runs(&PERL);
        let output = other.args(["-MSocket", "-e", goes, &host, &port, from, reset]).output();
        said(&output.unwrap())
    };
    let _closed = go("0", "");
    // After a reset, the port is free for a client of root, which is a connection of its own.
    let port: u16 = go("0", "1").parse().unwrap();
    let again = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    again.set_reuse_address(true).unwrap();
    again.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    again.connect(&sender.address.into()).unwrap();
    sender.signal("CONT");
    round_trip(&mut TcpStream::from(again), b"of root");
    let line = sender.log.wait_for("reason=not-allowed");
    assert!(line.contains("has closed its socket already") && !line.contains("uid="), "{line}");
    assert_eq!(server.accepted(), 1);
    // The client that was reset is not taken for the one that has its port now.
    sender.signal("TERM");
    sender.wait();
    let second: Vec<_> =
        sender.log.all().into_iter().filter(|line| line.contains(" id=2 ")).collect();
    assert!(second.iter().all(|line| line.contains("reason=not-allowed")), "{second:?}");
}

/// What the manual says of programs that change their user, and of those that pass a
/// connection on.
#[test]
fn it_is_the_effective_user_at_the_connect_that_counts() {
    if !is_root("programs that change their user") {
        return;
    }
    let folder = open_folder();
    let Ends { _receiver, sender, .. } =
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "65533"]);
    let tcp = format!("/dev/tcp/127.0.0.1/{}", sender.address.port());
    let say = "echo hello >&3; read -r -u 3 answer; echo $answer";
    // The connection is passed on to a program of another user.
    let drop = format!("exec 3<>{tcp}; exec setpriv --reuid 65532 bash -c '{say}'");
    let mut root_becomes = Command::new("bash");
    let becomes = format!("exec setpriv --reuid 65533 bash -c 'exec 3<>{tcp}; {say}'");
    assert_eq!(said(&root_becomes.args(["-c", &becomes]).output().unwrap()), "hello");
    let as_root = Command::new("bash").args(["-c", &drop]).output().unwrap();
    assert!(!said(&as_root).starts_with("hello"), "{as_root:?}");
    // A setuid program of the allowed user, which anybody may run.
    let program = folder.path("bash");
    fs::copy("/bin/bash", &program).unwrap();
    nix::unistd::chown(&program, Some(65533.into()), None).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let line = format!("exec 3<>{tcp}; {say}");
    let program = program.to_str().unwrap();
    let run = |flag: &str| said(&OTHER.runs(&[program, flag, &line]).output().unwrap());
    assert_eq!(run("-pc"), "hello");
    // Without -p, bash gives the rights up before it connects.
    assert!(!run("-c").starts_with("hello"));

    let Ends { _receiver, sender, .. } = Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "0"]);
    let drop = drop.replace(&tcp, &format!("/dev/tcp/127.0.0.1/{}", sender.address.port()));
    let passed_on = Command::new("bash").args(["-c", &drop]).output().unwrap();
    assert_eq!(said(&passed_on), "hello");
}

#[test]
fn root_of_another_user_namespace_is_the_user_that_made_it() {
    if !namespaces_can_be("clients in namespaces") {
        return;
    }
    let folder = open_folder();
    let path = folder.path("source");
    let at = path.to_str().unwrap();
    let more = ["--socket-mode", "666", "--allow-uid", "0"];
    let unix = Ends::on(&folder, at, &more);
    let tcp = Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "0"]);
    let port = tcp.sender.address.port().to_string();
    for (sender, to) in [(&unix.sender, vec![at]), (&tcp.sender, vec!["127.0.0.1", &port])] {
        let root = ["unshare", "--user", "--map-root-user"];
        let mut client = OTHER.runs(&[&root[..], &PERL].concat());
        assert_eq!(said(&client.args(["-e", CLIENT]).args(to).output().unwrap()), "refused");
        assert!(sender.log.wait_for("reason=not-allowed").contains(" uid=65532 "));
    }
    // From another network, 127.0.0.1 is not reached.
    let address = tcp.sender.address;
    Net::new().enter(|| TcpStream::connect(address).unwrap_err());
}

/// As in a container of one's own users, or a unit with `PrivateUsers=yes`.
#[test]
fn a_sender_allows_only_users_that_it_can_tell_apart() {
    if !namespaces_can_be("a sender in a user namespace") {
        return;
    }
    let folder = open_folder();
    let key = folder.shared_key();
    let inside = ["--user", "--map-root-user", SPIPED, "-F", "-e", "-t", "127.0.0.1:1"];
    let start = |source: &str, more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(inside).args(["-k", key.to_str().unwrap(), "-s", source]).args(more);
        command
    };
    for name in ["daemon", "nobody", "65534", "4242"] {
        let output = start("127.0.0.1:0", &["--allow-uid", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(67), "{output:?}");
        let text = format!("user '{name}' cannot be told from others in this user namespace");
        assert!(said(&output).contains(&text), "{output:?}");
    }
    let path = folder.path("source");
    let at = path.to_str().unwrap();
    let output = start(at, &["--allow-gid", "daemon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(67), "{output:?}");
    for source in ["127.0.0.1:0", at] {
        let more: &[&str] = if source == at { &["--socket-mode", "666"] } else { &[] };
        let sender = Daemon::spawn(start(source, &[&["--allow-uid", "0"], more].concat()));
        let to = if source == at { at.to_owned() } else { sender.address.to_string() };
        assert!(!OTHER.is_served(&to));
        assert!(sender.log.wait_for("reason=not-allowed").contains(" uid=65534 "));
        // Root is allowed, and only then is it seen that there is no receiver.
        assert!(!ROOT.is_served(&to));
        sender.log.wait_for("reason=receiver-refused");
    }
    // With all users, 65534 is nobody.
    let sender = Daemon::sender(&key, "127.0.0.1:1", &["--allow-uid", "nobody"]);
    assert!(!User(65534, &[65534]).is_served(&sender.address.to_string()));
    sender.log.wait_for("reason=receiver-refused");
}

#[test]
fn a_source_whose_clients_cannot_be_known_is_refused() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let path = folder.path("source");
    let at = path.to_str().unwrap();
    let none = "4294967295";
    let tcp = "127.0.0.1:0";
    let cases: [(&[&str], i32, &str); 14] = [
        (&["-s", "0.0.0.0:0", "--allow-uid", "0"], 64, "other hosts can connect to [0.0.0.0]:"),
        (&["-s", "[::]:0", "--allow-uid", "0"], 64, "other hosts can connect to [::]:"),
        (&["-s", tcp, "--allow-gid", "0"], 64, "the groups of clients of [127.0.0.1]:"),
        (&["-s", tcp, "--allow-uid", "rediss"], 67, "there is no user 'rediss'"),
        (&["-s", tcp, "--allow-uid", none], 67, "there is no user '4294967295'"),
        (&["-s", tcp, "--allow-uid", "-1"], 67, "there is no user '-1'"),
        (&["-s", at, "--allow-gid", "rediss"], 67, "there is no group 'rediss'"),
        (&["-s", tcp, "--allow-uid", "0,,1"], 64, "--allow-uid: a name is empty"),
        (&["-s", at, "--socket-owner", "rediss"], 67, "there is no user 'rediss'"),
        (&["-s", at, "--socket-group", none], 67, "there is no group '4294967295'"),
        (&["-s", at, "--socket-mode", "888"], 64, "--socket-mode: '888' is not an octal mode"),
        (&["-s", at, "--socket-mode", "4755"], 64, "--socket-mode: '4755' is not an octal mode"),
        (&["-s", tcp, "--socket-mode", "600"], 64, "--socket-mode: the source [127.0.0.1]:0 is"),
        (&["-s", tcp, "--socket-group", "0"], 64, "--socket-group: the source [127.0.0.1]:0 is"),
    ];
    for (more, code, text) in cases {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-e", "-t", "127.0.0.1:1", "-k", key.to_str().unwrap()]).args(more);
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
        assert!(said.lines().any(|line| line.contains(text)), "{more:?}: {said}");
        assert!(said.contains("\nhint: "), "{said}");
        assert!(!path.exists());
    }
    for option in ["--allow-uid", "--allow-gid"] {
        let mut command = Command::new(SPIPED);
        command.args(["-d", "-s", tcp, "-t", "127.0.0.1:1", "-k", "key", option, "0"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(said(&output).contains(&format!("-d and {option} exclude each other")));
    }
}

#[test]
fn a_unix_source_has_the_mode_and_owner_that_are_asked_for() {
    if !is_root("owners of unix sources") {
        return;
    }
    let folder = open_folder();
    let key = folder.shared_key();
    let path = folder.path("source");
    let start = |role: &str, umask: &str, more: &[&str]| {
        let mut command = Command::new("bash");
        let line = format!("umask {umask}; exec \"$0\" \"$@\"");
        command.args(["-c", &line, SPIPED, "-F", role, "-t", "127.0.0.1:1", "-s"]);
        command.arg(&path).arg("-k").arg(&key).args(more);
        command
    };
    let rights = |path: &Path| {
        let file = fs::symlink_metadata(path).unwrap();
        assert!(file.file_type().is_socket());
        (file.mode() & 0o7777, file.uid(), file.gid())
    };
    let cases: [(&str, &[&str], (u32, u32, u32)); 6] = [
        ("022", &[], (0o755, 0, 0)),
        ("077", &["--socket-mode", "0666"], (0o666, 0, 0)),
        ("000", &["--socket-mode", "0"], (0, 0, 0)),
        ("027", &["--socket-owner", "daemon"], (0o750, 1, 0)),
        ("022", &["--socket-group", "4242", "--socket-mode", "660"], (0o660, 0, 4242)),
        (
            "000",
            &["--socket-owner", "1", "--socket-group", "1", "--socket-mode", "0600", "-u", "1"],
            (0o600, 1, 1),
        ),
    ];
    for role in ["-e", "-d"] {
        for (umask, more, expected) in cases {
            let _daemon = Daemon::spawn(start(role, umask, more));
            assert_eq!(rights(&path), expected, "{role} {umask} {more:?}");
            fs::remove_file(&path).unwrap();
        }
    }
    // A stale socket is replaced, and no link is followed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let daemon = Daemon::spawn(start("-e", "077", &["--socket-mode", "666"]));
    assert_eq!(rights(&path), (0o666, 0, 0));
    drop(daemon);
    fs::remove_file(&path).unwrap();
    let other = folder.path("other");
    let _listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let before = rights(&other);
    symlink(&other, &path).unwrap();
    let more = ["--socket-mode", "777", "--socket-owner", "1"];
    let output = start("-e", "077", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(said(&output).contains("a symbolic link, which is not followed"), "{output:?}");
    assert_eq!(rights(&other), before);
}

/// Neither before nor while mode and owner are set can anybody else connect.
#[test]
fn no_one_connects_to_a_unix_source_before_its_rights_are_set() {
    if !is_root("the start of a unix source") {
        return;
    }
    need("strace", "strace");
    let folder = open_folder();
    let (path, trace) = (folder.path("source"), folder.path("trace"));
    let mut command = Command::new("strace");
    let calls = "trace=bind,listen,fchmod,chmod,fchmodat,fchownat";
    // With -D, the program is our own child, and strace ends with it.
    command.args(["-D", "-f", "-e", calls, "-o"]).arg(&trace);
    command.args([SPIPED, "-F", "-e", "-s"]).arg(&path);
    command.args(["-t", "127.0.0.1:1", "-k"]).arg(folder.shared_key());
    command.args(["--socket-mode", "0660", "--socket-owner", "1", "--socket-group", "1"]);
    let _daemon = Daemon::spawn(command);
    let calls = || fs::read_to_string(&trace).unwrap();
    wait_until("its calls are written", || calls().contains("listen("));
    let calls = calls();
    let place = |text: &str| calls.find(text).unwrap_or_else(|| panic!("no {text}: {calls}"));
    // The socket's mode becomes that of its file; only a socket that listens is connected to.
    assert!(calls.contains(", 000) "), "{calls}");
    let order = ["fchmod(", "bind(", "fchownat(", ", 0660) ", "listen("].map(place);
    assert!(order.is_sorted(), "{calls}");
}

/// A reset at once, and not a wait for the receiver.
#[test]
fn a_client_that_is_refused_is_reset() {
    if !is_root("the reset of a client") {
        return;
    }
    let folder = Folder::new();
    let Ends { _receiver, sender, .. } =
        Ends::on(&folder, "127.0.0.1:0", &["--allow-uid", "65533"]);
    assert_eq!(read_to_end(&mut sender.connect()), (vec![], End::Reset));
}
