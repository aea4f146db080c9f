//! The image of the Containerfile, booted by systemd-nspawn: this machine has no engine
//! for containers, but an engine would run this bundle.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::hosts::{must, project};
use crate::support::net::{Resolver, namespaces_can_be};
use crate::support::{Daemon, End, Folder, SPIPED, Server, need, noise, read_to_end, round_trip};

/// The arguments of all instructions of a name, with continued lines joined.
fn instructions(name: &str) -> Vec<String> {
    let file = fs::read_to_string(project("Containerfile")).unwrap();
    let code: Vec<_> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let code = code.join("\n").replace("\\\n", " ");
    let name = format!("{name} ");
    code.lines().filter_map(|line| line.strip_prefix(&name)).map(str::to_owned).collect()
}

fn instruction(name: &str) -> String {
    let mut all = instructions(name);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all.remove(0)
}

/// Makes the image's files in this folder, with the last step of the build itself.
fn fill(image: &Path) {
    let build = image.with_extension("build");
    fs::create_dir_all(build.join("target/release")).unwrap();
    fs::copy(SPIPED, build.join("target/release/spiped")).unwrap();
    assert!(instructions("COPY").contains(&"--from=build /image /".to_owned()));
    let step = instructions("RUN").pop().unwrap();
    let step = step.replace("/image", image.to_str().unwrap());
    must(Command::new("sh").args(["-euc", &step]).current_dir(build));
}

/// The program in its container, as process 1 there.
struct Container {
    // Dropped last, after the processes in the container have been ended.
    nspawn: Daemon,
    key: PathBuf,
}

impl Container {
    /// Runs the image with these arguments, in the network of the caller.
    fn run(folder: &Folder, arguments: &[&str]) -> Self {
        let bundle = folder.path("bundle");
        fill(&bundle.join("rootfs"));
        let (user, group) = user();
        let key = bundle.join("key");
        fs::copy(folder.shared_key(), &key).unwrap();
        fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
        chown(&key, Some(user), Some(group)).unwrap();

        let environment = instruction("ENV");
        let (_, key_inside) = environment.split_once("SPIPED_KEY=").unwrap();
        let mut command: Vec<String> = serde_json::from_str(&instruction("ENTRYPOINT")).unwrap();
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let bind = |inside: &str, outside: &Path| json!({"destination": inside, "type": "bind", "source": outside});
        let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": command,
                "env": [environment, "SPIPED_LOG=debug", "SPIPED_KEX=x25519mlkem768"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {},
            },
            "root": {"path": "rootfs", "readonly": true},
            // The files that every engine puts there, and the key.
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                bind("/etc/hosts", &folder.path("hosts")),
                bind("/etc/resolv.conf", &folder.path("resolv.conf")),
                bind(key_inside, &key),
            ],
            "linux": {"namespaces": namespaces},
        });
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        nspawn.arg(format!("--machine=spiped-test-{}", std::process::id()));
        nspawn.arg("--oci-bundle").arg(&bundle);
        Self { nspawn: Daemon::spawn(nspawn), key }
    }

    /// The id of the container's process 1 on this machine.
    fn leader(&self) -> String {
        let nspawn = self.nspawn.child.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"));
        children.unwrap_or_default().trim().to_owned()
    }

    fn signal(&self, name: &str) {
        must(Command::new("kill").args(["-s", name, &self.leader()]));
    }

    /// The values of a line in `/proc/1/status`.
    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.leader())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // nspawn would leave the process behind.
        let leader = self.leader();
        if !leader.is_empty() {
            let _gone = Command::new("kill").args(["-s", "KILL", &leader]).output();
        }
        let _status = self.nspawn.child.wait();
    }
}

/// The ids of the user and group that the image runs as.
fn user() -> (u32, u32) {
    let user = instruction("USER");
    let (user, group) = user.split_once(':').unwrap();
    (user.parse().unwrap(), group.parse().unwrap())
}

/// A digest keeps the build independent of what the tag points to later.
#[test]
fn each_base_image_is_named_by_its_digest() {
    let images = instructions("FROM");
    assert_eq!(images.len(), 2, "{images:?}");
    for image in images.iter().filter(|image| *image != "scratch") {
        let digest = image.split_once("@sha256:").map_or("", |(_, rest)| rest);
        let digest = digest.split(' ').next().unwrap();
        let is_hex = digest.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        assert!(digest.len() == 64 && is_hex, "{image}");
    }
}

#[test]
fn it_is_process_1_in_a_container_with_nothing_else() {
    if !namespaces_can_be("the container") {
        return;
    }
    need("systemd-nspawn", "systemd-container");
    Resolver::with(|resolver| {
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let folder = &resolver.folder;
        let server = Server::echo();
        let target = format!("target.test:{}", server.address.port());
        let mut container = Container::run(folder, &["-d", "-s", "[127.0.0.1]:0", "-t", &target]);

        let (user, group) = user();
        assert_ne!(user, 0);
        assert_eq!(container.status("Uid:"), [user; 4].map(|id| id.to_string()).join(" "));
        assert_eq!(container.status("Gid:"), [group; 4].map(|id| id.to_string()).join(" "));
        assert!(container.status("NSpid:").ends_with(" 1"));
        assert_eq!(u64::from_str_radix(&container.status("CapEff:"), 16), Ok(0));

        let sender = Daemon::sender(&folder.shared_key(), container.nspawn.address, &[]);
        let mut client = sender.connect();
        round_trip(&mut client, &noise(1, 100_000));
        let key = folder.shared_key();
        let classical = Daemon::sender(&key, container.nspawn.address, &["--kex", "x25519"]);
        assert_eq!(read_to_end(&mut classical.connect()), (vec![], End::Reset));
        container.nspawn.log.wait_for(" reason=kex-refused ");

        fs::copy(folder.key("other.key"), &container.key).unwrap();
        container.signal("HUP");
        container.nspawn.log.wait_for("keys reloaded");

        // The open connection may end by itself, and then the container ends.
        container.signal(&instruction("STOPSIGNAL"));
        container.nspawn.log.wait_for("TERM received");
        round_trip(&mut client, &noise(2, 100_000));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let closed = Instant::now();
        assert_eq!(container.nspawn.wait().code(), Some(0));
        assert!(closed.elapsed() < Duration::from_secs(5));
    });
}

/// The build stage copies everything that cargo needs.
#[test]
fn the_build_has_all_it_needs() {
    // The folder is the same each time, so that cargo's output does not pile up.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let build = tmp.join("container");
    let _not_there = fs::remove_dir_all(&build);
    fs::create_dir_all(&build).unwrap();
    for sources in instructions("COPY").iter().filter(|copy| !copy.starts_with("--from")) {
        let (sources, to) = sources.rsplit_once(' ').unwrap();
        for source in sources.split(' ') {
            must(Command::new("cp").arg("-R").arg(project(source)).arg(build.join(to)));
        }
    }
    // The check is quick after the lints, which have built the dependencies.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--bin=spiped", "--offline", "--locked", "--quiet", "--target-dir"]);
    must(cargo.arg(tmp.parent().unwrap()).current_dir(build));
    let rust = format!("rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(instructions("FROM")[0].starts_with(&rust), "{rust}");
}
