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

/// A shared key that was stolen: nobody who has the new one is cut.
#[test]
fn the_end_of_a_rotation_shuts_out_who_has_the_old_key() {
    if !hosts_can_be("rotations of stolen keys") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    let open = || {
        let open = host.spawn("redis-cli -p 8000 subscribe news");
        open.lines.wait_for("subscribe");
        open
    };
    let thief = open();
    host.sh("cp -p /etc/spiped/redis.key /root/stolen.key
             spiped setup rotate redis --pipe redis
             cat /etc/spiped/redis.keys/redis.new.key | spiped setup rotate out --key -");
    let honest = open();
    let finish = "spiped setup rotate redis --pipe redis --finish --revoke";
    let dry = host.sh(&format!("{finish} --dry-run"));
    assert!(
        dry.starts_with(&format!("would end the connections of redis at {RECEIVE}\n")),
        "{dry}"
    );
    let said = host.sh(finish);
    assert!(
        said.starts_with("revoked redis ") && said.contains(" (1 connection ended)\n"),
        "{said}"
    );
    assert!(said.contains("\nredis has one key.\n") && !said.contains("warning"), "{said}");
    wait_until("the thief is cut", || host.must("redis-cli pubsub numsub news").ends_with('1'));
    host.must("redis-cli publish news still-here");
    honest.lines.wait_for("still-here");
    assert!(!thief.lines.all().iter().any(|line| line == "still-here"));
    // Another run changes nothing, and the new key stays.
    let again = host.sh(finish);
    assert!(again.starts_with("the rotation was finished before: no connection is ended\n"));
    assert!(answers(host));
    refused(host, "spiped setup rotate out --key /root/stolen.key", 67, "out keeps its key");
    host.must(&format!("systemctl restart {RECEIVE}"));
    wait_until("it serves with the new key", || answers(host));
}

/// Who ends a rotation too early, or revokes a copy of a key, is told what to do; and text is
/// no key.
#[test]
fn a_step_too_early_is_warned_of() {
    if !hosts_can_be("rotations that end too early") {
        return;
    }
    let hosts = one_host();
    let host = &hosts["one"];
    // What a power cut has left goes with the next file.
    host.sh("echo secret > /etc/spiped/.tmpAbCdEf; mkdir -m 700 /etc/spiped/redis.keys
             echo secret > /etc/spiped/redis.keys/.tmpAbCdEf");
    let printed = host.sh("spiped setup client alice --pipe redis");
    assert_eq!(host.must("ls -A /etc/spiped/redis.keys"), "alice.key");
    let line = printed.lines().filter(|line| line.starts_with("  ssh ")).nth(1).expect(&printed);
    let (_, here) = line.split_once(" | sudo ").unwrap();
    assert_eq!(here, "spiped setup rotate redis --key -");
    let given = "cat /etc/spiped/redis.keys/alice.key | spiped setup rotate out --key -";
    host.sh(given);
    assert_eq!(
        host.must("ls -A /etc/spiped"),
        "out.conf\nout.key\nredis.conf\nredis.key\nredis.keys"
    );
    let base64 = "base64 /etc/spiped/redis.keys/alice.key | spiped setup rotate out --key -";
    refused(host, base64, 65, "this is the base64 of a key; decode it: base64 -d");

    host.sh("spiped setup rotate alice --pipe redis");
    let said = host.sh("spiped setup rotate alice --pipe redis --finish");
    let warning = "warning: since the receiver was started, nobody has used the new key of alice.";
    assert!(said.starts_with(warning), "{said}");
    assert!(!answers(host));
    let repair = said.lines().find(|line| line.starts_with("  ssh ")).expect(&said);
    assert!(repair.ends_with("/alice.key | sudo spiped setup rotate redis --key -"), "{said}");
    host.sh(given);
    assert!(answers(host));

    host.sh("cd /etc/spiped/redis.keys; cp -p alice.key copy.key");
    let said = host.sh("spiped setup revoke copy --pipe redis");
    let still = "is still in force as alice: 'spiped setup revoke alice --pipe redis' revokes it";
    assert!(said.contains(still), "{said}");
    assert!(answers(host));
    host.sh("echo secret > /etc/spiped/.tmpAbCdEf; spiped setup remove out --keys
             spiped setup remove redis --keys");
    assert_eq!(host.must("ls -A /etc/spiped"), "");
}
