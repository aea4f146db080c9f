//! What happens to a key where its files and the running process do not do as they are told.

use super::keys::{RECEIVE, answers, one_host, refused};
use crate::support::hosts::{Host, hosts_can_be, said};
use crate::support::wait_until;

/// A client that has a key of its own, with settings, on one host.
fn has_client(host: &Host) {
    host.sh("spiped setup client alice --pipe redis");
    host.sh("umask 077; echo CONNECTIONS=20 > /etc/spiped/redis.keys/alice.conf");
    host.sh("cat /etc/spiped/redis.keys/alice.key | spiped setup rotate out --key -");
    assert!(answers(host));
}

#[test]
fn a_client_is_shut_out_whatever_its_files_do() {
    if !hosts_can_be("revocations whose files stay") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    // A folder that is a file system of its own cannot be removed.
    host.sh("mkdir -m 700 /etc/spiped/redis.keys
             mount -t tmpfs -o mode=700 tmpfs /etc/spiped/redis.keys");
    has_client(host);
    // Nor can this file.
    host.sh("cd /etc/spiped/redis.keys; mount --bind alice.key alice.key");
    let open = host.spawn("redis-cli -p 8000 subscribe news");
    open.lines.wait_for("subscribe");
    let output = host.shell("spiped setup revoke alice --pipe redis").output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
    let said = said(&output);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("left /etc/spiped/redis.keys/alice.key: "), "{said}");
    // A key is not left without its limits.
    assert_eq!(lines[1], "left /etc/spiped/redis.keys/alice.conf: its key is still there");
    assert!(lines[2].starts_with("revoked alice ") && lines[2].ends_with("(1 connection ended)"));
    assert!(lines[3].ends_with("not all files of the key alice are removed"), "{said}");
    assert!(!answers(host));

    // The next run removes what is left, with what a power cut left of a key.
    host.sh("cd /etc/spiped/redis.keys; umount alice.key; echo secret > .tmpAbCdEf");
    let said = host.sh("spiped setup revoke alice --pipe redis");
    let removed =
        ["key", "conf"].map(|kind| format!("removed /etc/spiped/redis.keys/alice.{kind}"));
    assert_eq!(said, removed.join("\n"));
    assert_eq!(host.must("find /etc/spiped/redis.keys"), "/etc/spiped/redis.keys");
    // The empty folder stops nothing.
    host.must(&format!("systemctl restart {RECEIVE}"));
    host.sh("spiped setup rotate out --key /etc/spiped/redis.key");
    assert!(answers(host));
    // The last key goes, and the pipe gets another one, although the folder is there.
    host.sh("spiped setup revoke redis --pipe redis; systemctl stop spiped-receive@redis");
    host.sh("spiped setup receive redis --source 127.0.0.1:7000 --target 127.0.0.1:6379");
    host.sh("spiped setup rotate out --key /etc/spiped/redis.key");
    assert!(answers(host));

    // What cannot be removed keeps nothing else there.
    host.sh("echo secret > /etc/spiped/redis.keys/.tmpAbCdEf");
    let remove = "spiped setup remove redis --keys";
    refused(host, remove, 73, "left /etc/spiped/redis.keys: ");
    assert_eq!(host.must("ls -A /etc/spiped"), "out.conf\nout.key\nredis.keys");
    assert_eq!(host.must("ls -A /etc/spiped/redis.keys"), "");
    host.must("umount /etc/spiped/redis.keys");
    host.sh(remove);
    assert_eq!(host.must("ls -A /etc/spiped"), "out.conf\nout.key");
}

/// A run that read the files before another one changed them would bring a key back.
#[test]
fn one_command_at_a_time_is_at_work_on_the_keys() {
    if !hosts_can_be("two commands at once") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    has_client(host);
    let hold =
        "flock /etc/spiped bash -c 'touch /run/held; until [ -e /run/enough ]; do sleep 0.1; done'";
    host.sh(&format!("systemd-run --quiet --unit holder {hold}"));
    wait_until("it is held", || host.run("test -e /run/held").status.success());
    let busy = "another command is at work on /etc/spiped";
    for line in [
        "spiped setup revoke alice --pipe redis",
        "spiped setup client bob --pipe redis",
        "spiped setup rotate out --key /etc/spiped/redis.key",
        "spiped setup receive redis --source 127.0.0.1:7000 --target 127.0.0.1:6379",
        "spiped setup remove out",
        "spiped rekey /run/spiped-receive@redis/control /etc/spiped/redis.key",
    ] {
        refused(host, line, 69, busy);
    }
    assert!(!host.run(&format!("systemctl reload {RECEIVE}")).status.success());
    // Who only looks, or has other files, needs no turn.
    host.sh("spiped setup revoke alice --pipe redis --dry-run");
    host.sh("cp -a /etc/spiped/redis.key /root
             spiped rekey /run/spiped-receive@redis/control /root/redis.key
             spiped keyid /etc/spiped/redis.keys");
    // One that waits gets its turn.
    host.sh("systemd-run --quiet --unit waiter --property Type=oneshot --no-block \
             spiped setup client bob --pipe redis
             until [ \"$(systemctl is-active waiter)\" = activating ]; do sleep 0.1; done
             touch /run/enough");
    wait_until("it has its turn", || {
        host.run("test -e /etc/spiped/redis.keys/bob.key").status.success()
    });
    host.sh("until [ \"$(systemctl is-active waiter)\" = inactive ]; do sleep 0.1; done
             spiped setup revoke alice --pipe redis");
    assert!(!answers(host));
}

/// Whether a process that hangs has the new key cannot be known, so that the files stay.
#[test]
fn a_key_stays_where_the_running_process_does_not_answer() {
    if !hosts_can_be("processes that hang") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let signal = |signal: &str, unit: &str| {
        host.must(&format!("systemctl kill --kill-whom=all --signal={signal} {unit}"));
    };
    let stays = |unit: &str| {
        format!("files are in place, but it is not known whether {unit} has the keys: the spiped")
    };
    let reload = |unit: &str| {
        wait_until("it takes the files", || {
            host.run(&format!("systemctl reload {unit}")).status.success()
        });
    };
    signal("STOP", RECEIVE);
    let client = "spiped setup client alice --pipe redis";
    refused(host, client, 69, &stays(RECEIVE));
    let id = host.must("spiped keyid /etc/spiped/redis.keys/alice.key");
    signal("CONT", RECEIVE);
    reload(RECEIVE);
    // The same command finishes what it began.
    let printed = host.sh(client);
    assert!(printed.contains(&id), "{printed}");

    let sender = "spiped-send@out.service";
    signal("STOP", sender);
    let switch = "spiped setup rotate out --key /etc/spiped/redis.keys/alice.key";
    refused(host, switch, 69, &stays(sender));
    assert_eq!(host.must("spiped keyid /etc/spiped/out.key"), id);
    signal("CONT", sender);
    reload(sender);
    host.sh(switch);
    assert!(answers(host));
    host.sh("spiped setup rotate alice --pipe redis
             spiped setup rotate out --key /etc/spiped/redis.keys/alice.new.key");
    signal("STOP", RECEIVE);
    let finish = "spiped setup rotate alice --pipe redis --finish";
    refused(host, finish, 69, &stays(RECEIVE));
    signal("CONT", RECEIVE);
    reload(RECEIVE);
    host.sh(finish);
    assert!(answers(host));
}
