//! `--bind-per-key` before `MariaDB`: a key is a database user's way in, and nobody else's.

use std::fs;
use std::process::Command;

use crate::support::maria::{Maria, ask};
use crate::support::program::is_there;
use crate::support::{Daemon, Folder, SPIPED, nobody};

const RANGE: &str = "127.64.0.0/10";

#[test]
fn an_account_of_a_keys_address_is_for_the_holder_of_that_key_alone() {
    if !is_there("mariadbd", "accounts of MariaDB by key") || !is_there("mariadb", "MariaDB") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    fs::create_dir(folder.path("keys")).unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| folder.key(&format!("keys/{name}.key")));
    let mut command = Command::new(SPIPED);
    command.args(["keyid", "--bind-per-key", RANGE]).arg(folder.path("keys"));
    let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let addresses: Vec<_> = shown.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let [of_alice, of_bob] = addresses[..] else { panic!("{shown}") };

    let server = Maria::start(&folder, "[mariadbd]\nbind_address=127.0.0.1", address);
    server.root(&format!("CREATE USER app@'{of_alice}' IDENTIFIED BY 'secret'"));
    server.root(&format!("CREATE USER other@'{of_bob}' IDENTIFIED BY 'other'"));
    // Many failures of one client do not shut out another.
    server.root("SET GLOBAL max_connect_errors = 1");
    let receiver = Daemon::receiver(&folder.path("keys"), address, &["--bind-per-key", RANGE]);
    let [alice, bob] = [alice, bob].map(|key| Daemon::sender(&key, receiver.address, &[]));
    let enters = |port: u16| {
        let port = port.to_string();
        let how = ["-h", "127.0.0.1", "-P", &port, "-u", "app", "-psecret"];
        let done = ask(&how, "SELECT USER()");
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.success(), said)
    };
    let (is_in, said) = enters(alice.address.port());
    assert!(is_in && said == format!("app@{of_alice}\n"), "{said}");
    // With the right password, but another key, or none at all.
    let (is_in, said) = enters(bob.address.port());
    assert!(!is_in && said.contains("denied"), "{said}");
    let (is_in, said) = enters(address.port());
    assert!(!is_in && said.contains("denied"), "{said}");

    // MariaDB blocks an address that connects and says nothing.
    for _ in 0..3 {
        let mut client = bob.connect();
        let _greeting = std::io::Read::read(&mut client, &mut [0; 256]);
        crate::support::reset(client);
    }
    crate::support::wait_until("bob's address is blocked", || {
        enters(bob.address.port()).1.contains("blocked")
    });
    assert!(enters(alice.address.port()).0);
}

/// It counts each connection that says nothing, and blocks the address of too many of them;
/// an address of 127.0.0.0/8 other than 127.0.0.1 counts as any other host's.
#[test]
fn no_number_of_checks_counts_as_a_connection_of_mariadb() {
    if !is_there("mariadbd", "checks before MariaDB") || !is_there("mariadb", "MariaDB") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let server = Maria::start(&folder, "[mariadbd]\nbind_address=127.0.0.1", address);
    server.root("CREATE USER app@'127.0.0.9' IDENTIFIED BY 'secret'");
    server.root("SET GLOBAL max_connect_errors = 1");
    let key = folder.shared_key();
    let receiver = Daemon::receiver(&key, address, &["-b", "127.0.0.9"]);
    let aborted = || server.root("SHOW GLOBAL STATUS LIKE 'Aborted_connects'");
    let before = aborted();
    for _ in 0..10 {
        let mut check = Command::new(SPIPED);
        check.args(["check", "-t", &receiver.address.to_string(), "-k"]).arg(&key);
        let done = check.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(aborted(), before);
    let sender = Daemon::sender(&key, receiver.address, &[]);
    let port = sender.address.port().to_string();
    let done = ask(&["-h", "127.0.0.1", "-P", &port, "-u", "app", "-psecret"], "SELECT 1");
    assert!(done.status.success(), "{done:?}");
}
