//! `--refuses-plaintext`: a plaintext client gets nowhere at a receiver, and is served by
//! real servers.

use std::process::Command;

use super::{check, fails};
use crate::support::maria::Maria;
use crate::support::program::{Program, is_there};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, Server, nobody};

fn line(to: impl ToString, protocol: &str) -> String {
    format!("-t {} --refuses-plaintext {protocol} -o 0.5", to.to_string())
}

#[test]
fn a_receiver_refuses_every_protocol() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let receiver = Daemon::receiver(&folder.shared_key(), redis.address, &["-o", "0.5"]);
    for protocol in ["redis", "postgres", "mysql", "smtp", "http"] {
        let told = check(&line(receiver.address, protocol));
        assert_eq!((told.code, &*told.errors), (0, ""), "{protocol}");
        assert!(told.output.contains(&format!("\nplaintext  {protocol} is refused")), "{protocol}");
    }
    // With a key, a receiver is known to be there.
    let with_key =
        format!("{} -k {}", line(receiver.address, "redis"), folder.shared_key().display());
    let told = check(&format!("{with_key} --plugin"));
    assert_eq!(told.code, 0);
    let both = " takes key redis, its target answers, refuses plaintext redis |";
    assert!(told.output.contains(both), "{}", told.output);
    let closes = Server::start(drop);
    assert_eq!(check(&line(closes.address, "redis")).code, 0);
    let with_key =
        format!("{} -k {}", line(closes.address, "redis"), folder.shared_key().display());
    fails(&with_key, 67, "the receiver does not have the key ");
}

#[test]
fn a_redis_that_answers_in_any_way_serves_plaintext() {
    let folder = Folder::new();
    let key = folder.shared_key();
    for (password, said) in [("", "+PONG"), ("secret", "-NOAUTH Authentication required.")] {
        let redis = Redis::start(&folder, &format!("redis{password}"), &[]);
        redis.cli(&["CONFIG", "SET", "requirepass", password]);
        let served = format!("plaintext redis is served there, to anybody: \"{said}\"");
        fails(&line(redis.address, "redis"), 1, &served);
        // Through a sender, plaintext of its clients goes in.
        let receiver = Daemon::receiver(&key, redis.address, &[]);
        let sender = Daemon::sender(&key, receiver.address, &[]);
        fails(&line(sender.address, "redis"), 1, &served);
        // A server that hangs is no proof.
        redis.signal("STOP");
        let silent = "plaintext redis was neither answered nor refused in 1s";
        fails(&line(redis.address, "redis"), 69, silent);
        redis.signal("CONT");
    }
}

#[test]
fn a_port_that_is_down_or_another_program_is_no_proof() {
    let down = "cannot reach the receiver: target refused the connection";
    fails(&line(nobody(), "redis"), 69, down);
    let ssh = Server::start(|mut stream| {
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
    });
    let other = "something answers plaintext redis that is no receiver, looks like ssh";
    fails(&line(ssh.address, "redis"), 76, other);
    let silent = Server::start(|mut stream| {
        let _end = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let text = "plaintext mysql was neither answered nor refused in 1s";
    fails(&line(silent.address, "mysql"), 69, text);
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
    fails(&line(address, "http"), 1, "plaintext http is served there, to anybody: \"HTTP/1.0 200");
    // It takes PING for a request of an old version.
    let other = "something answers plaintext redis that is no receiver, looks like http";
    fails(&line(address, "redis"), 76, other);
}

#[test]
fn mariadb_serves_plaintext() {
    if !is_there("mariadbd", "MariaDB in plaintext") || !is_there("mariadb", "MariaDB") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let _server = Maria::start(&folder, "[mariadbd]\nbind_address=127.0.0.1", address);
    fails(&line(address, "mysql"), 1, "plaintext mysql is served there, to anybody: \"");
}

#[test]
fn postgres_serves_plaintext() {
    if !is_there("postgres", "PostgreSQL in plaintext") || !is_there("initdb", "PostgreSQL") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let home = folder.path("");
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
    fails(&line(address, "postgres"), 1, "plaintext postgres is served there, to anybody: \"N\"");
}
