//! `spiped check`: what works and what does not, each with the real thing.

mod all;
mod host;
mod lacks;
mod lies;
mod plaintext;
mod systemd;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::net::{Cable, Resolver, namespaces_can_be};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, SPIPED, Server, nobody, round_trip, wait_until};

/// What the command has printed, and its exit code.
struct Told {
    code: i32,
    output: String,
    errors: String,
}

/// Runs the command; `line` has no blank inside a word.
fn check(line: &str) -> Told {
    let mut command = Command::new(SPIPED);
    let done = command.arg("check").args(line.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: done.status.code().unwrap(), output: text(done.stdout), errors: text(done.stderr) }
}

/// The code of each failure, and that of Nagios.
const OF_NAGIOS: [(i32, i32); 10] =
    [(1, 2), (64, 3), (65, 3), (66, 3), (67, 2), (68, 2), (69, 2), (75, 2), (76, 2), (77, 3)];

/// The check fails so in each form. What is wrong begins with `text`.
fn fails(line: &str, code: i32, text: &str) {
    let Told { code: was, output, errors } = check(line);
    assert_eq!((was, &*output), (code, ""), "{line}: {errors}");
    let lines: Vec<_> = errors.lines().collect();
    let [said, hint] = lines[..] else { panic!("{line}: {errors}") };
    assert!(said.starts_with(&format!("spiped: {text}")), "{line}: {said}");
    assert!(hint.starts_with("hint: ") && hint.len() > 20, "{line}: {hint}");

    let (_, of_nagios) = OF_NAGIOS.iter().find(|(of_ours, _)| *of_ours == code).unwrap();
    let state = if *of_nagios == 2 { "CRITICAL" } else { "UNKNOWN" };
    let Told { code: was, output, .. } = check(&format!("{line} --plugin"));
    assert_eq!((was, output.lines().count()), (*of_nagios, 1), "{line}: {output}");
    assert!(output.starts_with(&format!("SPIPED {state} - {text}")), "{line}: {output}");
    assert!(!output.contains('|'), "{output}");

    let Told { code: was, output, .. } = check(&format!("{line} --json"));
    assert_eq!(was, code, "{line}: {output}");
    // Without words that can be read, the form is not known.
    if code != 64 {
        let told: Value = serde_json::from_str(&output).unwrap();
        assert_eq!((&told["ok"], &told["exit"]), (&Value::from(false), &Value::from(code)));
        assert!(told["error"].as_str().unwrap().starts_with(text), "{told}");
        assert!(told["hint"].as_str().is_some_and(|hint| hint.len() > 10), "{told}");
    }
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("{name}: {text}"))[name.len()..].trim()
}

#[test]
fn a_pipe_that_works_is_told_with_its_times_its_session_and_its_key() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let key = folder.shared_key().display().to_string();
    let receiver = Daemon::receiver(&folder.shared_key(), redis.address, &[]);
    let before = redis.info("total_connections_received");
    let id = Command::new(SPIPED).args(["keyid", &key]).output().unwrap().stdout;
    let id = String::from_utf8(id).unwrap();
    for (kex, cipher) in [("x25519", "chacha20-poly1305"), ("x25519mlkem768", "aes-256-gcm")] {
        let to =
            format!("-t {} -k {key} --kex {kex} --cipher {cipher} -b 127.0.0.9", receiver.address);
        let Told { code, output, errors } = check(&to);
        assert_eq!((code, &*errors), (0, ""), "{output}");
        for step in ["connect", "handshake", "target"] {
            let time = field(&output, step).strip_suffix(" ms").unwrap();
            assert!(time.parse::<f64>().unwrap() >= 0.0, "{output}");
        }
        assert_eq!((field(&output, "kex"), field(&output, "cipher")), (kex, cipher));
        assert_eq!((field(&output, "key"), field(&output, "key_id")), ("redis", id.trim()));
        let line = receiver.log.wait_for(&format!(" conn={} ", field(&output, "conn")));
        for part in [" reason=finished ", " client=nobody ", " peer=127.0.0.9:"] {
            assert!(line.contains(part), "{line}");
        }

        let told: Value = serde_json::from_str(&check(&format!("{to} --json")).output).unwrap();
        assert_eq!((&told["ok"], &told["exit"]), (&Value::from(true), &Value::from(0)));
        let pipe = &told["pipe"];
        assert_eq!((&pipe["kex"], &pipe["cipher"]), (&Value::from(kex), &Value::from(cipher)));
        assert!(pipe["handshake_seconds"].as_f64().unwrap() > 0.0, "{told}");

        let Told { code, output, .. } = check(&format!("{to} --plugin"));
        let (said, values) = output.split_once(" |").unwrap();
        assert_eq!(code, 0);
        assert!(said.starts_with("SPIPED OK - ") && said.contains(" takes key redis, "), "{said}");
        let names: Vec<_> =
            values.split_whitespace().map(|value| value.split('=').next()).collect();
        assert_eq!(names, ["time", "connect", "handshake", "target"].map(Some));
        assert!(values.split_whitespace().all(|value| value.ends_with("s;;;0")), "{values}");
    }
    // Each question of redis-cli is a connection.
    let now: u64 = redis.info("total_connections_received").parse().unwrap();
    assert_eq!(now, before.parse::<u64>().unwrap() + 1);
}

#[test]
fn the_variables_of_a_sender_say_what_is_checked() {
    let folder = Folder::new();
    let server = Server::echo();
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &["--kex", "x25519"]);
    let run = |key: &Path, more: &[&str]| {
        let mut command = Command::new(SPIPED);
        command.arg("check").args(more).env("SPIPED_KEY", key).env("SPIPED_KEX", "x25519");
        command.env("SPIPED_TARGET", receiver.address.to_string()).env("SPIPED_SOURCE", "x:1");
        command.output().unwrap()
    };
    let done = run(&folder.shared_key(), &[]);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let done = run(&folder.path("none"), &[]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(66));
    assert!(said.starts_with("spiped: SPIPED_KEY: cannot read the key file "), "{said}");
    // What is typed counts more.
    let typed = nobody().to_string();
    assert_eq!(run(&folder.shared_key(), &["-t", &typed]).status.code(), Some(69));
}

#[test]
fn what_is_down_or_filtered_is_unreachable() {
    let folder = Folder::new();
    let key = folder.shared_key().display().to_string();
    let down = "cannot reach the receiver: target refused the connection";
    fails(&format!("-t {} -k {key}", nobody()), 69, down);
    fails(
        &format!("-t {} -k {key}", folder.path("none").display()),
        69,
        "cannot reach the receiver",
    );
    if namespaces_can_be("a receiver behind a filter") {
        let cable = Cable::new();
        cable.cut();
        let silent = "cannot reach the receiver: target did not answer in 300ms";
        let line = format!("-t 192.0.2.2:6379 -k {key} -o 0.3");
        cable.near.enter(|| fails(&line, 69, silent));
    }
}

#[test]
fn a_name_that_does_not_resolve_has_an_exit_code_of_its_own() {
    if !namespaces_can_be("names of spiped check") {
        return;
    }
    Resolver::with(|resolver| {
        let key = resolver.folder.shared_key().display().to_string();
        let line = |name: &str| format!("-t {name}:6379 -k {key} -o 0.5");
        resolver.say(&["127.0.0.1"]);
        resolver.start();
        let unresolved =
            |name| format!("cannot reach the receiver: the name {name} does not resolve");
        fails(&line("other.test"), 68, &unresolved("other.test"));
        fails(&line("target.test"), 69, "cannot reach the receiver: target refused");
        // Questions get no answer.
        resolver.signal("STOP");
        fails(&line("target.test"), 68, &unresolved("target.test"));
    });
}

/// The first bytes of servers that are not asked in their own protocol.
#[test]
fn another_program_is_named() {
    let folder = Folder::new();
    let key = folder.shared_key().display().to_string();
    let answers: [(&[u8], &str); 6] = [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "ssh"),
        (b"-ERR unknown command\r\n", "plaintext redis"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http"),
        (b"\x15\x03\x03\0\x02\x02\x46", "tls"),
        (b"220 mail.example ESMTP\r\n", "a server's greeting"),
        (b"\x4a\0\0\0\x0a8.0.36\0", "a server's greeting"),
    ];
    for (answer, name) in answers {
        let server = Server::start(move |mut stream| {
            stream.write_all(answer).unwrap();
            let _end = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let text = format!("the answer is not our protocol, looks like {name}\n");
        fails(&format!("-t {} -k {key} -o 0.5", server.address), 76, text.trim_end());
    }
    // One that says something and closes, before it has read anything.
    for answer in [&b"ICY 200 OK\r\n\r\n"[..], b"\r\n"] {
        let server = Server::start(move |mut stream| drop(stream.write_all(answer)));
        let told = check(&format!("-t {} -k {key} -o 0.5", server.address));
        assert_eq!(told.code, 76, "{}", told.errors);
    }
    // Redis answers where the message has an end of line by chance, and waits for one else.
    let redis = Redis::start(&folder, "redis", &[]);
    for _ in 0..10 {
        let Told { code, errors, .. } = check(&format!("-t {} -k {key} -o 0.5", redis.address));
        match code {
            76 => assert!(errors.contains("looks like plaintext redis\n"), "{errors}"),
            _ => assert!(code == 69 && errors.contains("did not answer the handshake"), "{errors}"),
        }
    }
    // Another sender, before a server that sends everything back.
    let receiver = Daemon::receiver(&folder.shared_key(), Server::echo().address, &[]);
    let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
    fails(&format!("-t {} -k {key}", sender.address), 76, "the receiver");
}

#[test]
fn a_key_that_is_wrong_or_revoked_is_refused() {
    let folder = Folder::new();
    let (alice, bob) = (folder.key("alice.key"), folder.key("bob.key"));
    let control = folder.path("control").display().to_string();
    let server = Server::echo();
    let more = ["--control", &control, "-k", alice.to_str().unwrap()];
    let receiver = Daemon::receiver(&folder.shared_key(), server.address, &more);
    let line = |key: &Path| format!("-t {} -k {}", receiver.address, key.display());
    fails(&line(&bob), 67, "the receiver does not have the key ");
    assert_eq!(check(&line(&alice)).code, 0);
    let revoke = Command::new(SPIPED).args(["revoke", &control, "alice"]).status().unwrap();
    assert!(revoke.success());
    fails(&line(&alice), 67, "the receiver does not have the key ");
    assert_eq!(check(&line(&folder.shared_key())).code, 0);
}

#[test]
fn a_full_receiver_and_a_target_that_is_down_are_told_apart() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let server = Server::echo();
    for limit in ["-n", "--per-key"] {
        let receiver = Daemon::receiver(&key, server.address, &[limit, "1"]);
        let line = format!("-t {} -k {}", receiver.address, key.display());
        assert_eq!(check(&line).code, 0);
        wait_until("the check is over", || receiver.log.count(" reason=finished ") == 1);
        let sender = Daemon::sender(&key, receiver.address, &[]);
        let mut client = sender.connect();
        round_trip(&mut client, b"in the only place");
        fails(&line, 75, "the pipe works, but the receiver has reached its connection limit");
    }
    let receiver = Daemon::receiver(&key, nobody(), &[]);
    let line = format!("-t {} -k {}", receiver.address, key.display());
    let down = "the pipe works, but the server behind the receiver refused the connection";
    fails(&line, 75, down);
}

#[test]
fn wrong_arguments_and_keys_are_told_before_anything_is_asked() {
    let folder = Folder::new();
    let server = Server::echo();
    let to = server.address;
    let key = folder.shared_key().display().to_string();
    for (line, missing, hint) in [
        (format!("-t {to}"), "-k", "-k FILE: the key that the receiver has"),
        (format!("-k {key}"), "-t", "-t ADDRESS names a receiver; --all checks all pipes"),
    ] {
        fails(&line, 64, &format!("{missing} is not given"));
        let Told { errors, .. } = check(&line);
        assert!(errors.contains(&format!("\nhint: {hint}")), "{errors}");
    }
    fails(&format!("-t {to} -k {key} --refuses-plaintext x"), 64, "invalid value 'x'");
    fails(&format!("-t {to} -k {key} -o 0"), 64, "-o: '0' is not a time");
    fails(&format!("-t {to} -k {key} --kex rsa"), 64, "--kex: 'rsa' is not a key exchange");
    fails(&format!("-t {to} -k {}", folder.path("none").display()), 66, "cannot read the key file");
    let short = folder.path("short.key");
    fs::write(&short, "short").unwrap();
    fs::set_permissions(&short, Permissions::from_mode(0o600)).unwrap();
    fails(&format!("-t {to} -k {}", short.display()), 65, "the key file ");
    fs::set_permissions(folder.shared_key(), Permissions::from_mode(0o644)).unwrap();
    fails(&format!("-t {to} -k {key}"), 77, "the key file ");
    assert_eq!(server.accepted(), 0);
}
