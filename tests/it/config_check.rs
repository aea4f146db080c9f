//! `spiped config-check`: each thing that a start refuses, and what it accepts, without a
//! start.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::pty::openpty;

use crate::support::net::{Cable, Resolver, namespaces_can_be};
use crate::support::{Daemon, Folder, Lines, Pipe, SPIPED, Server, nobody, round_trip};

/// What the command has printed, and its exit code.
struct Told {
    code: i32,
    output: String,
    errors: String,
}

/// Runs the command with these words, of which none has a blank, and these variables.
fn config_check(line: &str, variables: &[(&str, &str)]) -> Told {
    let mut command = Command::new(SPIPED);
    command.arg("config-check").args(line.split_whitespace());
    let done = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: done.status.code().unwrap(), output: text(done.stdout), errors: text(done.stderr) }
}

/// The lines of a printed configuration that are no comments.
fn given(printed: &str) -> Vec<(&str, &str)> {
    let lines = printed.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('=').unwrap()).collect()
}

#[test]
fn what_a_start_refuses_is_refused_with_the_same_lines_and_code() {
    let folder = Folder::new();
    let key = folder.shared_key().display().to_string();
    let short = folder.path("short.key");
    fs::write(&short, "short").unwrap();
    fs::set_permissions(&short, Permissions::from_mode(0o600)).unwrap();
    let open = folder.key("open.key");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let (short, open) = (short.display(), open.display());
    let (source, target) = (nobody(), nobody());
    let cases = [
        (64, format!("-s {source} -t {target} -k {key}")),
        (64, format!("-d -s {source} -k {key}")),
        (64, format!("-d -t {target} -k {key} -F")),
        (64, format!("-d -s {source} -t {source} -k {key}")),
        (64, format!("-d -s {source} -t {target} -k {key} --pad 1")),
        (64, format!("-d -s {source} -t {target} -k {key} --prewarm 2")),
        (64, format!("-d -s {source} -t {target} -k {key} --typo")),
        (65, format!("-d -s {source} -t {target} -k {short}")),
        (66, format!("-d -s {source} -t {target} -k {key}.gone")),
        (67, format!("-d -s {source} -t {target} -k {key} -u nosuchuser")),
        (67, format!("-e -s {source} -t {target} -k {key} --allow-uid nosuchuser")),
        (69, format!("-d -s no.such.invalid:1 -t {target} -k {key}")),
        (77, format!("-d -s {source} -t {target} -k {open}")),
    ];
    for (code, words) in cases {
        is_refused_as_by_a_start(code, &words);
    }
    if namespaces_can_be("a target that is an address of this host") {
        Cable::new().near.enter(|| {
            for source in ["0.0.0.0:9001", "[::]:9001"] {
                let words = format!("-d -s {source} -t 192.0.2.1:9001 -k {key}");
                is_refused_as_by_a_start(64, &words);
            }
            let words = format!("-d -s 0.0.0.0:9001 -t 192.0.2.2:9001 -k {key}");
            assert_eq!(config_check(&words, &[]).code, 0);
        });
    }
}

fn is_refused_as_by_a_start(code: i32, words: &str) {
    let Told { code: was, output, errors } = config_check(words, &[]);
    assert_eq!((was, &*output), (code, ""), "{words}: {errors}");
    let start = Command::new(SPIPED).args(words.split_whitespace()).output().unwrap();
    assert_eq!(start.status.code(), Some(code), "{words}: {start:?}");
    // A start also logs what it tries again.
    let of_start = String::from_utf8(start.stderr).unwrap();
    assert!(of_start.ends_with(&errors) && errors.lines().count() == 2, "{of_start}{errors}");
}

#[test]
fn variables_are_read_as_the_start_reads_them() {
    let folder = Folder::new();
    let key = folder.shared_key().display().to_string();
    let variables = [
        ("SPIPED_DECRYPT", "yes"),
        ("SPIPED_SOURCE", "127.0.0.1:7000"),
        ("SPIPED_TARGET", "127.0.0.1:6379"),
        ("SPIPED_KEY", &key),
    ];
    let Told { code, output, errors } = config_check("-F", &variables);
    assert_eq!((code, &*errors), (0, ""));
    assert!(given(&output).contains(&("SPIPED_DECRYPT", "1")), "{output}");

    let wrong = [variables.as_slice(), &[("SPIPED_TIMEOUT", "soon")]].concat();
    let told = config_check("-F", &wrong);
    assert!(told.code == 64 && told.errors.starts_with("spiped: SPIPED_TIMEOUT: 'soon' is not"));

    let unknown = [variables.as_slice(), &[("SPIPED_TIMEOT", "5")]].concat();
    let told = config_check("-F", &unknown);
    let warning = "spiped: warning: SPIPED_TIMEOT is no variable of spiped\nhint: did you mean";
    assert!(told.code == 0 && told.errors.starts_with(warning), "{}", told.errors);
    // In a unit, the start refuses it.
    let in_unit = [unknown.as_slice(), &[("SPIPED_UNIT", "spiped-receive@redis.service")]].concat();
    let told = config_check("-F", &in_unit);
    assert!(told.code == 64 && told.errors.contains("SPIPED_TIMEOT is no"), "{}", told.errors);
}

#[test]
fn weak_keys_and_unused_settings_are_warned_of_and_no_key_is_shown() {
    let folder = Folder::new();
    let keys = folder.path("keys");
    fs::create_dir(&keys).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o700)).unwrap();
    let passphrase = "correct horse battery staple is it";
    for (name, content) in [("weak.key", passphrase), ("gone.conf", "")] {
        fs::write(keys.join(name), content).unwrap();
        fs::set_permissions(keys.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    let keys = keys.display();
    let line = format!("-d -s 127.0.0.1:1 -t 127.0.0.1:2 -k {keys} --bind-per-key 127.64.0.0/10");
    let Told { code, output, errors } = config_check(&line, &[]);
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("warning: the key file") && errors.contains("looks like a passphrase"));
    assert!(errors.contains("warning: beside the settings"), "{errors}");
    let id = Command::new(SPIPED).args(["keyid", &format!("{keys}/weak.key")]).output().unwrap();
    let id = String::from_utf8(id.stdout).unwrap();
    let begin = format!("# key weak {} 127.", id.trim());
    let told = output.lines().find(|line| line.starts_with(&begin)).unwrap();
    assert!(told.ends_with(&format!(" {keys}/weak.key")), "{told}");
    assert!(!output.contains(passphrase) && !errors.contains(passphrase));
}

#[test]
fn what_is_printed_gives_the_same_configuration_again() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let key = key.display();
    let common = "-o 2.5 -n 77 --cipher aes-256-gcm --kex x25519 --pad 512 --busy-poll -j \
        --drain-timeout 3600 --threads 2 --log debug --log-format json --syslog -F --handover \
        --control /run/x/control --status 127.0.0.1:9101 -u root:root -p /run/x.pid -D";
    let receiver = "-d -s 127.0.0.1:7000 -t 127.0.0.1:6379 --per-key 9 -R \
        --bind-per-key 127.64.0.0/10 --proxy-protocol";
    let sender = "-e -s /run/x/source -t [::1]:7000 -b [::1]:0 -r 7 --prewarm 3 --tell-client \
        --allow-uid root,0 --allow-gid root --socket-mode 0660 --socket-owner root \
        --socket-group root --expose-status";
    for role in [receiver, sender] {
        let first = config_check(&format!("{role} {common} -k {key}"), &[]);
        assert_eq!((first.code, &*first.errors), (0, ""));
        let given = given(&first.output);
        let typed = format!("{role} {common}");
        let options = typed.split_whitespace().filter(|word| word.starts_with('-')).count();
        assert_eq!(given.len(), options, "{given:?}");
        let second = config_check(&format!("-k {key}"), &given);
        assert_eq!((second.code, second.output, &*second.errors), (0, first.output, ""));
    }
}

#[test]
fn nothing_is_bound_and_nothing_is_connected_to() {
    let folder = Folder::new();
    let server = Server::echo();
    let pipe = Pipe::to(&folder, server.address);
    let key = folder.shared_key();
    let before = server.accepted();
    let logged = pipe.receiver.log.all().len();
    let sender: &Daemon = &pipe.sender;
    for (role, source, target) in [
        ("-e", sender.address, pipe.receiver.address),
        ("-d", pipe.receiver.address, server.address),
    ] {
        let line = format!("{role} -s {source} -t {target} -k {}", key.display());
        let Told { code, errors, .. } = config_check(&line, &[]);
        assert_eq!((code, &*errors), (0, ""));
    }
    let unix = folder.path("source");
    let pid = folder.path("pid");
    let line = format!("-e -s {} -t {} -k {}", unix.display(), server.address, key.display());
    assert_eq!(config_check(&format!("{line} -p {}", pid.display()), &[]).code, 0);
    assert!(!unix.exists() && !pid.exists());
    assert_eq!(server.accepted(), before);
    assert_eq!(pipe.receiver.log.all().len(), logged, "{:?}", pipe.receiver.log.all());
    round_trip(&mut pipe.connect(), b"as before");
}

#[test]
fn a_resolver_without_an_answer_ends_the_check_in_time() {
    if !namespaces_can_be("a resolver that does not answer") {
        return;
    }
    let folder = Folder::new();
    let key = folder.shared_key();
    Resolver::with(|resolver| {
        // It takes questions, and answers none.
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        resolver.signal("STOP");
        let words = format!("-d -s 127.0.0.1:7 -t db.example:1 -o 0.5 -k {}", key.display());
        let began = Instant::now();
        let Told { code, output, errors } = config_check(&words, &[]);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let warning = "spiped: warning: the name db.example does not resolve: the resolver did not \
            answer in 500ms\nhint: check the name after -t and the resolver\n";
        assert_eq!((code, &*errors), (0, warning));
        assert!(output.contains("SPIPED_TARGET=db.example:1\n"), "{output}");
        let words =
            words.replace("-s 127.0.0.1:7 -t db.example:1", "-s db.example:1 -t 127.0.0.1:7");
        let Told { code, errors, .. } = config_check(&words, &[]);
        assert!(code == 69 && errors.contains("cannot listen on db.example:1"), "{errors}");
        let Told { code, errors, .. } = config_check(&format!("{words} -D"), &[]);
        assert!(code == 0 && errors.contains("(-D)"), "{errors}");
        resolver.signal("CONT");
    });
}

#[test]
fn a_name_stands_alone_and_is_of_a_unit() {
    for (words, said) in [
        ("redis more", "'redis' is a name, and more stands behind it"),
        ("spiped-send", "'spiped-send' is no unit of a pipe with a name"),
        ("/run/redis", "'/run/redis' is no unit of a pipe with a name"),
        (
            "/etc/spiped/redis.conf",
            "'/etc/spiped/redis.conf' is no unit of a pipe with a name\nhint: for this file: spiped config-check redis\n",
        ),
        (
            "/etc/spiped/a,b.conf",
            "'/etc/spiped/a,b.conf' is no unit of a pipe with a name\nhint: write ",
        ),
        ("a=b", "'a=b'"),
    ] {
        let Told { code, output, errors } = config_check(words, &[]);
        assert_eq!((code, &*output), (64, ""), "{errors}");
        assert!(errors.starts_with(&format!("spiped: config-check: {said}")), "{errors}");
    }
}

#[test]
fn a_terminal_gets_no_characters_that_control_it() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let terminal = openpty(None, None).unwrap();
    let mut command = Command::new(SPIPED);
    command.args(["config-check", "-d", "-t", "127.0.0.1:2", "-k"]).arg(&key);
    command.args(["-s", "/run/\u{1b}[2Jx"]);
    let plain = command.output().unwrap();
    assert!(plain.stdout.contains(&0x1b));
    let mut child = command.stdout(terminal.slave).spawn().unwrap();
    // The terminal ends with its last program.
    drop(command);
    let lines = Lines::collect(File::from(terminal.master));
    let line = lines.wait_for("SPIPED_SOURCE=");
    assert!(line.contains("\\u{1b}[2Jx"), "{line:?}");
    assert!(child.wait().unwrap().success());
}
