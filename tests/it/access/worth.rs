//! What it is worth that a sender allows only some users: programs that change their user,
//! and namespaces.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{CLIENT, Ends, OTHER, PERL, ROOT, User, open_folder, said};
use crate::support::net::{Net, namespaces_can_be};
use crate::support::{Daemon, SPIPED, is_root};

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
