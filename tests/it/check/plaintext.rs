//! `--refuses-plaintext`: a plaintext client gets nowhere at a receiver, and is served by
//! real servers.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{check, fails};
use crate::support::maria::Maria;
use crate::support::net::{Resolver, namespaces_can_be};
use crate::support::program::{Program, is_there};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, Server, nobody};

fn line(folder: &Folder, to: impl ToString, protocol: &str) -> String {
    let (to, key) = (to.to_string(), folder.shared_key());
    format!("-t {to} -k {} --refuses-plaintext {protocol} -o 0.5", key.display())
}

fn pass_on(client: &TcpStream, to: SocketAddr) {
    let Ok(server) = TcpStream::connect(to) else { return };
    thread::scope(|scope| {
        for (mut from, mut to) in [(client, &server), (&server, client)] {
            scope.spawn(move || {
                let _ended = std::io::copy(&mut from, &mut to);
                let _gone = to.shutdown(Shutdown::Write);
            });
        }
    });
}

/// A receiver, and a proxy that leads to it and to a server by turns: the key is proved of
/// the one, and plaintext goes to the other.
struct ByTurns {
    proxy: Server,
    _receiver: Daemon,
}

impl ByTurns {
    fn with(folder: &Folder, server: SocketAddr) -> Self {
        let echo = Server::echo();
        let receiver = Daemon::receiver(&folder.shared_key(), echo.address, &[]);
        let (count, both) = (AtomicUsize::new(0), [receiver.address, server]);
        let proxy = Server::start(move |client| {
            let to = both[count.fetch_add(1, Ordering::Relaxed) % 2];
            pass_on(&client, to);
        });
        Self { proxy, _receiver: receiver }
    }

    fn line(&self, folder: &Folder, protocol: &str) -> String {
        line(folder, self.proxy.address, protocol)
    }
}

#[test]
fn a_receiver_refuses_every_protocol() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let receiver = Daemon::receiver(&folder.shared_key(), redis.address, &["-o", "0.5"]);
    for protocol in ["redis", "postgres", "mysql", "smtp", "http"] {
        let told = check(&line(&folder, receiver.address, protocol));
        assert_eq!((told.code, &*told.errors), (0, ""), "{protocol}");
        assert!(told.output.contains(&format!("\nplaintext  {protocol} is refused")), "{protocol}");
    }
    let told = check(&format!("{} --plugin", line(&folder, receiver.address, "redis")));
    assert_eq!(told.code, 0);
    let both = " takes key redis, its target answers, refuses plaintext redis |";
    assert!(told.output.contains(both), "{}", told.output);
}

/// The first address of the name serves plaintext as soon as the key was proved at the second.
#[test]
fn the_address_at_which_the_key_was_proved_is_the_one_that_refuses_plaintext() {
    if !namespaces_can_be("a name with two addresses") {
        return;
    }
    Resolver::with(|resolver| {
        let folder = Folder::new();
        let hosts = "127.0.0.1 two.test\n127.0.0.2 two.test\n";
        fs::write(resolver.folder.path("hosts"), hosts).unwrap();
        let port = nobody().port();
        let all: Vec<_> = ("two.test", port).to_socket_addrs().unwrap().collect();
        let [first, second] = all[..] else { panic!("{all:?}") };
        let echo = Server::echo();
        let receiver = Daemon::receiver(&folder.shared_key(), echo.address, &[]);
        let (at, plain) = (receiver.address, OnceLock::new());
        let _proxy = Server::start_at(&second.to_string(), move |client| {
            plain.get_or_init(|| {
                Server::start_at(&first.to_string(), |mut client| {
                    client.write_all(b"+PONG\r\n").unwrap();
                })
            });
            pass_on(&client, at);
        });
        let line = line(&folder, format!("two.test:{port}"), "redis");
        let told = check(&line);
        assert_eq!((told.code, &*told.errors), (0, ""), "{}", told.output);
        let at = format!("\nplaintext  redis is refused at {second}, in ");
        assert!(told.output.contains(&at), "{}", told.output);
    });
}

/// What a server says is known by all of it, however slowly it comes.
#[test]
fn an_answer_that_comes_byte_by_byte_is_one() {
    let folder = Folder::new();
    let slow = Server::start(|mut client| {
        for byte in b"+PONG\r\n" {
            let _gone = client.write_all(&[*byte]);
            thread::sleep(Duration::from_millis(60));
        }
    });
    let ends = ByTurns::with(&folder, slow.address);
    fails(&ends.line(&folder, "redis"), 1, "plaintext redis is served there, to anybody: \"+PO");
}

/// Such as an nginx that serves only those who know the name of its host.
#[test]
fn what_closes_without_a_byte_and_is_no_receiver_proves_nothing() {
    let folder = Folder::new();
    let closes = Server::start(drop);
    let without = format!("-t {} --refuses-plaintext redis", closes.address);
    fails(&without, 64, "--refuses-plaintext is given without -k: only the key proves");
    assert_eq!(closes.accepted(), 0);
    let with_key = line(&folder, closes.address, "redis");
    fails(&with_key, 67, "the receiver does not have the key ");
}

#[test]
fn a_redis_that_answers_in_any_way_serves_plaintext() {
    let folder = Folder::new();
    for (password, said) in [("", "+PONG"), ("secret", "-NOAUTH Authentication required.")] {
        let redis = Redis::start(&folder, &format!("redis{password}"), &[]);
        redis.cli(&["CONFIG", "SET", "requirepass", password]);
        let served = format!("plaintext redis is served there, to anybody: \"{said}\"");
        let direct = ByTurns::with(&folder, redis.address);
        fails(&direct.line(&folder, "redis"), 1, &served);
        // Through a sender, plaintext of its clients goes in.
        let receiver = Daemon::receiver(&folder.shared_key(), redis.address, &[]);
        let sender = Daemon::sender(&folder.shared_key(), receiver.address, &[]);
        let through = ByTurns::with(&folder, sender.address);
        fails(&through.line(&folder, "redis"), 1, &served);
        // A server that hangs is no proof.
        redis.signal("STOP");
        let silent = "plaintext redis was neither answered nor refused in 1s";
        fails(&direct.line(&folder, "redis"), 69, silent);
        redis.signal("CONT");
    }
}

#[test]
fn a_port_that_is_down_or_another_program_is_no_proof() {
    let folder = Folder::new();
    let down = "cannot reach the receiver: target refused the connection";
    fails(&line(&folder, nobody(), "redis"), 69, down);
    let ssh = Server::start(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
        let _end = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let other = "something answers plaintext redis that is no receiver, looks like ssh";
    fails(&ByTurns::with(&folder, ssh.address).line(&folder, "redis"), 76, other);
    let silent = Server::start(|mut stream| {
        let _end = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let text = "plaintext mysql was neither answered nor refused in 1s";
    fails(&ByTurns::with(&folder, silent.address).line(&folder, "mysql"), 69, text);
}

#[test]
fn an_http_server_serves_plaintext() {
    if !is_there("python3", "an HTTP server in plaintext") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let (port, home) = (address.port().to_string(), folder.path("").display().to_string());
    let arguments = ["-m", "http.server", "-b", "127.0.0.1", "-d", &home, &port];
    let _server = Program::start("python3", &arguments, address);
    let served = "plaintext http is served there, to anybody: \"HTTP/1.0 200";
    fails(&ByTurns::with(&folder, address).line(&folder, "http"), 1, served);
    // It takes a command for a request of an old version.
    let other = "something answers plaintext redis that is no receiver, looks like http";
    fails(&ByTurns::with(&folder, address).line(&folder, "redis"), 76, other);
}

/// A virtual host is served, and all else is closed without an answer.
#[test]
fn an_http_server_that_serves_the_name_in_the_address_serves_plaintext() {
    if !is_there("nginx", "nginx that serves one name") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let by_turns = ByTurns::with(&folder, address);
    let home = folder.path("").display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {home}/{of};"))
        .concat();
    let conf = format!(
        "daemon off; master_process off; pid {home}/pid; error_log stderr; events {{}}
         http {{ {temporary} access_log off;
           server {{ listen {address} default_server; return 444; }}
           server {{ listen {address}; server_name localhost; return 200; }} }}"
    );
    let path = folder.path("nginx.conf").display().to_string();
    fs::write(&path, conf).unwrap();
    let _server = Program::start("nginx", &["-p", &home, "-c", &path], address);
    let to = format!("localhost:{}", by_turns.proxy.address.port());
    let served = "plaintext http is served there, to anybody: \"HTTP/1.1 200";
    fails(&line(&folder, to, "http"), 1, served);
}

#[test]
fn mariadb_serves_plaintext() {
    if !is_there("mariadbd", "MariaDB in plaintext") || !is_there("mariadb", "MariaDB") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let _server = Maria::start(&folder, "[mariadbd]\nbind_address=127.0.0.1", address);
    let served = "plaintext mysql is served there, to anybody: \"";
    fails(&ByTurns::with(&folder, address).line(&folder, "mysql"), 1, served);
}

#[test]
fn postgres_serves_plaintext() {
    if !is_there("postgres", "PostgreSQL in plaintext") || !is_there("initdb", "PostgreSQL") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let keys = Folder::new();
    let home = folder.path("");
    let by_turns = ByTurns::with(&keys, address);
    // It does not run as root.
    let user = if nix::unistd::geteuid().is_root() {
        let owned = Command::new("chown").args(["-R", "nobody"]).arg(&home).status().unwrap();
        assert!(owned.success());
        "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    } else {
        ""
    };
    let (data, home) = (folder.path("data").display().to_string(), home.display().to_string());
    let made = format!("cd {home}; PATH=$PATH:/usr/sbin {user} initdb -A trust -D {data}");
    let made = Command::new("sh").args(["-c", &made]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = address.port().to_string();
    let arguments = ["-D", &data, "-h", "127.0.0.1", "-p", &port, "-k", &home];
    let _server = Program::start(&format!("{user} postgres"), &arguments, address);
    let served = "plaintext postgres is served there, to anybody: \"N\"";
    fails(&by_turns.line(&keys, "postgres"), 1, served);
}
