//! A receiver with a key for each client: names in the logs, keys that come and go, keys that
//! are revoked, and limits of one key.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{
    Daemon, End, Folder, SPIPED, Server, noise, read_to_end, round_trip, wait_until,
};

/// A receiver with a folder of keys.
struct Receiver {
    folder: Folder,
    daemon: Daemon,
    _server: Server,
}

impl Receiver {
    /// With a key for each of these names.
    fn with(names: &[&str], more: &[&str]) -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.path("keys")).unwrap();
        for name in names {
            make_key(&folder, name);
        }
        let server = Server::echo();
        let control = folder.path("control");
        let more = [&["--control", control.to_str().unwrap()], more].concat();
        let daemon = Daemon::receiver(&folder.path("keys"), server.address, &more);
        Self { folder, daemon, _server: server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path(&format!("keys/{name}"))
    }

    fn sender(&self, name: &str) -> Daemon {
        Daemon::sender(&self.file(&format!("{name}.key")), self.address(), &[])
    }

    fn address(&self) -> SocketAddr {
        self.daemon.address
    }

    /// Runs `spiped VERB` on the receiver's control socket.
    fn ask(&self, verb: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(SPIPED);
        command.arg(verb).arg(self.folder.path("control")).args(arguments).output().unwrap()
    }

    fn rekey(&self) -> Output {
        self.ask("rekey", &[self.folder.path("keys").to_str().unwrap()])
    }
}

fn make_key(folder: &Folder, name: &str) {
    let path = folder.path(&format!("keys/{name}.key"));
    let made = Command::new(SPIPED).arg("keygen").arg(path).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A connection that has carried something.
fn open(sender: &Daemon) -> TcpStream {
    let mut client = sender.connect();
    round_trip(&mut client, b"open");
    client
}

fn printed(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

fn is_refused(sender: &Daemon) -> bool {
    matches!(read_to_end(&mut sender.connect()), (bytes, End::Reset) if bytes.is_empty())
}

#[test]
fn each_connection_is_logged_with_the_name_of_its_key() {
    let receiver = Receiver::with(&["alice", "bob", "carol-2.eu"], &[]);
    let line = receiver.daemon.log.wait_for("receiver listening on");
    assert!(line.contains(" keys=3 "), "{line}");
    for name in ["carol-2.eu", "alice", "bob"] {
        let sender = receiver.sender(name);
        drop(open(&sender));
        let line = receiver.daemon.log.wait_for(&format!(" key={name} key_id="));
        let id = line.split(" key_id=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let line = sender.log.wait_for(" reason=");
        assert!(line.contains(&format!(" key={name} key_id={id} ")), "{line}");
    }
    let keys = receiver.folder.path("keys");
    let told = Command::new(SPIPED).arg("keyid").arg(keys).output().unwrap();
    let told = printed(&told);
    let names: Vec<_> = told.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol-2.eu"]);
}

#[test]
fn a_sender_uses_the_first_of_its_keys_and_takes_no_folder() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let [alice, bob] = ["alice.key", "bob.key"].map(|name| receiver.file(name));
    let sender = Daemon::sender(&bob, receiver.address(), &["-k", alice.to_str().unwrap()]);
    drop(open(&sender));
    receiver.daemon.log.wait_for(" key=bob ");
    let folder = receiver.folder.path("keys");
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-e", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1", "-k"]);
    let refused = command.arg(folder).output().unwrap();
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert!(printed(&refused).contains("is a folder, and a sender has one key"), "{refused:?}");
}

#[test]
fn the_variable_has_several_keys_with_colons_between_them() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let other = Folder::new();
    let keys =
        [receiver.folder.path("keys"), other.shared_key()].map(|it| it.display().to_string());
    let mut command = Command::new(SPIPED);
    command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1"]);
    let daemon = Daemon::spawn({
        command.env("SPIPED_KEY", keys.join(":"));
        command
    });
    daemon.log.wait_for(" keys=3 ");
    for list in ["a.key::b.key", "a.key:", ":"] {
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", "127.0.0.1:1"]);
        let refused = command.env("SPIPED_KEY", list).output().unwrap();
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        let error = "spiped: SPIPED_KEY: the path of a key is empty\nhint: a path stands before";
        assert!(printed(&refused).starts_with(error), "{refused:?}");
    }
}

/// The three steps of a rotation, with a connection that is open all the time.
#[test]
fn a_key_is_changed_without_a_gap() {
    let receiver = Receiver::with(&["old"], &[]);
    let sender = receiver.folder.path("sender");
    let old = receiver.file("old.key");
    let sender = Daemon::sender(
        &old,
        receiver.address(),
        &["--control", sender.to_str().unwrap(), "--prewarm", "2"],
    );
    let mut before = open(&sender);
    make_key(&receiver.folder, "new");
    let told = printed(&receiver.rekey());
    assert!(told.starts_with("added new ") && told.contains("\nkept old "), "{told}");
    drop(open(&sender));

    let mut command = Command::new(SPIPED);
    command.arg("rekey").arg(receiver.folder.path("sender")).arg(receiver.file("new.key"));
    let told = printed(&command.output().unwrap());
    assert!(told.contains("added new ") && told.contains("\nremoved old "), "{told}");
    let mut after = open(&sender);

    fs::remove_file(&old).unwrap();
    let told = printed(&receiver.rekey());
    assert!(told.contains("kept new ") && told.contains("\nremoved old "), "{told}");
    assert!(told.contains(" (1 connection open)\n"), "{told}");
    receiver.daemon.log.wait_for("key removed key=old ");
    for client in [&mut before, &mut after, &mut open(&sender)] {
        round_trip(client, b"never cut");
    }
}

#[test]
fn a_revoked_key_loses_its_connections_at_once_and_no_other_does() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let (alice, bob) = (receiver.sender("alice"), receiver.sender("bob"));
    let mut thief = [open(&alice), open(&alice)];
    let mut honest = open(&bob);
    let told = receiver.ask("revoke", &["alice"]);
    assert!(told.status.success(), "{told:?}");
    assert!(printed(&told).starts_with("revoked alice "), "{told:?}");
    assert!(printed(&told).contains(" (2 connections ended)\n"), "{told:?}");
    assert!(printed(&told).contains("a reload is refused as long as the file of alice is there"));
    assert!(!printed(&told).contains("still in force"), "{told:?}");
    for client in &mut thief {
        assert!(matches!(read_to_end(client).1, End::Reset));
    }
    alice.log.wait_for("reason=aborted-key-revoked");
    receiver.daemon.log.wait_for("reason=key-revoked");
    assert!(is_refused(&alice));
    round_trip(&mut honest, b"as before");
    drop(open(&bob));

    // Its file is still there: a reload must not bring the key back.
    let refused = receiver.rekey();
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    assert!(printed(&refused).contains("the key alice ("), "{refused:?}");
    fs::remove_file(receiver.file("alice.key")).unwrap();
    assert!(printed(&receiver.rekey()).starts_with("kept bob "));

    for unknown in ["alice", "bob.key"] {
        let refused = receiver.ask("revoke", &[unknown]);
        assert_eq!(refused.status.code(), Some(67), "{refused:?}");
        let hint = "hint: a key is named after its file, without .key\n";
        assert!(printed(&refused).ends_with(hint), "{refused:?}");
    }
    // The last key can be revoked, too: then nobody gets in.
    assert!(receiver.ask("revoke", &["bob"]).status.success());
    assert!(matches!(read_to_end(&mut honest).1, End::Reset));
    assert!(is_refused(&bob));
}

/// A key that a reload has taken away has open connections, which a thief could have.
#[test]
fn a_key_is_revoked_that_was_removed_before() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let alice = receiver.sender("alice");
    let mut thief = open(&alice);
    fs::remove_file(receiver.file("alice.key")).unwrap();
    receiver.daemon.signal("HUP");
    receiver.daemon.log.wait_for("key removed key=alice ");
    assert!(is_refused(&alice));
    round_trip(&mut thief, b"a reload cuts nothing");
    let told = printed(&receiver.ask("revoke", &["alice"]));
    assert!(told.contains(" (1 connection ended)\n"), "{told}");
    assert!(matches!(read_to_end(&mut thief).1, End::Reset));
}

/// In a rotation, a client has two keys.
#[test]
fn who_revokes_one_key_of_a_rotation_is_told_of_the_other() {
    let receiver = Receiver::with(&["alice", "alice.new", "bob", "bob.new"], &[]);
    for (name, other) in [("alice", "alice.new"), ("bob.new", "bob")] {
        let told = printed(&receiver.ask("revoke", &[name]));
        assert!(told.contains(&format!("spiped: warning: {other} is still in force\n")), "{told}");
        assert!(told.contains(&format!(" {other}' shuts that one out, too\n")), "{told}");
        assert_eq!(told.matches("still in force").count(), 1, "{told}");
    }
    let told = printed(&receiver.ask("revoke", &["bob"]));
    assert!(!told.contains("still in force"), "{told}");
    // A name that no key has is in the log, too.
    assert_eq!(receiver.ask("revoke", &["mallory"]).status.code(), Some(67));
    receiver.daemon.log.wait_for("key not revoked: no key has that name key=mallory");
}

/// As after a restart of a unit, whose next process has the control socket.
#[test]
fn a_key_is_revoked_while_the_connections_are_drained() {
    let mut receiver = Receiver::with(&["alice", "bob"], &["--drain-timeout", "600"]);
    let (alice, bob) = (receiver.sender("alice"), receiver.sender("bob"));
    let (mut thief, mut honest) = (open(&alice), open(&bob));
    receiver.daemon.signal("TERM");
    receiver.daemon.log.wait_for("draining open connections");
    receiver.daemon.signal("HUP");
    receiver.daemon.log.wait_for("keys not reloaded: this process only lets");

    let keys = receiver.folder.path("keys");
    let control = receiver.folder.path("control");
    let next = ["--control", control.to_str().unwrap()];
    let mut next = Daemon::receiver(&keys, receiver.address(), &next);
    let again = Daemon::sender(&receiver.file("alice.key"), next.address, &[]);
    let told = printed(&receiver.ask("revoke", &["alice"]));
    assert!(told.starts_with("revoked alice ") && told.matches("revoked ").count() == 1, "{told}");
    assert!(told.contains(" (1 connection ended)\n"), "{told}");
    assert!(matches!(read_to_end(&mut thief).1, End::Reset));
    alice.log.wait_for("reason=aborted-key-revoked");
    assert!(is_refused(&again));
    round_trip(&mut honest, b"as before");
    drop(honest);
    assert!(receiver.daemon.wait().success());
    next.signal("TERM");
    next.wait();
}

/// The daemon's user can make any number of sockets there.
#[test]
fn of_many_sockets_beside_the_path_the_newest_are_asked_and_the_rest_is_told() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let control = receiver.folder.path("control");
    let made = receiver.folder.path("made");
    for _ in 0..40 {
        drop(UnixListener::bind(&made).unwrap());
        let inode = fs::metadata(&made).unwrap().ino();
        fs::rename(&made, receiver.folder.path(&format!("control.draining-{inode}"))).unwrap();
    }
    let left_out = format!("8 of the sockets beside {} are not asked", control.display());
    let told = receiver.ask("revoke", &["alice"]);
    assert_eq!(told.status.code(), Some(69), "{told:?}");
    assert!(printed(&told).contains(&left_out), "{told:?}");
    // The one that serves has been asked all the same.
    assert!(is_refused(&receiver.sender("alice")));
    let told = Command::new(SPIPED).arg("status").arg(&control).output().unwrap();
    assert_eq!(told.status.code(), Some(69), "{told:?}");
    let lines = printed(&told);
    assert!(lines.contains(&left_out) && lines.contains(" (receiver): serving "), "{lines}");
}

/// Where no process has taken over, there is nobody at the path.
#[test]
fn a_key_is_revoked_while_the_last_process_drains() {
    let mut receiver = Receiver::with(&["alice", "bob"], &["--drain-timeout", "600"]);
    let (alice, bob) = (receiver.sender("alice"), receiver.sender("bob"));
    let (mut thief, mut honest) = (open(&alice), open(&bob));
    receiver.daemon.signal("TERM");
    receiver.daemon.log.wait_for("draining open connections");
    let told = printed(&receiver.ask("revoke", &["alice"]));
    assert!(told.contains(" (1 connection ended)\n"), "{told}");
    assert!(matches!(read_to_end(&mut thief).1, End::Reset));
    assert_eq!(receiver.ask("revoke", &["alice"]).status.code(), Some(67));
    round_trip(&mut honest, b"as before");
    drop(honest);
    assert!(receiver.daemon.wait().success());
    assert_eq!(receiver.ask("revoke", &["bob"]).status.code(), Some(69));
}

#[test]
fn a_sender_takes_no_set_of_keys() {
    let receiver = Receiver::with(&["alice", "bob"], &[]);
    let control = receiver.folder.path("sender");
    let more = ["--control", control.to_str().unwrap()];
    let sender = Daemon::sender(&receiver.file("alice.key"), receiver.address(), &more);
    let mut command = Command::new(SPIPED);
    let refused =
        command.arg("rekey").arg(&control).arg(receiver.folder.path("keys")).output().unwrap();
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    assert!(printed(&refused).contains("a sender has one key, and several came"), "{refused:?}");
    drop(open(&sender));
    receiver.daemon.log.wait_for(" key=alice ");
}

#[test]
fn one_bad_file_changes_nothing_and_is_named() {
    let receiver = Receiver::with(&["alice"], &[]);
    make_key(&receiver.folder, "bob");
    for (name, content, mode, reason) in [
        ("carol.key", noise(1, 31), 0o600, "the key has 31 bytes, fewer than 32"),
        ("carol.key", noise(1, 32), 0o644, "is open to others (mode 0644)"),
        ("carol", noise(1, 32), 0o600, "is neither a key nor the settings of one"),
        ("a b.key", noise(1, 32), 0o600, "a b.key is no key, since 'a b' is no name for one"),
        ("alice.conf", b"CONNECTIONS=0".to_vec(), 0o600, "line 1 is not CONNECTIONS= and a number"),
        ("alice2.key", fs::read(receiver.file("alice.key")).unwrap(), 0o600, "are the same key"),
    ] {
        fs::write(receiver.file(name), content).unwrap();
        fs::set_permissions(receiver.file(name), Permissions::from_mode(mode)).unwrap();
        receiver.daemon.signal("HUP");
        let line = receiver.daemon.log.wait_for(reason);
        assert!(
            line.contains("keys not reloaded: ") && line.contains(name.split('.').next().unwrap()),
            "{line}"
        );
        let refused = receiver.rekey();
        assert!(matches!(refused.status.code(), Some(65 | 77)), "{refused:?}");
        assert!(printed(&refused).contains(reason), "{refused:?}");
        fs::remove_file(receiver.file(name)).unwrap();
    }
    assert!(is_refused(&receiver.sender("bob")));
    drop(open(&receiver.sender("alice")));
    assert_eq!(receiver.daemon.log.count("key added"), 0);
}

/// As while a key is removed: its settings go after it.
#[test]
fn settings_without_a_key_stop_nothing_and_are_warned_of() {
    let receiver = Receiver::with(&["alice"], &[]);
    fs::write(receiver.file("bob.conf"), "CONNECTIONS=20\n").unwrap();
    let told = receiver.rekey();
    assert!(told.status.success(), "{told:?}");
    let warning = format!(
        "spiped: warning: beside the settings {} is no key\nhint: ",
        receiver.file("bob.conf").display()
    );
    assert!(printed(&told).contains(&warning), "{told:?}");
    let keys = receiver.folder.path("keys");
    let next = Daemon::receiver(&keys, receiver.address(), &[]);
    next.log.wait_for(" warn beside the settings ");
}

#[test]
fn one_key_cannot_take_all_connections() {
    let receiver = Receiver::with(&["alice", "bob"], &["--per-key", "2"]);
    let (alice, bob) = (receiver.sender("alice"), receiver.sender("bob"));
    let _open = [open(&alice), open(&alice)];
    assert!(is_refused(&alice));
    let line = receiver.daemon.log.wait_for("reason=key-connection-limit");
    assert!(line.contains(" key=alice "), "{line}");
    alice.log.wait_for("reason=aborted-connection-limit");
    let _others = [open(&bob), open(&bob)];

    // The key's own settings come first.
    fs::write(receiver.file("alice.conf"), "# more\nCONNECTIONS=3\n").unwrap();
    assert!(receiver.rekey().status.success());
    let third = open(&alice);
    assert!(is_refused(&alice));
    drop(third);
    wait_until("its place is free", || {
        let mut client = alice.connect();
        std::io::Write::write_all(&mut client, b"x").is_ok()
            && std::io::Read::read(&mut client, &mut [0]).is_ok_and(|count| count == 1)
    });
}
