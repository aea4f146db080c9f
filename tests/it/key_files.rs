//! Whose key file is taken, and with what mode; and which keys are warned of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::geteuid;

use crate::support::{
    Daemon, Folder, SPIPED, Server, is_root, need, nobody, round_trip, wait_until, with_input,
};

const NOBODY: u32 = 65534;

/// A folder, with the program, that other users reach; nothing without root, who
/// alone can give files away.
fn shared_folder() -> Option<Folder> {
    need("setpriv", "util-linux");
    if !geteuid().is_root() {
        println!("*** SKIPPED: needs root ***");
        return None;
    }
    let folder = Folder::new();
    fs::set_permissions(folder.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    fs::copy(SPIPED, folder.path("spiped")).unwrap();
    Some(folder)
}

/// The program as the user nobody.
fn as_nobody(folder: &Folder) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(folder.path("spiped"));
    command
}

fn key(folder: &Folder, name: &str, (owner, group): (u32, u32), mode: u32) -> PathBuf {
    let path = folder.path(name);
    fs::copy(folder.shared_key(), &path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    chown(&path, Some(owner), Some(group)).unwrap();
    path
}

fn receiver(mut command: Command, key: &Path, target: &Server) -> Command {
    command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", &target.address.to_string(), "-k"]);
    command.arg(key);
    command
}

fn refused(output: &Output, reason: &str, hint: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains(reason) && said.contains(hint), "{said}");
}

/// As Kubernetes mounts a secret for a container whose group is `fsGroup`: no
/// other owner or mode can be had there.
#[test]
fn a_volume_of_secrets_is_read_by_its_group() {
    let Some(folder) = shared_folder() else { return };
    fs::create_dir(folder.path("..2026_11")).unwrap();
    key(&folder, "..2026_11/key", (0, NOBODY), 0o440);
    symlink("..2026_11", folder.path("..data")).unwrap();
    symlink("..data/key", folder.path("key")).unwrap();
    let target = Server::echo();
    let receiver = Daemon::spawn(receiver(as_nobody(&folder), &folder.path("key"), &target));
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    round_trip(&mut sender.connect(), b"with the key of the volume");
    // Kubernetes puts another in its place.
    receiver.signal("HUP");
    receiver.log.wait_for("keys reloaded");
}

/// The rule of libpq: a group may read what is root's; nobody else anything.
#[test]
fn a_key_file_is_as_closed_as_its_owner_can_have_it() {
    let Some(folder) = shared_folder() else { return };
    let target = Server::echo();
    let hint = "or mount it as root's with mode 0440";
    for mode in [0o460, 0o450, 0o444, 0o644, 0o642] {
        let path = key(&folder, "roots", (0, NOBODY), mode);
        let output = receiver(as_nobody(&folder), &path, &target).output().unwrap();
        refused(&output, &format!("(mode {mode:04o})"), hint);
    }
    for mode in [0o440, 0o640, 0o604] {
        let path = key(&folder, "own", (NOBODY, NOBODY), mode);
        let output = receiver(as_nobody(&folder), &path, &target).output().unwrap();
        refused(&output, &format!("(mode {mode:04o})"), hint);
    }
    for (owner, mode) in [(0, 0o440), (0, 0o640), (NOBODY, 0o400), (NOBODY, 0o600)] {
        let path = key(&folder, "good", (owner, NOBODY), mode);
        let _listens = Daemon::spawn(receiver(as_nobody(&folder), &path, &target));
    }
}

/// Only who uses the key has to trust its owner.
#[test]
fn root_sees_the_id_of_anybodys_key_and_uses_none_of_them() {
    let Some(folder) = shared_folder() else { return };
    let path = key(&folder, "its.key", (NOBODY, NOBODY), 0o600);
    let keyid = |more: &[&str], path: &Path| {
        Command::new(SPIPED).arg("keyid").args(more).arg(path).output().unwrap()
    };
    let ours = keyid(&["-u", "root"], &folder.shared_key());
    assert!(ours.status.success(), "{ours:?}");
    assert_eq!(keyid(&[], &path).stdout, ours.stdout);
    assert_eq!(keyid(&["-u", "nobody"], &path).stdout, ours.stdout);
    assert_eq!(keyid(&["-u", "nobody"], &folder.shared_key()).stdout, ours.stdout);
    let (reason, hint) = ("belongs to user 65534", "or run spiped as its owner");
    refused(&keyid(&["-u", "root"], &path), reason, hint);
    assert_eq!(keyid(&["-u", "no-such-user"], &path).status.code(), Some(67));
    let output = receiver(Command::new(SPIPED), &path, &Server::echo()).output().unwrap();
    refused(&output, reason, hint);
    // A mode that lets others in is told of anybody's.
    let open = key(&folder, "open", (NOBODY, NOBODY), 0o640);
    refused(&keyid(&[], &open), "(mode 0640)", "make a new key");
}

/// The daemon became another user after root had made its socket: that user, who
/// may own the key, and root change the key, and nobody else.
#[test]
fn the_user_of_a_daemon_and_root_rekey_it() {
    let Some(folder) = shared_folder() else { return };
    let its_folder = folder.path("run");
    fs::create_dir(&its_folder).unwrap();
    let control = its_folder.join("control");
    let its_key = key(&folder, "its.key", (NOBODY, NOBODY), 0o600);
    let others_key = key(&folder, "others.key", (12345, 12345), 0o600);
    let mut command = Command::new(folder.path("spiped"));
    command.args(["-u", "nobody", "--control"]).arg(&control);
    let target = Server::echo();
    let daemon = Daemon::spawn(receiver(command, &folder.shared_key(), &target));
    let metadata = fs::metadata(&control).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    let rekey = |mut command: Command, key: &Path| {
        command.arg("rekey").arg(&control).arg(key).output().unwrap()
    };
    let by_its_user = rekey(as_nobody(&folder), &its_key);
    assert!(by_its_user.status.success(), "{by_its_user:?}");
    let by_root = rekey(Command::new(SPIPED), &its_key);
    assert!(by_root.status.success(), "{by_root:?}");
    assert!(rekey(Command::new(SPIPED), &folder.shared_key()).status.success());
    wait_until("all three are told of", || daemon.log.count("keys reloaded") == 3);

    // Its user must not get a file that only root can read.
    let its_keys = folder.path("its.keys");
    fs::create_dir(&its_keys).unwrap();
    for (file, link) in [("its.keys", "linked.keys"), ("redis.key", "its.keys/a.key")] {
        symlink(folder.path(file), folder.path(link)).unwrap();
        lchown(folder.path(link), Some(NOBODY), Some(NOBODY)).unwrap();
        let linked = rekey(Command::new(SPIPED), &folder.path(link));
        refused(&linked, "leads over a link of user 65534", "links there must be root's");
    }
    refused(&rekey(Command::new(SPIPED), &its_keys), "a.key leads over a link", "root's");
    fs::remove_file(its_keys.join("a.key")).unwrap();
    let settings = key(&folder, "its.keys/b.key", (NOBODY, NOBODY), 0o600);
    symlink("/etc/shadow", settings.with_extension("conf")).unwrap();
    lchown(settings.with_extension("conf"), Some(NOBODY), Some(NOBODY)).unwrap();
    refused(&rekey(Command::new(SPIPED), &its_keys), "b.conf leads over a link", "root's");

    let anothers = rekey(Command::new(SPIPED), &others_key);
    refused(&anothers, "belongs to user 12345", "hint: chown");
    let mut another = Command::new("setpriv");
    another.args(["--reuid=12345", "--regid=12345", "--clear-groups"]).arg(folder.path("spiped"));
    let by_another = rekey(another, &others_key);
    assert_eq!(by_another.status.code(), Some(69), "{by_another:?}");
    assert_eq!(daemon.log.count("keys reloaded"), 3);
    let sender = Daemon::sender(&folder.shared_key(), daemon.address, &[]);
    round_trip(&mut sender.connect(), b"with root's last word");
}

const PASSPHRASE: &str = "correct horse battery staple forever\n";
const LOOKS: &str = "looks like a passphrase: whoever records a connection can guess it offline";
const HINT: &str = "make a random key with 'spiped keygen PATH', and give that one to both ends";

/// A key that a person thought up.
fn passphrase(folder: &Folder) -> PathBuf {
    let path = folder.path("thought-up.key");
    fs::write(&path, PASSPHRASE).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// The command does what it does with any key, and standard error has the warning alone.
fn warned(output: &Output, subject: &str) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, format!("spiped: warning: {subject} {LOOKS}\nhint: {HINT}\n"));
}

#[test]
fn keyid_warns_of_a_passphrase_and_shows_its_id() {
    let folder = Folder::new();
    let path = passphrase(&folder);
    let keyid = |key: &Path| Command::new(SPIPED).arg("keyid").arg(key).output().unwrap();
    let output = keyid(&path);
    warned(&output, &format!("the key file {}", path.display()));
    let given = with_input(Command::new(SPIPED).args(["keyid", "-"]), PASSPHRASE.as_bytes());
    warned(&given, "the key on standard input");
    assert_eq!((given.stdout, output.stdout.len()), (output.stdout, 20));
    assert!(keyid(&folder.shared_key()).stderr.is_empty());
}

/// What the common tools make is a good key.
#[test]
fn keys_of_other_tools_are_not_warned_of() {
    need("openssl", "openssl");
    let folder = Folder::new();
    for (number, tool) in [
        "openssl rand -base64 32",
        "openssl rand -hex 32",
        "openssl rand -hex 24",
        "openssl rand 32",
        "head -c 32 /dev/urandom | base64 -w 0",
        "head -c 32 /dev/urandom | base32",
        "dd if=/dev/urandom bs=32 count=1",
    ]
    .iter()
    .enumerate()
    {
        let path = folder.path(&number.to_string());
        let made = "umask 077; eval \"$0\" > \"$1\"";
        let made = Command::new("sh").args(["-c", made, tool]).arg(&path).output().unwrap();
        assert!(made.status.success(), "{tool}: {made:?}");
        let output = Command::new(SPIPED).arg("keyid").arg(&path).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{tool}: {output:?}");
    }
}

#[test]
fn a_daemon_warns_of_a_passphrase_at_the_start_and_works() {
    let folder = Folder::new();
    let path = passphrase(&folder);
    let target = Server::echo();
    let receiver = Daemon::receiver(&path, target.address, &[]);
    let sender = Daemon::sender(&path, receiver.address, &[]);
    for daemon in [&receiver, &sender] {
        let line = daemon.log.wait_for(LOOKS);
        let subject = format!(" warn the key file {} {LOOKS} hint=\"{HINT}\"", path.display());
        assert!(line.contains(&subject), "{line}");
        assert_eq!(daemon.log.count("horse"), 0);
    }
    round_trip(&mut sender.connect(), b"a poor key is a key");
    let good = Daemon::receiver(&folder.shared_key(), target.address, &[]);
    round_trip(&mut Daemon::sender(&folder.shared_key(), good.address, &[]).connect(), b"good");
    assert_eq!(good.log.count(LOOKS), 0);
}

#[test]
fn spipe_warns_of_a_passphrase_and_works() {
    let folder = Folder::new();
    let path = passphrase(&folder);
    let target = Server::echo();
    let receiver = Daemon::receiver(&path, target.address, &[]);
    let mut spipe = Command::new(folder.spipe());
    spipe.args(["-t", &receiver.address.to_string(), "-k"]).arg(&path);
    let output = with_input(&mut spipe, b"through it");
    assert!(output.status.success() && output.stdout == b"through it", "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        format!("spipe: warning: the key file {} {LOOKS}\nhint: {HINT}\n", path.display())
    );
}

#[test]
fn a_passphrase_that_is_loaded_later_is_warned_of() {
    let folder = Folder::new();
    let path = passphrase(&folder);
    let key = folder.path("its.key");
    fs::copy(folder.shared_key(), &key).unwrap();
    let control = folder.path("control");
    let more = ["--control", control.to_str().unwrap()];
    let receiver = Daemon::receiver(&key, nobody(), &more);

    let mut rekey = Command::new(SPIPED);
    let output = rekey.arg("rekey").arg(&control).arg(&path).output().unwrap();
    warned(&output, &format!("the key file {}", path.display()));
    let line = receiver.log.wait_for(LOOKS);
    assert!(line.contains(" warn the new key looks") && line.contains("key_id="), "{line}");

    // By HUP: first the good key again, then the other.
    receiver.signal("HUP");
    wait_until("the good key is back", || receiver.log.count("keys reloaded") == 2);
    assert_eq!(receiver.log.count(LOOKS), 1);
    fs::copy(&path, &key).unwrap();
    receiver.signal("HUP");
    let line = receiver.log.wait_for(&format!("the key file {} looks", key.display()));
    assert!(line.contains(&format!("hint=\"{HINT}\"")), "{line}");
}

/// Root alone may have made the files of a unit.
#[test]
fn the_check_of_a_unit_warns_of_a_passphrase() {
    if !is_root("unit-check") {
        return;
    }
    let folder = Folder::new();
    let path = passphrase(&folder);
    let configuration = folder.path("x.conf");
    fs::write(&configuration, "").unwrap();
    let check = |key: &Path| {
        let mut command = Command::new(SPIPED);
        command.arg("unit-check").arg(&configuration).arg(key).output().unwrap()
    };
    warned(&check(&path), &format!("the key file {}", path.display()));
    let good = check(&folder.shared_key());
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
}

/// Of a file and a folder one is enough; those of the one that is there are checked.
#[test]
fn the_check_of_a_unit_needs_a_file_or_a_folder() {
    if !is_root("unit-check") {
        return;
    }
    let folder = Folder::new();
    let configuration = folder.path("x.conf");
    fs::write(&configuration, "").unwrap();
    let (file, keys) = (folder.path("x.key"), folder.path("x.keys"));
    let check = || {
        let mut command = Command::new(SPIPED);
        let output = command.arg("unit-check").args([&configuration, &file, &keys]).output();
        let output = output.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = check();
    assert_eq!(code, 66);
    assert!(said.contains(&format!("cannot read the key file {}: No such", file.display())));
    // What systemd decrypts is not here to be checked.
    fs::create_dir(folder.path("x.keys.cred")).unwrap();
    assert_eq!(check(), (0, String::new()));
    fs::remove_dir(folder.path("x.keys.cred")).unwrap();

    fs::create_dir(&keys).unwrap();
    let (code, said) = check();
    assert!(code != 0 && said.contains("no key is in the folder"), "{said}");
    fs::write(folder.path("x.key.cred"), "").unwrap();
    assert_eq!(check(), (0, String::new()));
    fs::remove_file(folder.path("x.key.cred")).unwrap();
    fs::copy(folder.shared_key(), keys.join("alice.key")).unwrap();
    assert_eq!(check(), (0, String::new()));
    fs::copy(folder.shared_key(), &file).unwrap();
    let (code, said) = check();
    assert!(code != 0 && said.contains("x and alice are the same key"), "{said}");
    fs::write(&file, [9; 31]).unwrap();
    let (code, said) = check();
    assert!(code == 65 && said.contains("the key has 31 bytes, fewer than 32"), "{said}");
    fs::remove_file(&file).unwrap();
    symlink(&file, keys.join("bob.key")).unwrap();
    let (code, said) = check();
    assert!(code == 65 && said.contains("bob.key is a link, and systemd hands"), "{said}");
}

/// The warning names the key file that setup makes.
#[test]
fn setup_warns_of_a_passphrase() {
    let folder = Folder::new();
    let mut setup = Command::new(SPIPED);
    setup.args(["setup", "send", "spiped-test", "-s", "127.0.0.1:1", "-t", "192.0.2.1:1"]);
    let output = setup.args(["--dry-run", "-k"]).arg(passphrase(&folder)).output().unwrap();
    warned(&output, "the key file /etc/spiped/spiped-test.key");
}
