//! The Debian package and scripts/install: what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::hosts::{must, project};
use crate::support::{Folder, SPIPED, need};

/// Packs the program under test, with this Debian version or its own.
pub fn package(folder: &Folder, version: Option<&str>) -> PathBuf {
    need("dpkg-shlibdeps", "dpkg-dev");
    need("strip", "binutils");
    let path = folder.path(&format!("spiped-rs-{}.deb", version.unwrap_or("own")));
    let mut script = Command::new(project("scripts/package"));
    script.arg(format!("--binary={SPIPED}")).arg(format!("--output={}", path.display()));
    // These options make packing quick.
    script.args(["-Zgz", "--fast", "--compress-system"]);
    script.args(version.map(|version| format!("--deb-version={version}")));
    assert_eq!(must(&mut script), path.display().to_string());
    path
}

/// A Debian version after this one, even if this one is a pre-release.
pub fn later() -> String {
    format!("{}-2", env!("CARGO_PKG_VERSION").split('-').next().unwrap())
}

/// Runs scripts/install with the program under test.
fn install(arguments: &[&str]) -> Output {
    install_command().args(arguments).output().unwrap()
}

fn install_command() -> Command {
    let mut script = Command::new(project("scripts/install"));
    script.arg(format!("--binary={SPIPED}")).env_remove("PREFIX").env_remove("DESTDIR");
    script
}

/// All files in a folder, by their paths relative to it.
fn files(folder: &Path) -> BTreeSet<String> {
    let find = must(Command::new("find").args([".", "-not", "-type", "d"]).current_dir(folder));
    find.lines().map(|path| path.trim_start_matches("./").to_owned()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_package_is_one_that_debian_would_take() {
    need("lintian", "lintian");
    let folder = Folder::new();
    let package = package(&folder, None);
    let field = |name: &str| must(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
    assert_eq!(field("Package"), "spiped-rs");
    assert_eq!(field("Conflicts"), "spiped");
    assert_eq!(field("Provides") + &field("Replaces"), "");
    // The host of the package needs nothing of the build.
    let depends = field("Depends");
    assert!(depends.starts_with("libc6 (>= ") && !depends.contains("rust"), "{depends}");
    let sorts = ["--compare-versions", &field("Version"), "lt", &later()];
    must(Command::new("dpkg").args(sorts));

    let lintian =
        must(Command::new("lintian").args(["--allow-root", "--fail-on=error"]).arg(&package));
    // lintian's only remark is meant for Debian's own packages.
    let others = lintian.lines().filter(|line| !line.contains("initial-upload-closes-no-bugs"));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_package_and_the_install_have_the_same_files() {
    let folder = Folder::new();
    let (packed, installed) = (folder.path("packed"), folder.path("installed"));
    must(Command::new("dpkg-deb").arg("--extract").arg(package(&folder, None)).arg(&packed));
    must(Command::new("gunzip").arg("--recursive").arg(packed.join("usr/share/man")));
    fs::remove_dir_all(packed.join("usr/share/doc")).unwrap();
    let zsh = packed.join("usr/share/zsh");
    fs::rename(zsh.join("vendor-completions"), zsh.join("site-functions")).unwrap();
    let destdir = format!("--destdir={}", installed.display());
    assert!(install(&["--prefix=/usr", &destdir]).status.success());

    let packed_files = files(&packed);
    assert_eq!(packed_files, files(&installed));
    for file in packed_files.iter().filter(|file| !file.starts_with("usr/bin")) {
        assert_eq!(read(&packed.join(file)), read(&installed.join(file)), "{file}");
    }
    for sources in ["man", "systemd"] {
        for source in fs::read_dir(project(sources)).unwrap() {
            let name = format!("/{}", source.unwrap().file_name().to_str().unwrap());
            assert!(packed_files.iter().any(|file| file.ends_with(&name)), "{name}");
        }
    }
    for root in [packed, installed] {
        let linked = fs::read_link(root.join("usr/bin/spipe")).unwrap();
        assert_eq!(linked, Path::new("spiped"));
        must(Command::new(root.join("usr/bin/spipe")).arg("--version"));
    }
}

#[test]
fn what_is_installed_elsewhere_knows_where_it_is_and_can_be_taken_away() {
    let folder = Folder::new();
    let root = folder.path("root");
    let destdir = format!("--destdir={}", root.display());
    assert!(install(&["--prefix=/opt/pipe", &destdir]).status.success());
    let units = root.join("opt/pipe/lib/systemd/system");
    let unit = read(&units.join("spiped-receive.service"));
    assert!(unit.contains("\nExecStart=/opt/pipe/bin/spiped -F"), "{unit}");
    for unit in fs::read_dir(units).unwrap() {
        assert!(!read(&unit.unwrap().path()).contains("/usr/bin/spiped"));
    }
    let etc = root.join("etc/spiped");
    assert_eq!(fs::metadata(&etc).unwrap().permissions().mode() & 0o7777, 0o700);

    // The environment can set both folders, too.
    fs::write(etc.join("redis.key"), [7; 32]).unwrap();
    let installed = files(&root);
    must(install_command().env("PREFIX", "/opt/pipe").env("DESTDIR", &root));
    assert_eq!(files(&root), installed);
    assert!(install(&["--prefix=/opt/pipe", &destdir, "--uninstall"]).status.success());
    assert_eq!(files(&root), ["etc/spiped/redis.key".to_owned()].into());
}

#[test]
fn install_has_help_and_says_what_it_cannot_do() {
    let help = install(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("--uninstall"));
    for (wrong, hint) in [("--perfix=/usr", "--help"), ("--prefix=usr", "must begin with /")] {
        let refused = install(&[wrong]);
        assert_eq!(refused.status.code(), Some(64));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(hint), "{said}");
    }
}

/// The first command of README.md: apt takes a path that does not begin with `/` or `./`
/// for the name of a package.
#[test]
fn what_scripts_package_prints_is_what_apt_installs() {
    need("dpkg-shlibdeps", "dpkg-dev");
    need("strip", "binutils");
    let mut script = Command::new(project("scripts/package"));
    script.arg(format!("--binary={SPIPED}")).args(["-Zgz", "--fast", "--compress-system"]);
    let printed = must(script.current_dir(project("tests")));
    assert!(Path::new(&printed).is_absolute() && Path::new(&printed).is_file(), "{printed}");
    let planned = must(Command::new("apt-get").args(["install", "--simulate", &printed]));
    assert!(planned.contains("\nInst spiped-rs "), "{planned}");
}
