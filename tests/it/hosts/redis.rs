//! The recipes of man/spiped-redis.7, followed word for word, and their promises.

use std::collections::BTreeSet;
use std::time::Duration;

use super::recipe::{follow, recipe, recipe_of_the_readme};
use crate::support::hosts::{Cable, Host, Hosts, hosts_can_be, said};
use crate::support::{wait_until, wait_until_within};

const FIVE_MINUTES: &str = "Redis over two hosts, in five minutes";
const SERVER_AND_CLIENTS: &str = "A SERVER AND ITS CLIENTS";
const KEY_FOR_EACH: &str = "A key for each client";
const NEW_KEY: &str = "A new key";
const REPLICATION: &str = "TWO SERVERS THAT REPLICATE";
const NEW_KEYS: &str = "New keys for a pair";
const THIRD: &str = "A third server";
const SWAP: &str = "Swapping the roles";
const SENTINEL: &str = "SENTINEL";
/// Sentinels check each other and the servers every few seconds.
const AGREEMENT: Duration = Duration::from_secs(80);

#[test]
fn a_server_has_clients_and_gets_a_new_key() {
    if !hosts_can_be("the recipe for a server and its clients") {
        return;
    }
    assert_eq!(recipe_of_the_readme(FIVE_MINUTES), recipe(SERVER_AND_CLIENTS));
    let hosts = Hosts::boot(&["a", "b"]);
    hosts["a"].has_redis();
    let printed = follow(&hosts, &recipe(SERVER_AND_CLIENTS));
    assert!(printed.ends_with("PONG\n"), "{printed}");

    let listening = hosts["b"].spawn("redis-cli -p 8000 subscribe news");
    listening.lines.wait_for("subscribe");
    let key_id = || hosts["a"].must("spiped keyid /etc/spiped/redis.key");
    let before = key_id();
    let printed = follow(&hosts, &recipe(NEW_KEY));
    assert_ne!(key_id(), before);
    assert!(printed.contains(&format!("removed redis {before} (1 connection open)")), "{printed}");
    assert_eq!(hosts["b"].redis("ping"), "PONG");
    // Open connections go on.
    redis(&hosts["a"], "publish news still-here");
    listening.lines.wait_for("still-here");
}

#[test]
fn a_client_with_a_key_of_its_own_is_shut_out_alone() {
    if !hosts_can_be("the recipe for clients with keys of their own") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b", "c"]);
    hosts["a"].has_redis();
    follow(&hosts, &recipe(SERVER_AND_CLIENTS));
    let steps = recipe(KEY_FOR_EACH);
    let (shut_b_out, set_up) = steps.split_last().unwrap();
    follow(&hosts, set_up);
    let key_id =
        |host: &str, file: &str| hosts[host].must(&format!("spiped keyid /etc/spiped/{file}"));
    for client in ["b", "c"] {
        assert_eq!(hosts[client].redis("ping"), "PONG");
        let made = key_id("a", &format!("redis.keys/{client}.key"));
        assert_eq!(key_id(client, "redis.key"), made);
    }
    assert_eq!(hosts["a"].must("ls /etc/spiped"), "redis.conf\nredis.keys");

    let listening = hosts["c"].spawn("redis-cli -p 8000 subscribe news");
    listening.lines.wait_for("subscribe");
    shut_b_out.follow(&hosts);
    assert_ne!(hosts["b"].redis("ping"), "PONG");
    assert_eq!(hosts["c"].redis("ping"), "PONG");
    assert_eq!(hosts["a"].must("ls /etc/spiped/redis.keys"), "c.key");
    redis(&hosts["a"], "publish news still-here");
    listening.lines.wait_for("still-here");
    let log = hosts["a"].log("spiped-receive@redis.service");
    assert!(log.contains(" key=c ") && log.contains(" key=b "), "{log}");
}

#[test]
fn a_third_server_has_a_key_of_its_own_for_each_of_the_others() {
    if !hosts_can_be("the recipe for a third server") {
        return;
    }
    let hosts = Hosts::boot(&["a", "b", "c"]);
    for host in ["a", "b", "c"] {
        hosts[host].has_redis();
    }
    follow(&hosts, &recipe(REPLICATION));
    let steps = recipe(THIRD);
    let (shut_c_out, set_up) = steps.split_last().unwrap();
    follow(&hosts, set_up);
    let (a, b, c) = (&hosts["a"], &hosts["b"], &hosts["c"]);
    let is_up = |host: &Host| info(host, "replication", "master_link_status") == "up";
    wait_until("both replicate", || is_up(b) && is_up(c));
    write(a, 0..100);
    assert_caught_up(a, b);
    assert_caught_up(a, c);
    // Each reaches each, by the same names everywhere.
    for host in [a, b, c] {
        for name in ["127.0.0.11", "127.0.0.12", "127.0.0.13"] {
            assert_eq!(redis(host, &format!("-h {name} ping")), "PONG", "{name}");
        }
    }
    let ids = |host: &Host| {
        let told = host.must("spiped keyid /etc/spiped/replica-in.keys");
        told.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let keys: BTreeSet<_> = [a, b, c].into_iter().flat_map(ids).collect();
    assert_eq!(keys.len(), 4, "{keys:?}");

    shut_c_out.follow(&hosts);
    wait_until("c is shut out", || !is_up(c));
    assert!(is_up(b));
    assert_ne!(redis(c, "-h 127.0.0.12 ping"), "PONG");
}

#[test]
fn two_servers_replicate_through_a_pair_of_pipes_and_swap_their_roles() {
    if !hosts_can_be("the recipe for replication") {
        return;
    }
    assert_eq!(
        recipe_of_the_readme("Two servers that replicate, in five more"),
        recipe(REPLICATION)
    );
    let hosts = Hosts::boot(&["a", "b"]);
    let (a, b) = (&hosts["a"], &hosts["b"]);
    a.has_redis();
    b.has_redis();
    // The pair runs beside the pipe of the recipe before.
    let printed = follow(&hosts, &recipe_of_the_readme(FIVE_MINUTES));
    assert!(printed.ends_with("PONG\n"), "{printed}");
    follow(&hosts, &recipe(REPLICATION));
    assert_eq!(b.redis("ping"), "PONG");
    wait_until("b replicates", || info(b, "replication", "master_link_status") == "up");
    // The replica has the name that it announces, not the address that the pipe comes
    // from.
    let replica = info(a, "replication", "slave0");
    assert!(replica.starts_with("ip=127.0.0.12,port=6379,"), "{replica}");
    write(a, 0..100);
    assert_caught_up(a, b);

    give_new_keys(&hosts);

    // The outage is so long that Redis itself gives the link up.
    for (host, field) in [(a, "repl-ping-replica-period 1"), (b, "repl-timeout 3")] {
        assert_eq!(redis(host, &format!("config set {field}")), "OK");
    }
    let full_copies = info(a, "stats", "sync_full");
    hosts.set_cable("b", Cable::Out);
    wait_until("the link is down", || info(b, "replication", "master_link_status") == "down");
    write(a, 100..200);
    hosts.set_cable("b", Cable::In);
    wait_until("the link is up", || info(b, "replication", "master_link_status") == "up");
    write(a, 200..300);
    assert_caught_up(a, b);
    assert_eq!(info(a, "stats", "sync_full"), full_copies, "another full copy was made");
    assert_ne!(info(a, "stats", "sync_partial_ok"), "0");

    let steps = recipe(SWAP);
    let [swap, remember] = steps.as_slice() else { panic!("{steps:?}") };
    swap.follow(&hosts);
    wait_until("b is the master", || info(b, "replication", "role") == "master");
    remember.follow(&hosts);
    wait_until("a replicates", || info(a, "replication", "master_link_status") == "up");
    write(b, 300..400);
    assert_caught_up(b, a);
    assert_eq!(info(a, "stats", "sync_full"), full_copies, "another full copy was made");

    // Both servers remember their new roles, and the units come up again by themselves.
    for host in [a, b] {
        host.must("systemctl restart redis-server");
    }
    wait_until("a replicates again", || info(a, "replication", "master_link_status") == "up");
    write(b, 400..500);
    assert_caught_up(b, a);
}

/// New keys interrupt nothing, and both ends of a direction have the same one.
fn give_new_keys(hosts: &Hosts) {
    let (a, b) = (&hosts["a"], &hosts["b"]);
    let id = |host: &Host, half| host.must(&format!("spiped keyid /etc/spiped/replica-{half}.key"));
    let keys = || [id(a, "in"), id(b, "out"), id(b, "in"), id(a, "out")];
    let before = keys();
    follow(hosts, &recipe(NEW_KEYS));
    let [in_a, out_b, in_b, out_a] = keys();
    assert!(in_a == out_b && in_b == out_a && in_a != in_b, "{:?}", keys());
    assert!(!before.contains(&in_a) && !before.contains(&in_b));
    assert_eq!(redis(a, "-h 127.0.0.12 ping"), "PONG");
    assert_eq!(redis(b, "-h 127.0.0.11 ping"), "PONG");
    assert_eq!(info(b, "replication", "master_link_status"), "up");
}

#[test]
fn sentinel_makes_the_replica_master_when_the_masters_host_is_gone() {
    if !hosts_can_be("the recipe for Sentinel") {
        return;
    }
    let mut hosts = Hosts::boot(&["a", "b", "c"]);
    for host in ["a", "b"] {
        hosts[host].has_redis();
    }
    for host in ["a", "b", "c"] {
        hosts[host].has_sentinel();
    }
    // All recipes of the page, in order, except the swap of the roles.
    for section in [SERVER_AND_CLIENTS, NEW_KEY, KEY_FOR_EACH, REPLICATION] {
        follow(&hosts, &recipe(section));
    }
    wait_until("b replicates", || info(&hosts["b"], "replication", "master_link_status") == "up");
    follow(&hosts, &recipe(SENTINEL));
    for host in ["a", "b", "c"] {
        wait_until_within(AGREEMENT, "the Sentinels know each other and the replica", || {
            let known = info(&hosts[host], "sentinel", "master0");
            known.ends_with("status=ok,address=127.0.0.11:6379,slaves=1,sentinels=3")
        });
    }
    write(&hosts["a"], 0..100);
    assert_caught_up(&hosts["a"], &hosts["b"]);

    hosts.power_off("a");
    let master = |host: &Host| {
        redis(host, "-p 26379 sentinel get-master-addr-by-name mymaster").replace('\n', ":")
    };
    for host in ["b", "c"] {
        let host = &hosts[host];
        wait_until_within(AGREEMENT, "b is the master", || master(host) == "127.0.0.12:6379");
    }
    // The answer is an address that a client can connect to, even on c.
    assert_eq!(redis(&hosts["c"], "-h 127.0.0.12 dbsize"), "100");
    write(&hosts["b"], 100..200);

    hosts.power_on("a");
    let a = &hosts["a"];
    wait_until_within(AGREEMENT, "a is a replica", || {
        info(a, "replication", "master_link_status") == "up"
    });
    write(&hosts["b"], 200..300);
    assert_caught_up(&hosts["b"], a);
    assert_eq!(master(a), "127.0.0.12:6379");
}

/// Follows the page's text about Cluster: three nodes, each with its name, and pipes for
/// both of its ports.
#[test]
fn a_cluster_of_three_nodes_holds_through_pipes() {
    if !hosts_can_be("Redis Cluster") {
        return;
    }
    let names = ["a", "b", "c"];
    let hosts = Hosts::boot(&names);
    for (number, name) in (1..).zip(names) {
        let host = &hosts[name];
        host.has_redis();
        host.sh(&format!(
            "printf '%s\\n' 'bind 127.0.0.1 127.0.0.1{number}' 'cluster-enabled yes' \
             'cluster-announce-ip 127.0.0.1{number}' 'cluster-announce-port 6379' \
             'cluster-announce-bus-port 16379' >> /etc/redis/redis.conf; \
             systemctl restart redis-server"
        ));
        for port in ["6379", "16379"] {
            host.must(&format!(
                "spiped setup receive at-{port} --source 192.0.2.{number}:{port} \
                 --target 127.0.0.1:{port}"
            ));
        }
    }
    for (number, name) in (1..).zip(names) {
        for other in names.iter().filter(|other| **other != name) {
            for port in ["6379", "16379"] {
                hosts[*other].sh(&format!(
                    "ssh 192.0.2.{number} cat /etc/spiped/at-{port}.key | \
                     spiped setup send {name}-{port} --source 127.0.0.1{number}:{port} \
                     --target 192.0.2.{number}:{port} --key -"
                ));
            }
        }
    }
    hosts["a"].must(
        "redis-cli --cluster create 127.0.0.11:6379 127.0.0.12:6379 127.0.0.13:6379 --cluster-yes",
    );
    for name in names {
        let host = &hosts[name];
        wait_until_within(AGREEMENT, "the cluster is whole", || {
            let is_whole = redis(host, "cluster info").contains("cluster_state:ok");
            is_whole && redis(host, "cluster nodes").matches(" connected ").count() == 3
        });
    }
    for name in names {
        // Each key is on another node; -c follows the redirections.
        for key in 0..9 {
            assert_eq!(redis(&hosts[name], &format!("-c set {name}:{key} {key}")), "OK");
        }
    }
    let sizes: Vec<usize> =
        names.iter().map(|name| redis(&hosts[name], "dbsize").parse().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 27);
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
}

/// The output of redis-cli; a space separates the words of the command.
fn redis(host: &Host, line: &str) -> String {
    said(&host.run(&format!("redis-cli {line}")))
}

/// A field of `redis-cli info SECTION`; the section sentinel asks the Sentinel.
fn info(host: &Host, section: &str, field: &str) -> String {
    let port = if section == "sentinel" { "26379" } else { "6379" };
    let text = redis(host, &format!("-p {port} info {section}"));
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// Writes these keys, with one command each.
fn write(master: &Host, keys: std::ops::Range<usize>) {
    let commands: Vec<_> = keys.map(|key| format!("set key:{key} {key}")).collect();
    let printed = master.sh(&format!("printf '{}\\n' | redis-cli", commands.join("\\n")));
    assert!(printed.lines().all(|line| line == "OK"), "{printed}");
}

/// Waits until the replica has the same data as the master.
fn assert_caught_up(master: &Host, replica: &Host) {
    assert_ne!(redis(master, "dbsize"), "0");
    let all = |host: &Host| host.sh("redis-cli --scan | sort | xargs redis-cli mget");
    let of_master = all(master);
    wait_until("it has caught up", || all(replica) == of_master);
}
