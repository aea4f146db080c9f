//! `spiped check --all`: the pipes of a host, as an auditor finds them. Each test has a host
//! of its own: a network, a /run and an /etc.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::net::{Cable, ip, namespaces_can_be};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, SPIPED, nobody};

const DAY: Duration = Duration::from_hours(24);
/// What requires the hybrid exchange.
const HYBRID: [&str; 2] = ["--kex", "x25519mlkem768"];

/// A host: its folders, and the calling thread in its network.
struct Host(Folder);

/// What the command has printed in both forms, and its exit code.
struct Found {
    code: i32,
    text: String,
    json: Value,
}

impl Host {
    /// Runs a test on a host with the addresses 192.0.2.1 and `2001:db8::1`.
    fn with(test: impl FnOnce(&Self) + Send) {
        if !namespaces_can_be("spiped check --all") {
            return;
        }
        Cable::new().near.enter(|| {
            ip("address add 2001:db8::1/64 dev cable0 nodad");
            let host = Self(Folder::new());
            fs::create_dir_all(host.path("etc/spiped")).unwrap();
            fs::create_dir(host.path("run")).unwrap();
            fs::copy(host.0.shared_key(), host.path("etc/spiped/in.key")).unwrap();
            fs::copy(host.0.shared_key(), host.path("etc/spiped/out.key")).unwrap();
            for name in ["in", "out"] {
                fs::write(host.path(&format!("etc/spiped/{name}.conf")), "").unwrap();
            }
            test(&host);
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// A spiped with these words, as a unit would run it.
    fn unit(&self, unit: &str, line: &str) -> Daemon {
        let run = self.path(&format!("run/{unit}"));
        fs::create_dir(&run).unwrap();
        let (_, pipe) = unit.split_once('@').unwrap();
        let mut command = Command::new(SPIPED);
        command.arg("-F").args(line.split_whitespace()).arg("--control").arg(run.join("control"));
        command.arg("-k").arg(self.path(&format!("etc/spiped/{pipe}.key")));
        command.env("SPIPED_UNIT", format!("{unit}.service"));
        Daemon::spawn(command)
    }

    fn receiver(&self, source: &str, target: impl ToString, more: &[&str]) -> Daemon {
        let (target, more) = (target.to_string(), more.join(" "));
        self.unit("spiped-receive@in", &format!("-d -s {source} -t {target} {more}"))
    }

    fn sender(&self, source: &str, target: impl ToString, more: &[&str]) -> Daemon {
        let (target, more) = (target.to_string(), more.join(" "));
        self.unit("spiped-send@out", &format!("-e -s {source} -t {target} {more}"))
    }

    fn check(&self, more: &str) -> Found {
        let run = |more: &str| {
            let script = "mount --bind \"$0\"/run /run && mount --bind \"$0\"/etc /etc && \
                          exec \"$1\" check --all -o 1 $2";
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", script]).arg(self.path("."));
            let output = unshare.args([SPIPED, more]).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(error, "");
            (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        let (code, text) = run(more);
        let (code_of_json, json) = run(&format!("--json {more}"));
        let json: Value = serde_json::from_str(&json).unwrap();
        let found = Found { code, text, json };
        assert_eq!((code, &found.json["exit"]), (code_of_json, &Value::from(code)));
        found.agrees();
        found
    }
}

impl Found {
    /// Both forms say the same.
    fn agrees(&self) {
        let Self { text, json, .. } = self;
        let field = |name: &str| json[name].as_str().unwrap();
        let (host, program) = (field("host"), field("spiped"));
        let heading = format!("check of all pipes of {host}, ");
        assert!(text.starts_with(&heading) && field("date").ends_with('Z'), "{text}");
        assert!(text.lines().next().unwrap().ends_with(&format!("Z, spiped {program}")), "{text}");
        let mut of_text = text.lines().filter_map(|line| line.strip_prefix("  FINDING    "));
        for pipe in json["pipes"].as_array().unwrap() {
            let name = pipe["name"].as_str().unwrap();
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
            let texts = |list: &str, field: &str| {
                let all = pipe[list].as_array().map(Vec::as_slice).unwrap_or_default();
                all.iter().map(|it| it[field].as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let known = [texts("listening", "address"), texts("keys", "key_id")].concat();
            assert!(known.iter().all(|it| text.contains(it)), "{known:?}: {text}");
            for finding in pipe["findings"].as_array().unwrap() {
                let [kind, place, what, hint] =
                    ["finding", "where", "what", "hint"].map(|it| finding[it].as_str().unwrap());
                let line = format!("{kind}: {place}: {what}; hint: {hint}");
                assert_eq!(of_text.next(), Some(&*line), "{text}");
                assert!(hint.len() > 20, "{line}");
            }
        }
        assert_eq!(of_text.next(), None);
        let count = |field: &str, one: &str| {
            let number = json[field].as_array().map_or_else(
                || json[field].as_u64().unwrap(),
                |all| u64::try_from(all.len()).unwrap(),
            );
            format!("{number} {one}{}", if number == 1 { "" } else { "s" })
        };
        let mut sum = vec![count("pipes", "pipe"), count("findings", "finding")];
        if json["not_asked"] != 0 {
            sum.push(format!("{} not asked", json["not_asked"]));
        }
        assert_eq!(text.lines().next_back(), Some(&*sum.join(", ")));
    }

    /// The names of the findings of a pipe, each with its place.
    fn of(&self, pipe: &str) -> Vec<String> {
        let findings = self.pipe(pipe)["findings"].as_array().unwrap();
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        let line = |it: &Value| format!("{} {}", text(&it["finding"]), text(&it["where"]));
        findings.iter().map(line).collect()
    }

    fn pipe(&self, name: &str) -> &Value {
        let all = self.json["pipes"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}: {}", self.text))
    }
}

fn write_days_ago(path: &Path, days: u32) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * days - Duration::from_mins(1)).unwrap();
}

/// The kernel's address of a Redis that listens for other hosts, too.
fn redis_for_all(host: &Host) -> Redis {
    let redis = Redis::start(&host.0, "redis-for-all", &["--protected-mode", "no"]);
    redis.cli(&["CONFIG", "SET", "bind", "0.0.0.0 ::"]);
    redis
}

#[test]
fn a_host_without_a_fault_has_no_finding() {
    Host::with(|host| {
        let none = host.check("");
        assert_eq!(none.code, 0);
        let redis = Redis::start(&host.0, "redis", &[]);
        let port = redis.address.port();
        // On the port of its target, as the recipes have it.
        let source = format!("[192.0.2.1]:{port}");
        let receiver = host.receiver(&source, redis.address, &HYBRID);
        let sender = host.sender("[127.0.0.1]:8000", &source, &[]);
        let _open = open(&sender);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let text = &found.text;
        for part in [
            &format!(
                "in (receiver): serving, spiped-receive@in.service, process {}\n",
                receiver.child.id()
            ),
            &format!("  listens    {source}: encrypted only, plaintext was tried and refused in "),
            "  target     [127.0.0.1]:",
            ": on this host, redis-server (process ",
            "  kex        x25519mlkem768: accepts x25519mlkem768; 0 of 1 open connections with ",
            "  key        in ",
            ": /etc/spiped/in.key, written ",
            &format!(
                "out (sender): serving, spiped-send@out.service, process {}\n",
                sender.child.id()
            ),
            "  listens    [127.0.0.1]:8000: takes plaintext of this host, on loopback\n",
            ": what goes there is encrypted\n",
            "  proof      works, connect ",
            " ms, x25519mlkem768 ",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        receiver.log.wait_for("looks like plaintext redis");
        receiver.log.wait_for(" client=nobody ");
        let (pipe, out) = (found.pipe("in"), found.pipe("out"));
        assert_eq!(
            (&pipe["listening"][0]["plaintext"], &pipe["proof"]),
            (&"refused".into(), &Value::Null)
        );
        assert_eq!(
            (&pipe["target"]["place"], &out["target"]["place"]),
            (&"this-host".into(), &"receiver".into())
        );
        assert_eq!(pipe["target"]["listeners"][0]["program"], "redis-server");
        assert_eq!(
            (&pipe["keys"][0]["is_in_force"], &out["proof"]["result"]),
            (&true.into(), &"works".into())
        );
    });
}

/// A client of Redis, which is connected.
fn open(sender: &Daemon) -> TcpStream {
    let mut client = sender.connect();
    client.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    client
}

#[test]
fn a_target_that_other_hosts_reach_is_found() {
    Host::with(|host| {
        let redis = redis_for_all(host);
        let port = redis.address.port();
        let _receiver = host.receiver("[192.0.2.1]:7000", redis.address, &HYBRID);
        let found = host.check("");
        assert_eq!(found.code, 1, "{}", found.text);
        let exposed = [
            format!("plaintext-target-exposed 0.0.0.0:{port}"),
            format!("plaintext-target-exposed [::]:{port}"),
        ];
        assert_eq!(found.of("in"), exposed);
        assert!(found.text.contains(": redis-server (process "), "{}", found.text);
        for (bind, is_found) in [("127.0.0.1 ::1", false), ("127.0.0.1 2001:db8::1", true)] {
            redis.cli(&["CONFIG", "SET", "bind", bind]);
            let wanted = if is_found {
                vec![format!("plaintext-target-exposed [2001:db8::1]:{port}")]
            } else {
                vec![]
            };
            let found = host.check("");
            assert_eq!(
                (found.of("in"), found.code),
                (wanted, i32::from(is_found)),
                "{}",
                found.text
            );
        }
    });
}

#[test]
fn a_target_on_another_host_or_of_an_unknown_name_is_found() {
    Host::with(|host| {
        for (target, kind) in [
            ("[192.0.2.2]:6379", "plaintext-target-remote"),
            ("nothing.invalid:6379", "plaintext-target-unknown"),
        ] {
            let _receiver = host.receiver("[127.0.0.1]:0", target, &HYBRID);
            let found = host.check("");
            assert_eq!((found.code, found.of("in")), (1, vec![format!("{kind} {target}")]));
            fs::remove_dir_all(host.path("run/spiped-receive@in")).unwrap();
        }
    });
}

#[test]
fn unix_sockets_are_told_with_their_mode() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &["--unixsocketperm", "770"]);
        let at = |name: &str| host.path(name).display().to_string();
        let _receiver = host.receiver(&at("in"), redis.socket.display(), &HYBRID);
        let _sender = host.sender(&at("out"), at("in"), &["--socket-mode", "0660"]);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let (pipe, out) = (found.pipe("in"), found.pipe("out"));
        assert_eq!(
            (&pipe["target"]["place"], &pipe["target"]["mode"]),
            (&"unix-socket".into(), &"0770".into())
        );
        assert_eq!(pipe["listening"][0]["plaintext"], "refused");
        let source = &out["listening"][0];
        assert_eq!(
            (&source["plaintext"], &source["mode"], &source["owner"]),
            (&"unix-socket".into(), &"0660".into(), &0.into())
        );
        assert!(
            found.text.contains("on a unix socket, mode 0660, user 0, group 0\n"),
            "{}",
            found.text
        );
    });
}

#[test]
fn a_source_and_a_status_that_other_hosts_reach_are_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[0.0.0.0]:7000", redis.address, &HYBRID);
        let exposed = ["--expose-status", "--status", "[192.0.2.1]:9100"];
        let _sender = host.sender("[0.0.0.0]:8000", receiver.address, &exposed);
        let found = host.check("");
        assert_eq!(found.code, 1, "{}", found.text);
        assert!(found.of("in").is_empty(), "{}", found.text);
        let wanted = ["plaintext-source-exposed [0.0.0.0]:8000", "status-exposed 192.0.2.1:9100"];
        assert_eq!(found.of("out"), wanted, "{}", found.text);
    });
}

#[test]
fn old_keys_and_files_of_other_keys_are_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let file = host.path("etc/spiped/in.key");
        let folder = host.path("etc/spiped/in.keys");
        fs::create_dir(&folder).unwrap();
        host.0.key("etc/spiped/in.keys/bob.key");
        let more = ["-k", folder.to_str().unwrap()];
        let receiver =
            host.receiver("[127.0.0.1]:0", redis.address, &[&HYBRID[..], &more].concat());
        write_days_ago(&file, 300);
        write_days_ago(&folder.join("bob.key"), 400);
        let found = host.check("");
        let id = |name: &str| {
            let keys = found.pipe("in")["keys"].as_array().unwrap();
            keys.iter().find(|key| key["key"] == name).unwrap()["key_id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            (found.code, found.of("in")),
            (1, vec![format!("key-old key bob {}", id("bob"))])
        );
        let what = "/etc/spiped/in.keys/bob.key was written 400 days ago, more than 365; hint: ";
        assert!(found.text.contains(what), "{}", found.text);
        assert_eq!(host.check("--key-age 299").of("in").len(), 2);
        assert_eq!(host.check("--key-age 400").code, 1);
        assert_eq!(host.check("--key-age 401").code, 0);

        // The file's time is not that of the key in force.
        fs::remove_file(&file).unwrap();
        host.0.key("etc/spiped/in.key");
        let found = host.check("--key-age 999");
        assert_eq!(found.of("in"), [format!("key-file-differs key in {}", id("in"))]);
        receiver.signal("HUP");
        receiver.log.wait_for("added");
    });
}

#[test]
fn the_classical_exchange_is_found_where_it_is_accepted_and_used() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &[]);
        let accepted = "classical-accepted kex auto";
        assert_eq!(host.check("").of("in"), [accepted]);
        let sender = host.sender("[127.0.0.1]:0", receiver.address, &["--kex", "x25519"]);
        let client = open(&sender);
        let found = host.check("");
        assert_eq!(found.code, 1);
        assert_eq!(found.of("in"), [accepted, "classical-used kex auto"]);
        assert_eq!(found.of("out"), ["classical-accepted kex x25519", "classical-used kex x25519"]);
        let used =
            "1 of 1 open connections use x25519 alone; the latest handshake of in was with it";
        assert!(found.text.contains(used), "{}", found.text);
        assert_eq!(found.pipe("out")["proof"]["kex"], "x25519");
        drop(client);
    });
}

#[test]
fn a_sender_whose_pipe_is_broken_is_found() {
    Host::with(|host| {
        let receiver = Daemon::receiver(&host.path("etc/spiped/in.key"), nobody(), &HYBRID);
        let _sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        let found = host.check("");
        let broken = format!("pipe-broken [127.0.0.1]:{}", receiver.address.port());
        assert_eq!(found.of("out"), [&*broken]);
        let why = ": the pipe works, but the server behind the receiver refused the connection; ";
        assert!(found.text.contains(why), "{}", found.text);
        // A spiped that nobody can ask is worse than a finding.
        let told =
            format!("process {}, a spiped, listens at {}, ", receiver.child.id(), receiver.address);
        assert_eq!(found.code, 69, "{}", found.text);
        assert!(found.text.contains(&format!("  not asked  {told}")), "{}", found.text);
        drop(receiver);
        let found = host.check("");
        assert_eq!((found.code, found.of("out")), (1, vec![broken]));
        assert!(found.text.contains(": cannot reach the receiver: "), "{}", found.text);
    });
}

#[test]
fn a_pipe_that_hangs_is_not_asked_and_one_that_drains_is_not_judged() {
    Host::with(|host| {
        let redis = redis_for_all(host);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &["--drain-timeout", "600"]);
        let sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        let client = open(&sender);
        assert_eq!(host.check("").of("in").len(), 3);
        receiver.signal("TERM");
        receiver.log.wait_for("draining open connections");
        let found = host.check("");
        assert!(found.of("in").is_empty(), "{}", found.text);
        assert!(found.text.contains("\nin (receiver): draining, "), "{}", found.text);
        // The sender has no receiver any more.
        assert_eq!((found.code, found.of("out").len()), (1, 1), "{}", found.text);
        drop(client);
    });
    Host::with(|host| {
        let receiver = host.receiver("[127.0.0.1]:0", "127.0.0.1:1", &HYBRID);
        receiver.signal("STOP");
        let found = host.check("");
        assert_eq!((found.code, &found.json["not_asked"]), (69, &1.into()), "{}", found.text);
        receiver.signal("CONT");
        assert_eq!(host.check("").code, 0);
    });
}

#[test]
fn a_program_in_the_place_of_a_receiver_is_found() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let at = host.path("in");
        let source = at.display().to_string();
        let _receiver = host.receiver(&source, redis.address, &HYBRID);
        assert_eq!(host.check("").code, 0);
        fs::remove_file(&at).unwrap();
        assert_eq!(host.check("").of("in"), [format!("plaintext-unproved {source}")]);
        fs::rename(&redis.socket, &at).unwrap();
        let found = host.check("");
        assert_eq!((found.code, found.of("in")), (1, vec![format!("plaintext-served {source}")]));
        let said = "plaintext redis is served there, to anybody: \"+PONG\"; hint: ";
        assert!(found.text.contains(said), "{}", found.text);
    });
}

#[test]
fn of_a_sender_that_is_no_unit_the_key_file_is_not_known() {
    Host::with(|host| {
        let run = host.path("run/spiped-send@out");
        fs::create_dir(&run).unwrap();
        let control = run.join("control").display().to_string();
        let key = host.path("etc/spiped/out.key");
        write_days_ago(&key, 4000);
        let _sender = Daemon::sender(&key, nobody(), &["--control", &control]);
        let found = host.check("");
        assert_eq!(found.code, 0, "{}", found.text);
        let out = found.pipe("out");
        assert_eq!((&out["unit"], &out["proof"]["result"]), (&Value::Null, &"not-tried".into()));
        assert_eq!(out["keys"][0]["written"], Value::Null);
        assert!(found.text.contains(": its file is not known\n"), "{}", found.text);
    });
}
