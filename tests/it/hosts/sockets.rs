//! Socket activation: systemd listens, whatever happens to the service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::hosts::{Host, Hosts, commands_of, hosts_can_be};
use crate::support::{PATIENCE, Server, patient, wait_until};

const RECEIVE: &str = "spiped-receive@in";
const SEND: &str = "spiped-send@out";

/// A host on which systemd listens for both ends.
fn boot() -> (Hosts, Server) {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    let server = host.net().enter(Server::echo);
    host.write_etc("in.conf", format!("SPIPED_TARGET={}\n", server.address), 0o644);
    host.write_etc("out.conf", "SPIPED_TARGET=127.0.0.1:7000\n", 0o644);
    for (key, unit, port) in [("in.key", RECEIVE, 7000), ("out.key", SEND, 8000)] {
        host.write_etc(key, [3; 32], 0o600);
        let listen = format!("[Socket]\nListenStream=127.0.0.1:{port}\n");
        host.drop_in(&format!("{unit}.socket"), &listen);
        host.must(&format!("systemctl start {unit}.socket"));
    }
    (hosts, server)
}

fn is_active(host: &Host, unit: &str) -> bool {
    host.run(&format!("systemctl is-active --quiet {unit}.service")).status.success()
}

/// The whole life of a client through the pipe.
fn visit() -> std::io::Result<()> {
    let mut stream = patient(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 8000)))?);
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])
}

#[test]
fn the_first_connection_starts_the_service_and_restarts_refuse_none() {
    if !hosts_can_be("socket activation") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    assert!(!is_active(host, SEND) && !is_active(host, RECEIVE));
    host.net().enter(|| visit().unwrap());
    assert!(is_active(host, SEND) && is_active(host, RECEIVE));

    let is_over = AtomicBool::new(false);
    let (served, during) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                host.net().enter(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        if let Err(error) = visit() {
                            is_over.store(true, Ordering::Relaxed);
                            panic!("after {} connections: {error}", served.load(Ordering::Relaxed));
                        }
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        for unit in [SEND, RECEIVE, SEND, RECEIVE, SEND, RECEIVE] {
            let before = served.load(Ordering::Relaxed);
            wait_until("clients are served", || {
                served.load(Ordering::Relaxed) > before + 100 || is_over.load(Ordering::Relaxed)
            });
            let before = served.load(Ordering::Relaxed);
            let restarted = host.run(&format!("systemctl restart {unit}.service"));
            let after = served.load(Ordering::Relaxed);
            during.fetch_add(after - before, Ordering::Relaxed);
            if !restarted.status.success() || is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let (served, during) = (served.into_inner(), during.into_inner());
    println!(
        "{served} connections in six restarts, {during} of them while one took place, none refused"
    );
    assert!(during > 0);
    for unit in [SEND, RECEIVE] {
        // The line may come from the service or, a moment later, from the scope.
        let role = if unit == SEND { "spiped-send" } else { "spiped-receive" };
        let log = host.must(&format!("journalctl --quiet --output cat --unit {role}*"));
        assert_eq!(log.matches("the next process takes over").count(), 3, "{log}");
    }
}

/// The default address is a unix socket, which the service leaves alone.
#[test]
fn the_default_socket_is_a_unix_one_of_the_groups_choice() {
    if !hosts_can_be("the default socket") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let socket = format!("{SEND}.socket");
    host.must(&format!("systemctl stop {socket}"));
    std::fs::remove_dir_all(host.root.join(format!("etc/systemd/system/{socket}.d"))).unwrap();
    host.sh(&commands_of("SOCKETS")[0].replace("@redis", "@out"));
    host.must(&format!("systemctl start {socket}"));
    let path = "/run/spiped/out.socket";
    assert_eq!(host.must(&format!("stat --format %a:%U:%G {path}")), "660:root:www-data");
    let inode = host.must(&format!("stat --format %i {path}"));

    let may = |user: &str| {
        let test = format!("setpriv --reuid {user} --regid {user} --init-groups test -w {path}");
        host.run(&test).status.success()
    };
    assert!(may("www-data") && !may("daemon"));

    let mut client = UnixStream::connect(host.outside(path)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    assert!(host.log(&format!("{SEND}.service")).contains(&format!("sender listening on {path}")));
    host.must(&format!("systemctl stop {SEND}.service"));
    assert_eq!(host.must(&format!("stat --format %i {path}")), inode);
}

/// A source in the file that differs from the socket is refused, in one line.
#[test]
fn another_source_than_the_sockets_is_refused() {
    if !hosts_can_be("a source beside a socket") {
        return;
    }
    let (hosts, _server) = boot();
    let host = &hosts["one"];
    let conf = "SPIPED_TARGET=127.0.0.1:7000\nSPIPED_SOURCE=127.0.0.1:8001\n";
    host.write_etc("out.conf", conf, 0o644);
    assert!(!host.run(&format!("systemctl start {SEND}.service")).status.success());
    let status = host.status(&format!("{SEND}.service"));
    let reason = "Status: \"the source is [127.0.0.1]:8001, but the inherited socket listens on \
                  /run/spiped/out.socket, [127.0.0.1]:8000\"";
    assert!(status.contains(reason), "{status}");
}
