//! Sources that are refused, and the files of unix sources.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use super::{open_folder, said};
use crate::support::{Daemon, Folder, SPIPED, is_root, need, wait_until};

/// Mode, user and group of a file.
type Rights = (u32, u32, u32);

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
    let rights = |path: &Path| -> Rights {
        let file = fs::symlink_metadata(path).unwrap();
        assert!(file.file_type().is_socket());
        (file.mode() & 0o7777, file.uid(), file.gid())
    };
    let cases: [(&str, &[&str], Rights); 7] = [
        ("077", &["--socket-owner", "1", "-u", "nobody", "-D"], (0o700, 1, 0)),
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

#[test]
fn who_cannot_give_a_unix_source_away_is_told_so() {
    if !is_root("a unix source that cannot be given away") {
        return;
    }
    need("setpriv", "util-linux");
    let folder = open_folder();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    let program = folder.path("spiped");
    fs::copy(SPIPED, &program).unwrap();
    let key = folder.key("its.key");
    chown(&key, Some(65534), None).unwrap();
    fs::create_dir(folder.path("its")).unwrap();
    chown(folder.path("its"), Some(65534), None).unwrap();
    command.arg(&program).args(["-F", "-e", "-t", "127.0.0.1:1", "-k"]).arg(&key);
    command.arg("-s").arg(folder.path("its/source")).args(["--socket-owner", "1"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let reason = "it cannot be given to that owner or group: Operation not permitted";
    assert!(said(&output).contains(reason), "{output:?}");
    assert!(said(&output).contains("hint: only root can give a socket away"), "{output:?}");
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
