//! Keys in memory: which processes see them, and where they are.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hkdf::Hkdf;
use nix::unistd::geteuid;
use sha2::Sha256;

use crate::support::{Daemon, Folder, SPIPED, Server, need, round_trip, signal, wait_until};

/// A curious process of the same user: it prints all writable memory of the process with
/// this id.
const SPY: &str = r#"
while read -r range mode rest; do
    case $mode in rw*) ;; *) continue ;; esac
    first=$((0x${range%-*} / 4096)) end=$((0x${range#*-} / 4096))
    dd if="/proc/$1/mem" bs=4096 skip=$first count=$((end - first))
done < "/proc/$1/maps""#;

/// A folder with a program and a key for a user other than root.
struct Place {
    folder: Folder,
    program: PathBuf,
    key: PathBuf,
}

impl Place {
    fn new() -> Self {
        need("setpriv", "util-linux");
        let folder = Folder::new();
        fs::set_permissions(folder.path("."), PermissionsExt::from_mode(0o755)).unwrap();
        let program = folder.path("spiped");
        fs::copy(SPIPED, &program).unwrap();
        std::os::unix::fs::symlink(&program, folder.path("spipe")).unwrap();
        let key = folder.key("its.key");
        if geteuid().is_root() {
            chown(&key, Some(65534), Some(65534)).unwrap();
        }
        Self { folder, program, key }
    }

    /// A file of our own with the same key.
    fn copy(&self) -> PathBuf {
        let copy = self.folder.path("copy");
        fs::copy(&self.key, &copy).unwrap();
        copy
    }

    /// The bytes that the program keeps of the key file.
    fn psk(&self) -> [u8; 32] {
        self.derived("psk")
    }

    fn derived<const N: usize>(&self, info: &str) -> [u8; N] {
        let mut derived = [0; N];
        let content = fs::read(&self.key).unwrap();
        let hkdf = Hkdf::<Sha256>::new(Some(b"spiped-2 key file"), &content);
        hkdf.expand(info.as_bytes(), &mut derived).unwrap();
        derived
    }

    fn receiver(&self, mut command: Command, target: &Server) -> Daemon {
        command.args(["-F", "-d", "-s", "127.0.0.1:0", "-t", &target.address.to_string(), "-k"]);
        command.arg(&self.key);
        Daemon::spawn(command)
    }
}

/// A command of a user other than root; it becomes the program and keeps its id.
fn as_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command
}

/// A process, ended by its id.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn has(memory: &[u8], wanted: &[u8]) -> bool {
    memory.windows(wanted.len()).any(|window| window == wanted)
}

/// The writable memory of process `id`, as another process of the same user sees it.
fn spied(id: u32) -> Vec<u8> {
    as_user("sh").args(["-c", SPY, "sh", &id.to_string()]).output().unwrap().stdout
}

#[test]
fn another_process_of_the_same_user_sees_no_memory() {
    let place = Place::new();
    let mut command = as_user("sleep");
    let open = command.arg("1000").env("SECRET", "what-anybody-may-see").spawn().unwrap();
    let open = Ended(open);
    let is_seen = || has(&spied(open.0.id()), b"what-anybody-may-see");
    if !geteuid().is_root() && !is_seen() {
        println!("*** SKIPPED: this user sees no process of its own at all ***");
        return;
    }
    wait_until("what is not protected is seen", is_seen);

    let target = Server::echo();
    let receiver = place.receiver(as_user(&place.program), &target);
    let spipe = as_user(place.folder.path("spipe"))
        .args(["-t", &receiver.address.to_string(), "-k"])
        .arg(&place.key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut spipe = Ended(spipe.unwrap());
    spipe.0.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    spipe.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let mut processes = vec![receiver.child.id(), spipe.0.id()];
    let dropped = geteuid().is_root().then(|| {
        let mut command = Command::new(&place.program);
        command.args(["-u", "65534"]);
        place.receiver(command, &target)
    });
    processes.extend(dropped.as_ref().map(|daemon| daemon.child.id()));
    let psk = place.psk();
    for process in processes {
        let memory = spied(process);
        assert!(!has(&memory, &psk), "the key is seen");
        assert!(memory.is_empty(), "{} bytes are seen", memory.len());
    }
}

/// The writable parts of a process's memory: whether each is locked and left out of dumps
/// and children, and its content.
fn parts(id: u32) -> Vec<(bool, Vec<u8>)> {
    let smaps = fs::read_to_string(format!("/proc/{id}/smaps")).unwrap();
    let memory = File::open(format!("/proc/{id}/mem")).unwrap();
    let mut parts = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[0].contains('-') {
            let (start, end) = words[0].split_once('-').unwrap();
            let parse = |text| u64::from_str_radix(text, 16).unwrap();
            range = words[1].starts_with("rw").then(|| parse(start)..parse(end));
        } else if let ("VmFlags:", Some(range)) = (words[0], &range) {
            let mut content = vec![0; usize::try_from(range.end - range.start).unwrap()];
            memory.read_exact_at(&mut content, range.start).unwrap();
            parts.push((["lo", "dd", "dc"].iter().all(|flag| words.contains(flag)), content));
        }
    }
    parts
}

/// No copy of the key is left on a stack, or in freed memory.
#[test]
fn the_key_is_in_locked_memory_and_nowhere_else() {
    if !geteuid().is_root() {
        println!("*** SKIPPED: needs root ***");
        return;
    }
    let place = Place::new();
    let target = Server::echo();
    let control = place.folder.path("control");
    let mut command = Command::new(&place.program);
    command.arg("-u").arg("65534").arg("--control").arg(&control);
    let receiver = place.receiver(command, &target);
    let rekey = |key: &Path| {
        let rekeyed = Command::new(SPIPED).arg("rekey").arg(&control).arg(key).output().unwrap();
        assert!(rekeyed.status.success(), "{rekeyed:?}");
    };
    // The key is replaced and put back, in both ways.
    rekey(&place.folder.shared_key());
    receiver.signal("HUP");
    wait_until("both have been read", || receiver.log.count("keys reloaded") == 2);
    rekey(&place.copy());
    let sender = Daemon::sender(&place.copy(), receiver.address, &[]);
    for _ in 0..10 {
        round_trip(&mut sender.connect(), b"with the key");
    }
    // The hint of the last message is another key's, so that nothing more is done with it.
    for _ in 0..10 {
        let mut stranger = receiver.connect();
        stranger.write_all(&[3; 57]).unwrap();
        let _reset = stranger.read(&mut [0]);
    }
    let hint_key: [u8; 16] = place.derived("hint");
    let (psk, content) = (place.psk(), fs::read(&place.key).unwrap());
    for daemon in [&receiver, &sender] {
        let parts = parts(daemon.child.id());
        assert!(parts.iter().any(|(is_locked, memory)| *is_locked && has(memory, &psk)));
        for (is_locked, memory) in &parts {
            assert!(*is_locked || !has(memory, &psk), "the key is in other memory");
            assert!(*is_locked || !has(memory, &hint_key), "the key of hints is in other memory");
            assert!(!has(memory, &content), "the content of the key file is in memory");
        }
    }
}

/// A container may have such a low limit.
#[test]
fn a_process_that_may_lock_no_memory_serves_none_the_less() {
    need("prlimit", "util-linux");
    let place = Place::new();
    let mut command = as_user("prlimit");
    command.arg("--memlock=0:0").arg(&place.program);
    let receiver = place.receiver(command, &Server::echo());
    let sender = Daemon::sender(&place.copy(), receiver.address, &[]);
    round_trip(&mut sender.connect(), b"unlocked");
}

/// No core is dumped even where there is no limit, wherever cores go.
#[test]
fn a_process_that_is_killed_leaves_no_core() {
    let place = Place::new();
    // A core would be left in this folder.
    fs::set_permissions(place.folder.path("."), PermissionsExt::from_mode(0o777)).unwrap();
    let unlimited = |program: &Path, more: &[&str]| {
        let mut command = as_user("sh");
        command.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).arg(program).args(more);
        command.current_dir(place.folder.path("."));
        command
    };
    let mut sleep = unlimited(Path::new("sleep"), &["1000"]).spawn().unwrap();
    let comm = format!("/proc/{}/comm", sleep.id());
    wait_until("it sleeps", || fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n"));
    signal(&sleep, "ABRT");
    if !sleep.wait().unwrap().core_dumped() {
        println!("*** SKIPPED: nothing is dumped on this system ***");
        return;
    }
    let mut receiver = place.receiver(unlimited(&place.program, &[]), &Server::echo());
    receiver.signal("ABRT");
    let status = receiver.wait();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status:?}");
}
