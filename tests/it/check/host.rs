//! A host of a test's own for `spiped check --all`: a network, a /run and an /etc.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::net::{Cable, ip, namespaces_can_be};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, SPIPED};

const DAY: Duration = Duration::from_hours(24);
/// What requires the hybrid exchange.
pub const HYBRID: [&str; 2] = ["--kex", "x25519mlkem768"];

/// A host: its folders, and the calling thread in its network.
pub struct Host(pub Folder);

/// What the command has printed in both forms, and its exit code.
pub struct Found {
    pub code: i32,
    pub text: String,
    pub json: Value,
}

impl Host {
    /// Runs a test on a host with the addresses 192.0.2.1 and `2001:db8::1`.
    pub fn with(test: impl FnOnce(&Self) + Send) {
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
            test(&host);
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// A spiped as a unit would run it, with its configuration.
    fn unit(
        &self,
        unit: &str,
        role: &str,
        (source, target): (&str, &str),
        more: &[&str],
    ) -> Daemon {
        let run = self.path(&format!("run/{unit}"));
        fs::create_dir(&run).unwrap();
        let (_, pipe) = unit.split_once('@').unwrap();
        let kex = match more {
            ["--kex", kex, ..] => *kex,
            _ => "",
        };
        let conf = format!("SPIPED_SOURCE={source}\nSPIPED_TARGET={target}\nSPIPED_KEX={kex}\n");
        fs::write(self.path(&format!("etc/spiped/{pipe}.conf")), conf).unwrap();
        let mut command = Command::new(SPIPED);
        command.args(["-F", role, "-s", source, "-t", target]).args(more);
        command.arg("--control").arg(run.join("control"));
        command.arg("-k").arg(self.path(&format!("etc/spiped/{pipe}.key")));
        command.env("SPIPED_UNIT", format!("{unit}.service"));
        Daemon::spawn(command)
    }

    pub fn receiver(&self, source: &str, target: impl ToString, more: &[&str]) -> Daemon {
        self.unit("spiped-receive@in", "-d", (source, &target.to_string()), more)
    }

    pub fn sender(&self, source: &str, target: impl ToString, more: &[&str]) -> Daemon {
        self.unit("spiped-send@out", "-e", (source, &target.to_string()), more)
    }

    /// Runs a command on the host; programs in its folder `bin` go before others.
    pub fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    pub fn command(&self, command: &str) -> Command {
        let script = "mount --bind \"$0\"/run /run && mount --bind \"$0\"/etc /etc && \
                      PATH=\"$0\"/bin:$PATH exec $1";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]).arg(self.path("."));
        unshare.arg(command);
        unshare
    }

    pub fn check(&self, more: &str) -> Found {
        self.check_by(&format!("{SPIPED} check --all -o 1 {more}"))
    }

    /// By a command that runs the check.
    pub fn check_by(&self, command: &str) -> Found {
        let run = |more: &str| {
            let output = self.run(&format!("{command}{more}"));
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(error, "");
            (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        let (code, text) = run("");
        let (code_of_json, json) = run(" --json");
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
        let drain = json["pipes"].as_array().unwrap().iter().filter(|it| it["state"] == "draining");
        let drain = match drain.count() {
            0 => None,
            drain => Some(format!("{drain} draining")),
        };
        let idle = json["pipes"].as_array().unwrap().iter().filter(|it| it["state"] == "idle");
        let idle = match idle.count() {
            0 => None,
            idle => Some(format!("{idle} idle")),
        };
        let mut sum = vec![count("pipes", "pipe")];
        sum.extend(drain);
        sum.extend(idle);
        sum.push(count("findings", "finding"));
        if json["not_asked"] != 0 {
            sum.push(format!("{} not asked", json["not_asked"]));
        }
        assert_eq!(text.lines().next_back(), Some(&*sum.join(", ")));
    }

    /// The names of the findings of a pipe, each with its place.
    pub fn of(&self, pipe: &str) -> Vec<String> {
        let findings = self.pipe(pipe)["findings"].as_array().unwrap();
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        let line = |it: &Value| format!("{} {}", text(&it["finding"]), text(&it["where"]));
        findings.iter().map(line).collect()
    }

    pub fn pipe(&self, name: &str) -> &Value {
        let all = self.json["pipes"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}: {}", self.text))
    }
}

pub fn write_days_ago(path: &Path, days: u32) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * days - Duration::from_mins(1)).unwrap();
}

/// The kernel's address of a Redis that listens for other hosts, too.
pub fn redis_for_all(host: &Host) -> Redis {
    let redis = Redis::start(&host.0, "redis-for-all", &["--protected-mode", "no"]);
    redis.cli(&["CONFIG", "SET", "bind", "0.0.0.0 ::"]);
    redis
}

/// A client of Redis, which is connected.
pub fn open(sender: &Daemon) -> TcpStream {
    let mut client = sender.connect();
    client.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    client
}
