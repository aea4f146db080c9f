//! Many named keys: ten clients of one receiver, a rotation under load, a revocation; and
//! what the units make of a file and a folder of keys.

use std::fs;

use crate::support::hosts::{Host, Hosts, hosts_can_be, said};
use crate::support::{need, wait_until};

pub(super) const RECEIVE: &str = "spiped-receive@redis.service";
const SET_UP: &str = "spiped setup receive redis --source 192.0.2.1:6379 --target 127.0.0.1:6379";
/// Each on a host of its own.
const CLIENTS: [&str; 10] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];

/// Runs the first printed command for another host there.
fn follow(host: &Host, printed: &str) -> String {
    host.sh(printed.lines().find(|line| line.starts_with("  ssh ")).expect(printed))
}

/// The last printed command for this host.
fn then_here(printed: &str) -> &str {
    printed.lines().rfind(|line| line.starts_with("  sudo ")).expect(printed).trim()
}

#[track_caller]
pub(super) fn refused(host: &Host, line: &str, code: i32, reason: &str) {
    let output = host.shell(line).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}: {}", said(&output));
    assert!(said(&output).contains(reason), "{reason:?} is not in {}", said(&output));
}

pub(super) fn answers(host: &Host) -> bool {
    host.redis("ping") == "PONG"
}

#[test]
fn ten_clients_have_keys_of_their_own_of_which_one_is_rotated_and_one_revoked() {
    if !hosts_can_be("ten clients with keys of their own") {
        return;
    }
    need("redis-benchmark", "redis-tools");
    let mut hosts = Hosts::boot(&[&["server"], CLIENTS.as_slice()].concat());
    let server = &hosts["server"];
    server.has_redis();
    server.sh(SET_UP);
    for name in CLIENTS {
        let printed = server.sh(&format!("spiped setup client {name} --pipe redis"));
        follow(&hosts[name], &printed);
        assert!(answers(&hosts[name]), "{name}");
        // Another run changes nothing and prints the same.
        assert_eq!(server.sh(&format!("spiped setup client {name} --pipe redis")), printed);
    }
    let ids = server.must("spiped keyid /etc/spiped/redis.keys");
    assert_eq!(ids.lines().count(), CLIENTS.len(), "{ids}");
    // Nobody has the key that the pipe was made with.
    server.sh("spiped setup revoke redis --pipe redis");

    rotates_under_load(server, &hosts["c0"]);
    assert!(answers(&hosts["c0"]));

    let listening = CLIENTS.map(|name| hosts[name].spawn("redis-cli -p 8000 subscribe news"));
    for one in &listening {
        one.lines.wait_for("subscribe");
    }
    let printed = server.sh("spiped setup revoke c1 --pipe redis");
    assert!(printed.contains("(1 connection ended)"), "{printed}");
    assert!(!answers(&hosts["c1"]));
    server.must("redis-cli publish news still-here");
    for (name, one) in CLIENTS.iter().zip(&listening).filter(|(name, _)| **name != "c1") {
        one.lines.wait_for("still-here");
        assert!(answers(&hosts[*name]), "{name}");
    }
    assert!(!listening[1].lines.all().iter().any(|line| line == "still-here"));
    drop(listening);

    hosts.reboot("server");
    nine_of_ten(&hosts);
    hosts.power_off("server");
    hosts.power_on("server");
    nine_of_ten(&hosts);
    // The same name gets another key, and with it the way in again.
    let printed = hosts["server"].sh("spiped setup client c1 --pipe redis");
    let printed = printed.replace("setup send", "setup rotate");
    let (bring, _) = printed.split_once(" --source").unwrap();
    follow(&hosts["c1"], &format!("{bring} --key -"));
    assert!(answers(&hosts["c1"]));
}

/// Every client but the one that is shut out.
fn nine_of_ten(hosts: &Hosts) {
    for name in CLIENTS.iter().filter(|name| **name != "c1") {
        wait_until("redis answers", || answers(&hosts[*name]));
    }
    assert!(!answers(&hosts["c1"]));
}

/// Requests of redis-benchmark that run without a pause, over connections that stay and over
/// new ones, while every step of the rotation is done, and done again.
fn rotates_under_load(server: &Host, client: &Host) {
    // In units, which no time limit of the test's own ends.
    for (name, options) in [("kept", "-c 20 -n 500"), ("new", "-c 5 -n 30 -k 0")] {
        client.sh(&format!(
            "systemd-run --quiet --unit {name} bash -c '
                while [ ! -e /run/enough ]; do
                    redis-benchmark -p 8000 -q -t ping,set,get {options} >> /run/{name} 2>&1 ||
                        echo failed >> /run/{name}
                    echo round >> /run/{name}
                done'"
        ));
    }
    let rounds = |name: &str| {
        let log = fs::read_to_string(client.outside(&format!("/run/{name}"))).unwrap_or_default();
        log.lines().filter(|line| *line == "round").count()
    };
    let goes_on = || {
        let before = ["kept", "new"].map(rounds);
        wait_until("two rounds are over", || {
            ["kept", "new"].map(rounds).iter().zip(before).all(|(now, before)| *now > before + 1)
        });
    };
    goes_on();
    let old = server.must("spiped keyid /etc/spiped/redis.keys/c0.key");
    let open = client.spawn("redis-cli -p 8000 subscribe rotation");
    open.lines.wait_for("subscribe");

    let rotate = "spiped setup rotate c0 --pipe redis";
    let printed = server.sh(rotate);
    goes_on();
    let new = server.must("spiped keyid /etc/spiped/redis.keys/c0.new.key");
    assert!(printed.contains(&old) && printed.contains(&new), "{printed}");
    // As after a run that was cut off.
    assert!(server.sh(rotate).contains(&new));
    goes_on();
    let switched = follow(client, &printed);
    assert!(switched.contains(&format!("has the key {new}, in place of {old}")), "{switched}");
    goes_on();
    assert!(follow(client, &printed).contains(&format!("has the key {new}, as before")));
    goes_on();
    assert!(then_here(&printed).ends_with("--finish"), "{printed}");
    let finished = server.sh(then_here(&printed));
    assert!(finished.contains(&format!("removed c0 {old} (")), "{finished}");
    assert!(finished.contains(&format!("has one key.\n  Its id is {new}")), "{finished}");
    goes_on();
    assert!(server.sh(then_here(&printed)).starts_with("c0 has one key."));
    goes_on();

    client.must("touch /run/enough");
    for name in ["kept", "new"] {
        wait_until("it ends", || {
            !client.run(&format!("systemctl is-active {name}")).status.success()
        });
        let log = fs::read_to_string(client.outside(&format!("/run/{name}"))).unwrap();
        let is_error = |line: &&str| line.contains("rror") || line.contains("failed");
        let errors = log.lines().filter(is_error).count();
        assert_eq!(errors, 0, "{log}");
        assert!(log.contains("requests per second"), "{log}");
    }
    // No connection was cut, either.
    server.must("redis-cli publish rotation still-here");
    open.lines.wait_for("still-here");
    let left = server.must("ls /etc/spiped/redis.keys");
    assert!(!left.contains("new"), "{left}");
}

/// One host with the server and a client of the pipe.
pub(super) fn one_host() -> Hosts {
    let hosts = Hosts::boot(&["one"]);
    let host = &hosts["one"];
    host.has_redis();
    host.sh("spiped setup receive redis --source 127.0.0.1:7000 --target 127.0.0.1:6379");
    host.sh("spiped setup send out --source 127.0.0.1:8000 --target 127.0.0.1:7000 \
             --key /etc/spiped/redis.key");
    assert!(answers(host));
    hosts
}

/// What a step cannot do changes nothing, and names why.
#[test]
fn a_step_of_a_rotation_that_fails_leaves_the_pipe_as_it_is() {
    if !hosts_can_be("rotations that fail") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let files = || host.sh("cd /etc/spiped; find . -printf '%p %m %u\\n' | sort; sha256sum *.key");
    let before = files();
    let none = "hint: redis has these keys: redis";
    refused(host, "spiped setup revoke mallory --pipe redis", 67, "there is no key mallory");
    refused(host, "spiped setup rotate mallory --pipe redis", 67, none);
    refused(host, "spiped setup rotate mallory --pipe redis --finish", 67, none);
    refused(host, "spiped setup client redis --pipe redis", 73, "redis is the name of the pipe");
    refused(host, "spiped setup client alice --pipe mallory", 66, "there is no pipe mallory");
    refused(host, "spiped setup client alice --pipe out", 73, "out is a sender here");
    refused(host, "spiped setup rotate redis --key /etc/spiped/out.key", 73, "is a receiver here");
    let unknown = "head --bytes 32 /dev/urandom | spiped setup rotate out --key -";
    refused(host, unknown, 67, "out keeps its key, since the pipe does not work with the new one");
    // A dry run changes nothing, either.
    for (line, would) in [
        ("client alice --pipe redis", "would make /etc/spiped/redis.keys, mode 0700"),
        ("rotate redis --pipe redis", "would make /etc/spiped/redis.keys/redis.new.key"),
        ("rotate redis --pipe redis", "would reload the keys of spiped-receive@redis.service"),
        ("revoke redis --pipe redis", "would remove /etc/spiped/redis.key"),
        ("rotate out --key /etc/spiped/out.key", "would replace /etc/spiped/out.key, with"),
    ] {
        let said = host.sh(&format!("spiped setup {line} --dry-run"));
        assert!(said.contains(would), "{said}");
    }
    assert_eq!(files(), before);

    // A key that the receiver refuses does not stay.
    host.write_etc("redis.keys/wrong.key", "short", 0o600);
    let refusal = "wrong.key is refused: the key has 5 bytes";
    refused(host, "spiped setup client alice --pipe redis", 65, refusal);
    assert_eq!(host.must("ls /etc/spiped/redis.keys"), "wrong.key");
    host.must("rm -r /etc/spiped/redis.keys");
    assert_eq!(files(), before);
    assert!(answers(host));
}

/// The key that the pipe was made with is rotated like that of a client, and each step goes
/// on where a run was cut off.
#[test]
fn a_rotation_that_was_cut_off_goes_on() {
    if !hosts_can_be("rotations that are cut off") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let id = |file: &str| host.must(&format!("spiped keyid /etc/spiped/{file}"));
    let old = id("redis.key");
    // Cut off before the reload.
    host.sh("mkdir -m 700 /etc/spiped/redis.keys
             spiped keygen /etc/spiped/redis.keys/redis.new.key");
    let new = id("redis.keys/redis.new.key");
    let printed = host.sh("spiped setup rotate redis --pipe redis");
    assert!(printed.contains(&format!("new one is {new}")), "{printed}");
    assert!(printed.contains(" | sudo spiped setup rotate redis --key -\n"), "{printed}");
    host.sh("cat /etc/spiped/redis.keys/redis.new.key | spiped setup rotate out --key -");
    assert_eq!(id("out.key"), new);
    // Cut off between the rename and the reload.
    host.must("mv /etc/spiped/redis.keys/redis.new.key /etc/spiped/redis.key");
    host.must("rmdir /etc/spiped/redis.keys");
    let printed = host.sh(then_here(&printed));
    assert!(printed.contains(&format!("removed redis {old} (0 connections open)")), "{printed}");
    assert!(answers(host));

    // The same while the receiver does not run.
    host.must(&format!("systemctl stop {RECEIVE}"));
    let printed = host.sh("spiped setup rotate redis --pipe redis");
    assert!(printed.contains("The receiver redis does not run;"), "{printed}");
    host.must(&format!("systemctl start {RECEIVE}"));
    host.sh("cat /etc/spiped/redis.keys/redis.new.key | spiped setup rotate out --key -");
    host.sh(then_here(&printed));
    assert!(answers(host));
    assert_eq!(host.must("ls /etc/spiped"), "out.conf\nout.key\nredis.conf\nredis.key");
}

/// A process that only lets its connections end is found, also where the next one never came;
/// and one that systemd is just starting, with the files as they were, is waited for.
#[test]
fn a_revoked_key_has_no_process_left_whatever_restarts() {
    if !hosts_can_be("revocations beside restarts") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let give = |name: &str| {
        host.sh(&format!("spiped setup client {name} --pipe redis"));
        let key = format!("/etc/spiped/redis.keys/{name}.key");
        host.sh(&format!("cat {key} | spiped setup rotate out --key -"));
        assert!(answers(host), "{name}");
        let open = host.spawn("redis-cli -p 8000 subscribe news");
        open.lines.wait_for("subscribe");
        open
    };
    let open = give("alice");
    let source = fs::read_to_string(host.etc("redis.conf")).unwrap();
    host.write_etc("redis.conf", "nonsense\n", 0o600);
    assert!(!host.run(&format!("systemctl restart {RECEIVE}")).status.success());
    host.write_etc("redis.conf", source, 0o600);
    let printed = host.sh("spiped setup revoke alice --pipe redis");
    assert!(printed.contains("(1 connection ended)"), "{printed}");
    wait_until("the client is cut", || !host.sh("ss -Htn state established").contains(":8000"));
    drop(open);
    host.must(&format!("systemctl restart {RECEIVE}"));

    for round in 0..6 {
        let name = format!("c{round}");
        let _open = give(&name);
        // At another moment of the restart each time.
        let printed = host.sh(&format!(
            "systemctl restart --no-block {RECEIVE}; sleep 0.{:02}; \
             spiped setup revoke {name} --pipe redis",
            round * 4
        ));
        assert!(printed.contains(&format!("revoked {name} ")), "{printed}");
        assert!(printed.contains("(1 connection ended)"), "{printed}");
        wait_until("it runs again", || {
            host.run(&format!("systemctl is-active {RECEIVE}")).status.success()
        });
        assert!(!answers(host), "{name}");
    }
}

/// The files go, whatever the running process does, and the last key can go, too.
#[test]
fn a_revocation_is_finished_by_another_run() {
    if !hosts_can_be("revocations") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let printed = host.sh("spiped setup client alice --pipe redis");
    assert!(printed.contains("sudo cat /etc/spiped/redis.keys/alice.key | "), "{printed}");
    host.sh("cat /etc/spiped/redis.keys/alice.key | spiped setup rotate out --key -");
    host.write_etc("redis.keys/alice.conf", "CONNECTIONS=20\n", 0o600);
    host.sh("spiped setup rotate alice --pipe redis");
    // Open connections from before a restart, too.
    let open = host.spawn("redis-cli -p 8000 subscribe news");
    open.lines.wait_for("subscribe");
    host.must(&format!("systemctl restart {RECEIVE}"));
    wait_until("it serves", || answers(host));
    // Cut off after the files.
    host.must("rm -r /etc/spiped/redis.keys");
    let printed = host.sh("spiped setup revoke alice --pipe redis");
    assert!(printed.contains("revoked alice ") && printed.contains("revoked alice.new "));
    assert!(printed.contains("(1 connection ended)"), "{printed}");
    assert!(!answers(host));
    refused(host, "spiped setup revoke bob --pipe redis", 67, "there is no key bob");

    let printed = host.sh("spiped setup revoke redis --pipe redis");
    assert!(printed.contains("removed /etc/spiped/redis.key\nrevoked redis "), "{printed}");
    assert!(printed.contains("that was the last key of redis: nobody can connect"), "{printed}");
    assert_eq!(host.must(&format!("systemctl is-active {RECEIVE}")), "active");
    host.sh("spiped setup client bob --pipe redis");
    host.sh("cat /etc/spiped/redis.keys/bob.key | spiped setup rotate out --key -");
    assert!(answers(host));
    // The setup of the pipe is finished without a key of its own, and is still removed.
    let again = "spiped setup receive redis --source 127.0.0.1:7000 --target 127.0.0.1:6379";
    let printed = host.sh(again);
    assert!(printed.contains("Its clients have keys of their own"), "{printed}");
    let printed = host.sh("spiped setup remove redis");
    assert!(printed.contains("left /etc/spiped/redis.keys: "), "{printed}");
    host.write_etc("redis.keys/bob.conf", "CONNECTIONS=20\n", 0o600);
    host.write_etc("redis.keys/notes", "", 0o600);
    let printed = host.sh("spiped setup remove redis --keys");
    assert!(printed.contains("left /etc/spiped/redis.keys/notes: setup has not"), "{printed}");
    assert_eq!(host.must("ls /etc/spiped/redis.keys"), "notes");
    host.must("rm /etc/spiped/redis.keys/notes");
    host.sh("spiped setup remove redis --keys");
    assert_eq!(host.must("ls /etc/spiped"), "out.conf\nout.key");
}

/// The unit needs the file, the folder or both, and says what is wrong with either.
#[test]
fn a_unit_takes_a_file_a_folder_or_both() {
    if !hosts_can_be("units with folders of keys") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let restart = format!("systemctl restart {RECEIVE}");
    host.sh("mkdir -m 700 /etc/spiped/redis.keys
             spiped keygen /etc/spiped/redis.keys/alice.key
             touch /etc/spiped/redis.keys/.hidden /etc/spiped/redis.keys/alice.key~");
    host.must(&restart);
    wait_until("both keys work", || answers(host));
    host.sh("cat /etc/spiped/redis.keys/alice.key | spiped setup rotate out --key -");
    host.must("mv /etc/spiped/redis.key /etc/spiped/away");
    host.must(&restart);
    wait_until("the folder is enough", || answers(host));

    // The plain unit has its own pair of those.
    host.must(&format!("systemctl stop {RECEIVE}"));
    host.write_etc("redis.addr", "ADDR=127.0.0.2\n", 0o644);
    host.start("start", "spiped-receive.service");
    host.must("systemctl stop spiped-receive.service");

    for (script, reason) in [
        ("ln -s ../away bob.key", "bob.key is a link, and systemd hands the daemon no links"),
        ("ln -s ../away alice.conf", "alice.conf is a link, and systemd hands the daemon no links"),
        ("cp -p alice.key bob.key", "alice and bob are the same key"),
        ("install -m 644 alice.key bob.key", "bob.key is open to others (mode 0644)"),
        ("mkdir bob.key", "/etc/spiped/redis.keys/bob.key is a folder, and a folder of keys has"),
        // systemd would hand over what is in it.
        ("mkdir bob.swp", "/etc/spiped/redis.keys/bob.swp is a folder, and a folder of keys has"),
        ("mkdir ..bob", "/etc/spiped/redis.keys/..bob is a folder, and a folder of keys has none"),
        ("touch bob", "/etc/spiped/redis.keys/bob is neither a key nor the settings of one"),
        ("mv alice.key ..", "no key is in the folder /etc/spiped/redis.keys"),
        ("chmod 770 .", "can write to /etc/spiped/redis.keys (mode 0770)"),
    ] {
        host.sh(&format!("cd /etc/spiped/redis.keys; {script}"));
        assert!(!host.run(&restart).status.success(), "{script}");
        // Of a process that has ended just after a line, the journal may not know the unit.
        wait_until(reason, || host.must("journalctl --quiet --output cat").contains(reason));
        host.sh("cd /etc/spiped/redis.keys; rm -rf bob* ..bob alice.conf; chmod 700 .
                 [ ! -e ../alice.key ] || mv ../alice.key .");
    }
    host.must(&restart);
    wait_until("it serves again", || answers(host));

    // Settings whose key is gone stop nothing, nor does an empty folder beside the file.
    host.write_etc("redis.keys/bob.conf", "CONNECTIONS=20\n", 0o600);
    host.must(&restart);
    wait_until("it serves with unused settings", || answers(host));
    let warning = "beside the settings /etc/spiped/redis.keys/bob.conf is no key";
    wait_until(warning, || host.must("journalctl --quiet --output cat").contains(warning));
    host.sh("cd /etc/spiped; rm redis.keys/bob.conf; mv redis.keys/alice.key redis.key
             rm -f redis.keys/.hidden redis.keys/alice.key~");
    assert_eq!(host.must("find /etc/spiped/redis.keys"), "/etc/spiped/redis.keys");
    host.must(&restart);
    wait_until("it serves with an empty folder", || answers(host));
}

/// As many as one receiver can have, with the longest names and with settings for some.
#[test]
fn a_unit_takes_a_thousand_keys() {
    if !hosts_can_be("units with a thousand keys") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let folder = host.etc("redis.keys");
    fs::create_dir(&folder).unwrap();
    for number in 0..999_u32 {
        let name = format!("redis.keys/{number:0>64}.key");
        host.write_etc(&name, [number.to_be_bytes().as_slice(), &[7; 28]].concat(), 0o600);
    }
    host.must("chmod 700 /etc/spiped/redis.keys");
    host.must(&format!("systemctl reload {RECEIVE}"));
    host.must(&format!("systemctl restart {RECEIVE}"));
    wait_until("it serves", || answers(host));
    host.must(&format!("cp /etc/spiped/redis.keys/{:0>64}.key /root/last.key", 998));
    host.sh("spiped setup rotate out --key /root/last.key");
    assert!(answers(host));
    host.sh("spiped keygen /etc/spiped/redis.keys/one-more.key");
    assert!(!host.run(&format!("systemctl reload {RECEIVE}")).status.success());
    let log = host.log(RECEIVE);
    assert!(log.contains("there are more keys than one end can have"), "{log}");
}
