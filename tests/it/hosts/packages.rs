//! The Debian package under dpkg, and scripts/install, on a host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::restarts::clients_see;
use crate::packages::{later, package};
use crate::support::hosts::{Host, Hosts, hosts_can_be, must, project, said};
use crate::support::{Folder, SPIPED, need, skip, wait_until};

const UNITS: [&str; 2] = ["spiped-receive.service", "spiped-send.service"];
/// A pipe with a name, and the socket that starts it.
const NAMED: &str = "spiped-send@x.service";
const SOCKET: &str = "spiped-send@x.socket";

/// A host with a writable /usr, and a dpkg that knows only what the package depends on.
fn boot() -> Hosts {
    let hosts = Hosts::boot_with(&["host"], |_usr| {});
    let host = &hosts["host"];
    host.sh("mkdir -p /run/usr/{upper,work} /var/lib/dpkg/{info,updates,triggers}
         mount -t overlay -o lowerdir=/usr,upperdir=/run/usr/upper,workdir=/run/usr/work none /usr
         rm -f /usr/sbin/policy-rc.d");
    let libc = must(Command::new("dpkg").args(["--status", "libc6"]));
    fs::write(host.root.join("var/lib/dpkg/status"), libc + "\n\n").unwrap();
    hosts
}

/// Puts a file into root's home.
fn give(host: &Host, file: &Path, name: &str) {
    fs::copy(file, host.root.join("root").join(name)).unwrap();
}

/// The paths of these pages in the host's manual.
fn manual(host: &Host, pages: &str) -> String {
    need("man", "man-db");
    fs::copy("/etc/manpath.config", host.root.join("etc/manpath.config")).unwrap();
    host.must(&format!("man -w {pages}"))
}

/// A package that has Debian's name for its own spiped.
fn debians(folder: &Folder) -> PathBuf {
    let root = folder.path("debians");
    fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = "Package: spiped\nVersion: 1.6.2-1\nArchitecture: all\n\
                   Maintainer: nobody <nobody@example.org>\nDescription: stands for Debian's\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/spiped"), "its program").unwrap();
    must(Command::new("dpkg-deb").arg("--build").arg(&root));
    root.with_extension("deb")
}

/// Both ends of a pipe to the host's own Redis, and a sender that waits behind its
/// socket.
fn configure(host: &Host) {
    host.has_redis();
    host.write_etc("redis.addr", "ADDR=192.0.2.1\n", 0o644);
    host.write_etc("x.conf", "SPIPED_TARGET=192.0.2.1:6379\n", 0o644);
    for key in ["redis.key", "x.key"] {
        host.write_etc(key, [3; 32], 0o600);
    }
    for unit in UNITS {
        host.start("enable --quiet --now", unit);
    }
    host.must(&format!("systemctl enable --quiet --now {SOCKET}"));
    assert!(serve(host));
}

/// Whether both senders carry data.
fn serve(host: &Host) -> bool {
    host.redis("ping") == "PONG" && host.redis("-s /run/spiped/x.socket ping") == "PONG"
}

fn processes(host: &Host) -> [String; 3] {
    let [receive, send] = UNITS;
    [receive, send, NAMED].map(|unit| host.must(&format!("systemctl show -P MainPID {unit}")))
}

#[test]
fn the_package_is_installed_upgraded_in_use_removed_and_purged() {
    if !hosts_can_be("the Debian package") {
        return;
    }
    let folder = Folder::new();
    let hosts = boot();
    let host = &hosts["host"];
    give(host, &package(&folder, None), "old.deb");
    give(host, &package(&folder, Some(&later())), "new.deb");

    // Nothing of the package is enabled or runs.
    host.must("dpkg --install /root/old.deb");
    assert_eq!(host.must("stat --format %a:%U /etc/spiped"), "700:root");
    for unit in UNITS {
        assert_eq!(said(&host.run(&format!("systemctl is-enabled {unit}"))), "disabled");
    }
    assert_eq!(host.must("systemctl list-units --all --plain --no-legend spiped*"), "");
    assert_eq!(manual(host, "spiped spipe spiped.conf spiped-protocol").lines().count(), 4);
    host.sh(". /usr/share/bash-completion/completions/spiped; complete -p spiped");

    configure(host);
    let before = processes(host);
    let socket = || host.must(&format!("systemctl show -P InvocationID {SOCKET}"));
    let listening = socket();
    let mut upgraded = String::new();
    let seen = clients_see(host, "127.0.0.1:8000", || {
        upgraded = host.must("dpkg --install /root/new.deb");
    });
    println!(
        "an upgrade: {} new connections, the slowest answer after {:?}",
        seen.served, seen.slowest
    );
    assert!(seen.slowest < Duration::from_secs(1), "{:?}", seen.slowest);
    assert!(!upgraded.contains("downgrading"), "{upgraded}");
    for (before, after) in before.iter().zip(processes(host)) {
        assert_ne!(*before, after);
        assert_eq!(host.must(&format!("readlink /proc/{after}/exe")), "/usr/bin/spiped");
    }
    assert_eq!(socket(), listening);
    wait_until("it serves again", || serve(host));

    host.must("dpkg --remove spiped-rs");
    assert_eq!(host.must("systemctl list-units --plain --no-legend --state active spiped*"), "");
    assert!(!host.run("test -e /usr/bin/spiped").status.success());
    assert_eq!(fs::read(host.etc("redis.key")).unwrap(), [3; 32]);

    // Enabled units run again after the next start, with their settings. An earlier
    // version had the address of the units without a name in another file.
    host.must("mv /etc/spiped/redis.addr /etc/spiped/redis.conf");
    let told = host.must("dpkg --install /root/new.deb");
    let (_, start) = told.split_once("are enabled, but do not run. To start them:\n  ").unwrap();
    assert_eq!(host.must("cat /etc/spiped/redis.addr"), "ADDR=192.0.2.1");
    assert!(!host.etc("redis.conf").exists());
    assert_eq!(host.must("systemctl is-enabled spiped-send"), "enabled");
    // The printed command starts them all.
    assert!(!upgraded.contains("do not run"), "{upgraded}");
    host.must(start.lines().next().unwrap());
    wait_until("it serves again", || serve(host));
    assert!(!host.must("dpkg --install /root/new.deb").contains("do not run"));
    host.sh("cd /etc/systemd/system
         mkdir other.service.d spiped-receive.service.d spiped-send@x.socket.d
         touch spiped-send@x.socket.d/listen.conf");
    host.must("dpkg --purge spiped-rs");
    assert_eq!(host.must("find /etc /usr/bin /usr/lib/systemd /usr/share/man -name spipe*"), "");
    assert!(host.root.join("etc/systemd/system/other.service.d").exists());
    assert!(!host.run("dpkg --status spiped-rs").status.success());
}

#[test]
fn the_package_is_not_installed_beside_debians_spiped_nor_as_its_upgrade() {
    if !hosts_can_be("the Debian package") {
        return;
    }
    let folder = Folder::new();
    let hosts = boot();
    let host = &hosts["host"];
    give(host, &package(&folder, None), "ours.deb");
    give(host, &debians(&folder), "debians.deb");
    host.must("dpkg --install /root/debians.deb");
    let refused = host.run("dpkg --install /root/ours.deb");
    assert!(!refused.status.success());
    assert!(said(&refused).contains("spiped-rs conflicts with spiped"), "{}", said(&refused));
    assert_eq!(host.must("cat /usr/bin/spiped"), "its program");
    host.must("dpkg --purge spiped");

    // On a host that is not booted, nothing fails for lack of systemd.
    host.sh("unshare --mount bash -euc 'mount -t tmpfs none /run/systemd
            dpkg --install /root/ours.deb
            dpkg --install /root/ours.deb
            dpkg --purge spiped-rs'");
    host.must("test ! -e /etc/spiped");

    // Debian's own package has replaced this one: a purge of this one leaves /etc/spiped
    // alone.
    host.must("dpkg --install /root/ours.deb");
    host.must("dpkg --remove spiped-rs");
    host.must("dpkg --install /root/debians.deb");
    host.must("dpkg --purge spiped-rs");
    host.must("test -d /etc/spiped");
    host.must("dpkg --purge spiped");

    // The files of scripts/install stay, too, with the settings of its units.
    host.must("dpkg --install /root/ours.deb");
    host.sh("cp /usr/bin/spiped /usr/local/bin
         mkdir /etc/systemd/system/spiped-receive@x.service.d");
    host.must("dpkg --purge spiped-rs");
    host.must("test -d /etc/spiped -a -d /etc/systemd/system/spiped-receive@x.service.d");
}

/// Debian's own spiped, the real package, which `scripts/test` has downloaded.
fn spiped_1_6() -> Option<PathBuf> {
    let mut packages = fs::read_dir(project("target/bench/debian")).ok()?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
    packages.find_map(|file| Some(file.ok()?.path()).filter(is_package))
}

/// A pipe to the host's Redis in the operator's own units, and a unit that only mentions
/// spiped.
fn write_units(host: &Host) {
    let units = [
        (
            "pipe-in.service",
            "[Service]\nExecStart=/usr/bin/spiped -F -d -s [127.0.0.1]:7000 \
             -t [127.0.0.1]:6379 -k /root/redis.key\n",
        ),
        ("pipe-out.service", "[Unit]\nDescription=see below\n"),
        (
            "pipe-out.service.d/how.conf",
            "[Service]\nExecStart=-/bin/sh -c \\\n  'exec spiped -F -e -s [127.0.0.1]:8000 \
             -t [127.0.0.1]:7000 -k /root/redis.key'\n",
        ),
        (
            "other.service",
            "[Service]\n# As /usr/bin/spiped has it.\n\
             ExecStart=/bin/echo /root/spiped.key /usr/local/bin/spiped spiped.conf\n",
        ),
    ];
    let folder = host.root.join("etc/systemd/system");
    fs::create_dir(folder.join("pipe-out.service.d")).unwrap();
    for (name, text) in units {
        fs::write(folder.join(name), text).unwrap();
    }
    host.sh("umask 077; head -c 32 /dev/urandom > /root/redis.key; systemctl daemon-reload");
}

#[test]
fn users_of_spiped_1_6_are_told_what_the_next_restart_does() {
    if !hosts_can_be("coming from Debian's spiped") {
        return;
    }
    let Some(theirs) = spiped_1_6() else {
        skip("has no spiped 1.6 in target/bench/debian", "coming from Debian's spiped");
        return;
    };
    let folder = Folder::new();
    let hosts = boot();
    let host = &hosts["host"];
    give(host, &theirs, "theirs.deb");
    give(host, &package(&folder, None), "ours.deb");
    give(host, &package(&folder, Some(&later())), "new.deb");
    // This dpkg does not know the libssl that is installed.
    host.must("dpkg --force-depends --install /root/theirs.deb");
    host.has_redis();
    write_units(host);
    host.must("systemctl start pipe-in pipe-out");
    wait_until("spiped 1.6 serves", || host.redis("ping") == "PONG");

    host.must("dpkg --remove spiped");
    let told = host.must("dpkg --install /root/ours.deb");
    let units: Vec<_> = told.lines().filter(|line| line.starts_with("  /")).collect();
    let folder = "  /etc/systemd/system";
    assert_eq!(
        units,
        [format!("{folder}/pipe-in.service"), format!("{folder}/pipe-out.service.d/how.conf")],
        "{told}"
    );
    assert!(told.contains("THEN IT SPEAKS ANOTHER PROTOCOL"), "{told}");
    let (_, ours) = told.split_once("\nspiped-rs: ").unwrap();
    let mut ours = ours.lines().filter(|line| !line.starts_with("dpkg: "));
    assert!(ours.all(|line| line.len() <= 80), "{told}");

    // What the message said comes true.
    assert_eq!(host.redis("ping"), "PONG");
    host.must("systemctl restart pipe-in");
    wait_until("it listens", || host.log("pipe-in").contains(" listening on "));
    assert_ne!(host.redis("ping"), "PONG");
    assert!(host.log("pipe-in").contains("looks like spiped 1.x"), "{}", host.log("pipe-in"));
    host.must("systemctl restart pipe-out");
    wait_until("both are of this version", || host.redis("ping") == "PONG");

    // An upgrade changes nothing for these units.
    let told = host.must("dpkg --install /root/new.deb");
    assert!(!told.contains("PROTOCOL"), "{told}");
}

#[test]
fn what_scripts_install_puts_under_usr_local_runs() {
    if !hosts_can_be("scripts/install") {
        return;
    }
    let hosts = Hosts::boot_with(&["host"], |usr| {
        let mut script = Command::new(project("scripts/install"));
        script.args(["--prefix=/usr/local", &format!("--binary={SPIPED}")]);
        must(script.arg(format!("--destdir={}", usr.parent().unwrap().display())));
    });
    let host = &hosts["host"];
    configure(host);
    for process in processes(host) {
        let program = host.must(&format!("readlink /proc/{process}/exe"));
        assert_eq!(program, "/usr/local/bin/spiped");
    }
    assert_eq!(manual(host, "spiped"), "/usr/local/share/man/man1/spiped.1");
}
