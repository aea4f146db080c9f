//! Restarts under load: no connection is refused, and open connections go on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::hosts::{Host, Hosts, hosts_can_be};
use crate::support::{PATIENCE, need, wait_until};

pub const RECEIVE: &str = "spiped-receive@redis.service";
pub const SEND: &str = "spiped-send@redis.service";

/// The number of connections that stay open, and of clients that connect all the time.
const OPEN: usize = 8;
const COMERS: usize = 32;

/// Redis on host a, its clients on host b, and a pipe between them.
fn boot() -> Hosts {
    let hosts = Hosts::boot(&["a", "b"]);
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.has_redis();
    configure(a, "192.0.2.1:6379", "3600");
    b.write_etc("redis.conf", conf("127.0.0.1:8000", "192.0.2.1:6379", "3600"), 0o644);
    for (host, unit) in [(a, RECEIVE), (b, SEND)] {
        host.write_etc("redis.key", [3; 32], 0o600);
        host.start("enable --quiet --now", unit);
    }
    assert_eq!(b.redis("ping"), "PONG");
    hosts
}

/// The receiver's source and drain timeout.
fn configure(host: &Host, source: &str, drain_timeout: &str) {
    host.write_etc("redis.conf", conf(source, "127.0.0.1:6379", drain_timeout), 0o644);
}

fn conf(source: &str, target: &str, drain_timeout: &str) -> String {
    format!(
        "SPIPED_SOURCE={source}\nSPIPED_TARGET={target}\nSPIPED_DRAIN_TIMEOUT={drain_timeout}\n"
    )
}

/// A client of Redis.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub fn ping(&mut self) -> io::Result<()> {
        self.0.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        self.0.read_exact(&mut answer)?;
        assert_eq!(&answer, b"+PONG\r\n");
        Ok(())
    }
}

/// What clients saw while other work was done.
pub struct Seen {
    pub served: usize,
    pub slowest: Duration,
}

/// Clients on a host ask all the time while `work` is done: some keep their connections,
/// the others make a new one for each question. A pool of redis-benchmark asks as well,
/// and ends with its first error.
///
/// # Panics
/// If a client is refused or reset.
pub fn clients_see(host: &Host, address: &str, work: impl FnOnce()) -> Seen {
    let address: SocketAddr = address.parse().unwrap();
    let is_over = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let kept = AtomicUsize::new(0);
    let slowest = Mutex::new(Duration::ZERO);
    let failed = Mutex::new(Vec::new());
    let ask = |client: &mut dyn FnMut() -> io::Result<()>, counted: &AtomicUsize| {
        while !is_over.load(Ordering::Relaxed) {
            let started = Instant::now();
            if let Err(error) = client() {
                failed.lock().unwrap().push(format!("{error} after {:?}", started.elapsed()));
                is_over.store(true, Ordering::Relaxed);
                return;
            }
            let mut slowest = slowest.lock().unwrap();
            *slowest = started.elapsed().max(*slowest);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..OPEN {
            scope.spawn(|| {
                host.net().enter(|| {
                    let mut client = Client::connect(address).unwrap();
                    ask(&mut || client.ping(), &kept);
                });
            });
        }
        for _ in 0..COMERS {
            scope.spawn(|| {
                host.net().enter(|| {
                    ask(&mut || Client::connect(address)?.ping(), &served);
                });
            });
        }
        let mut pool = redis_benchmark(host, address.port());
        wait_until("clients are served", || {
            is_over.load(Ordering::Relaxed)
                || served.load(Ordering::Relaxed) > 500 && kept.load(Ordering::Relaxed) > 500
        });
        work();
        let (served_before, kept_before) =
            (served.load(Ordering::Relaxed), kept.load(Ordering::Relaxed));
        wait_until("clients are served afterwards", || {
            is_over.load(Ordering::Relaxed)
                || served.load(Ordering::Relaxed) > served_before + 500
                    && kept.load(Ordering::Relaxed) > kept_before + 500
        });
        is_over.store(true, Ordering::Relaxed);
        let ended = pool.try_wait().unwrap();
        pool.kill().unwrap();
        pool.wait().unwrap();
        assert!(ended.is_none(), "redis-benchmark ended: {ended:?}");
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    Seen { served: served.into_inner(), slowest: slowest.into_inner().unwrap() }
}

/// Eight connections that ask until they are ended.
fn redis_benchmark(host: &Host, port: u16) -> Child {
    need("redis-benchmark", "redis-tools");
    host.net().enter(|| {
        let mut command = Command::new("redis-benchmark");
        command.args(["-c", "8", "-l", "-q", "-t", "get,set", "-p", &port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    })
}

/// A second restart works like the first.
#[test]
fn a_restart_of_either_end_refuses_nobody_and_cuts_nothing() {
    if !hosts_can_be("restarts in use") {
        return;
    }
    let hosts = boot();
    for round in 1..=2 {
        if round == 2 {
            // The receiver's restart cuts no session that is ready.
            hosts["b"].sh("echo SPIPED_PREWARM=8 >> /etc/spiped/redis.conf");
            restart(&hosts["b"], SEND);
        }
        for (name, unit) in [("a", RECEIVE), ("b", SEND)] {
            let host = &hosts[name];
            let before = main_process(host, unit);
            let mut took = Duration::ZERO;
            let seen = clients_see(&hosts["b"], "127.0.0.1:8000", || {
                let started = Instant::now();
                host.must(&format!("systemctl restart {unit}"));
                took = started.elapsed();
            });
            println!(
                "round {round}, {unit}: restarted in {took:?}, {} new connections, the slowest \
                 answer after {:?}",
                seen.served, seen.slowest
            );
            assert_ne!(main_process(host, unit), before);
            assert!(seen.slowest < Duration::from_secs(1), "{:?}", seen.slowest);
        }
    }
    for (name, unit, restarts) in [("a", RECEIVE, 2), ("b", SEND, 3)] {
        let log = hosts[name].must("journalctl --quiet --output cat");
        assert!(!log.contains("Found left-over process"), "{log}");
        assert_eq!(log.matches("the next process takes over").count(), restarts, "{unit}: {log}");
        // A process whose connections have all ended is gone.
        wait_until("none is left", || draining(&hosts[name]).is_empty());
    }
}

/// The scopes of processes that only drain.
fn draining(host: &Host) -> Vec<String> {
    let units = host.must("systemctl list-units --plain --no-legend spiped-*-draining-*.scope");
    units.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

fn main_process(host: &Host, unit: &str) -> String {
    host.must(&format!("systemctl show -P MainPID {unit}"))
}

fn restart(host: &Host, unit: &str) {
    host.must(&format!("systemctl restart {unit}"));
}

fn is_active(host: &Host, unit: &str) -> bool {
    host.run(&format!("systemctl is-active --quiet {unit}")).status.success()
}

/// A stop ends everything, draining processes included; and a drain ends in time.
#[test]
fn a_stop_ends_what_drains_and_so_does_the_drain_timeout() {
    if !hosts_can_be("the end of a drain") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let address = "127.0.0.1:8000".parse().unwrap();
    b.net().enter(|| {
        let connect = || {
            let mut client = Client::connect(address).unwrap();
            client.ping().unwrap();
            client
        };
        let mut clients = Vec::new();
        for restarts in 1..=2 {
            clients.push(connect());
            restart(a, RECEIVE);
            assert_eq!(draining(a).len(), restarts);
        }
        let description = a.must(&format!("systemctl show -P Description {}", draining(a)[0]));
        assert_eq!(description, format!("Open connections of {RECEIVE} from before a restart"));
        assert!(clients.iter_mut().all(|client| client.ping().is_ok()));
        a.must(&format!("systemctl stop {RECEIVE}"));
        assert!(clients.iter_mut().all(|client| client.ping().is_err()));
        wait_until("none is left", || draining(a).is_empty());
        assert!(connect_error(address).is_some(), "the port is closed");

        configure(a, "192.0.2.1:6379", "1");
        a.start("start", RECEIVE);
        let mut client = connect();
        restart(a, RECEIVE);
        let mut other = connect();
        wait_until("its time is over", || client.ping().is_err());
        wait_until("none is left", || draining(a).is_empty());
        other.ping().unwrap();

        // The time with which a process was started stays.
        configure(a, "192.0.2.1:6379", "3600");
        restart(a, RECEIVE);
        let mut last = connect();
        wait_until("its time is over, too", || other.ping().is_err());
        restart(a, RECEIVE);
        assert_eq!(draining(a).len(), 1);
        last.ping().unwrap();
    });
}

/// The restart meets a missing file, or a signal from somebody else.
#[test]
fn open_connections_outlive_a_next_process_that_does_not_start() {
    if !hosts_can_be("a next process that does not start") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    b.net().enter(|| {
        let address = "127.0.0.1:8000".parse().unwrap();
        let mut client = Client::connect(address).unwrap();
        client.ping().unwrap();
        a.sh("mv /etc/spiped/redis.key /etc/spiped/away");
        assert!(!a.run(&format!("systemctl restart {RECEIVE}")).status.success());
        client.ping().unwrap();
        a.sh("mv /etc/spiped/away /etc/spiped/redis.key");
        a.start("start", RECEIVE);
        client.ping().unwrap();
        Client::connect(address).unwrap().ping().unwrap();

        let before = main_process(a, RECEIVE);
        a.must(&format!("systemctl kill --signal=USR1 --kill-who=main {RECEIVE}"));
        wait_until("it is started again", || {
            is_active(a, RECEIVE) && main_process(a, RECEIVE) != before
        });
        client.ping().unwrap();
        a.must(&format!("systemctl stop {RECEIVE}"));
        assert!(client.ping().is_err());
        wait_until("none is left", || draining(a).is_empty());
    });
}

/// A client sees this reset where no process serves it.
fn connect_error(address: SocketAddr) -> Option<io::Error> {
    Client::connect(address).and_then(|mut client| client.ping()).err()
}

/// systemd still keeps the old address then; and a crash refuses no connection.
#[test]
fn a_restart_listens_at_a_new_address_and_a_crash_refuses_nobody() {
    if !hosts_can_be("a new address, and a crash") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    // The old address is in the way of this one.
    configure(a, "0.0.0.0:6379", "3600");
    a.sh("sed -i 's/^port 6379/port 6380/' /etc/redis/redis.conf; systemctl restart redis-server
         sed -i 's/127.0.0.1:6379/127.0.0.1:6380/' /etc/spiped/redis.conf");
    restart(a, RECEIVE);
    let listening = |host: &Host| host.must("ss -Hltn sport = 6379");
    let sockets = listening(a);
    assert!(sockets.lines().count() == 1 && sockets.contains("0.0.0.0:6379"), "{sockets}");
    assert_eq!(b.redis("ping"), "PONG");

    let seen = b.net().enter(|| {
        // Clients wait until the process is back.
        a.must(&format!("systemctl kill --signal=KILL {RECEIVE}"));
        let started = Instant::now();
        let mut client = Client::connect("127.0.0.1:8000".parse().unwrap()).unwrap();
        client.ping().unwrap();
        started.elapsed()
    });
    println!("after a crash: served after {seen:?}");
    assert_eq!(a.must(&format!("systemctl show -P NRestarts {RECEIVE}")), "1");
}

/// Where systemd makes no scope, a restart takes as long as the open connections.
#[test]
fn a_restart_that_cannot_hand_over_waits_for_open_connections() {
    if !hosts_can_be("a restart that cannot hand over") {
        return;
    }
    let hosts = boot();
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.sh("mount --bind /dev/null /usr/bin/systemd-run");
    b.net().enter(|| {
        let mut client = Client::connect("127.0.0.1:8000".parse().unwrap()).unwrap();
        client.ping().unwrap();
        a.must(&format!("systemctl restart --no-block {RECEIVE}"));
        wait_until("it drains", || a.log(RECEIVE).contains("TERM received: "));
        client.ping().unwrap();
        assert!(!is_active(a, RECEIVE));
        drop(client);
        wait_until("it is restarted", || is_active(a, RECEIVE));
    });
    let log = a.must("journalctl --quiet --output cat");
    let reason = "spiped: cannot hand over: 'systemd-run --scope ";
    assert!(log.contains(reason), "{log}");
    assert!(log.contains("hint: the restart waits for the open connections"), "{log}");
}
