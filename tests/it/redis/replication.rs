//! A replica whose master is behind the pipe: the replica becomes equal to the master,
//! and becomes equal again after the link was cut, without a second full copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::resp::ask;
use crate::support::hop::{Act, Hop, Tamper};
use crate::support::redis::Redis;
use crate::support::{Daemon, Folder, connect, noise, wait_until};

/// Allows DEBUG DIGEST, one hash of everything that a server holds.
const DIGEST: [&str; 2] = ["--enable-debug-command", "local"];

#[test]
fn a_replica_catches_up_after_the_network_was_cut() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let master = master(&folder);
    let receiver = Daemon::receiver(&key, master.address, &[]);
    let network = Network::default();
    let sender = Daemon::sender(&key, network.hop(&receiver).address, &[]);
    let replica = replica_of(&folder, &master, &sender);

    let writer = Writer::start(&master);
    network.cut();
    wait_for_link(&replica, "down");
    writer.write_more();
    network.mend();
    wait_for_link(&replica, "up");
    writer.finish();

    sender.log.wait_for("truncated");
    assert_caught_up(&master, &replica);
}

#[test]
fn a_replica_catches_up_after_the_receiver_was_killed_and_started_again() {
    let folder = Folder::new();
    let key = folder.shared_key();
    let master = master(&folder);
    // Another process could take the port before the receiver is back.
    let tunnel = folder.path("tunnel.socket").to_str().unwrap().to_owned();
    let target = master.address.to_string();
    let receiver = ["-d", "-s", &tunnel, "-t", &target, "-k", key.to_str().unwrap()];
    let first_receiver = Daemon::start(&receiver);
    let sender = Daemon::sender(&key, &tunnel, &[]);
    let replica = replica_of(&folder, &master, &sender);

    let writer = Writer::start(&master);
    drop(first_receiver);
    wait_for_link(&replica, "down");
    writer.write_more();
    let _second_receiver = Daemon::start(&receiver);
    wait_for_link(&replica, "up");
    writer.finish();

    sender.log.wait_for("truncated");
    assert_caught_up(&master, &replica);
}

/// A master that holds 32 MiB of incompressible data, and whose backlog is large enough
/// for a replica that was away.
fn master(folder: &Folder) -> Redis {
    let replication = ["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"];
    let master = Redis::start(folder, "master", &[&DIGEST, &replication[..]].concat());
    let mut client = connect(master.address);
    for number in 0..32 {
        let value = noise(number, 1024 * 1024);
        ask(&mut client, &[b"SET", format!("mib:{number}").as_bytes(), &value], "+OK\r\n");
    }
    master
}

/// A replica that has become equal to its master, which it reaches only through the
/// sender.
fn replica_of(folder: &Folder, master: &Redis, sender: &Daemon) -> Redis {
    let replica = Redis::start(folder, "replica", &DIGEST);
    let port = sender.address.port().to_string();
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
    wait_until_equal(master, &replica);
    replica
}

fn wait_until_equal(master: &Redis, replica: &Redis) {
    let all = master.cli(&["DEBUG", "DIGEST"]);
    wait_until("the replica is equal", || replica.cli(&["DEBUG", "DIGEST"]) == all);
}

fn wait_for_link(replica: &Redis, status: &str) {
    wait_until(&format!("the link is {status}"), || replica.info("master_link_status") == status);
}

fn assert_caught_up(master: &Redis, replica: &Redis) {
    wait_until_equal(master, replica);
    assert_eq!(master.info("sync_full"), "1");
    assert_eq!(master.info("sync_partial_ok"), "1");
}

/// A connection between the two ends that can be cut.
#[derive(Default)]
struct Network(Arc<AtomicBool>);

impl Network {
    fn hop(&self, receiver: &Daemon) -> Hop {
        let is_cut = Arc::clone(&self.0);
        Hop::tampering(receiver.address, move |_| -> Tamper {
            let is_cut = Arc::clone(&is_cut);
            Box::new(move |unit| {
                if is_cut.load(Ordering::Relaxed) {
                    vec![Act::End]
                } else {
                    vec![Act::Forward(unit.bytes)]
                }
            })
        })
    }

    fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn mend(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Writes small values, one after the other, directly to the master.
struct Writer {
    written: Arc<AtomicUsize>,
    is_enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(master: &Redis) -> Self {
        let (written, is_enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counts, ends) = (Arc::clone(&written), Arc::clone(&is_enough));
        let mut client = connect(master.address);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let number = counts.fetch_add(1, Ordering::Relaxed).to_string();
                ask(&mut client, &["SET", &format!("small:{number}"), &number], "+OK\r\n");
            }
        });
        let writer = Self { written, is_enough, thread };
        writer.write_more();
        writer
    }

    /// Waits until a thousand more values have been written.
    fn write_more(&self) {
        let more = self.written.load(Ordering::Relaxed) + 1000;
        wait_until("more is written", || self.written.load(Ordering::Relaxed) > more);
    }

    fn finish(self) {
        self.is_enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
