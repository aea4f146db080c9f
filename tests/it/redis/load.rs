//! High load: many clients, deep pipelines, large values.

use std::io::Write;

use super::resp::{array, expect};
use crate::support::redis::{Redis, run};
use crate::support::{Daemon, Folder, Pipe, noise, wait_until};

#[test]
fn redis_benchmark_runs_through_the_pipe_without_a_warning() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let mut pipe = Pipe::to(&folder, redis.address);
    let idle = (pipe.sender.descriptors(), pipe.receiver.descriptors());

    benchmark(&pipe, &["-c", "50", "-n", "10000"]);
    benchmark(&pipe, &["-c", "50", "-P", "16", "-n", "100000"]);
    benchmark(&pipe, &["-c", "50", "-d", "65536", "-n", "2000"]);

    wait_until("all connections have ended", || {
        (pipe.sender.descriptors(), pipe.receiver.descriptors()) == idle
    });
    for end in [&mut pipe.sender, &mut pipe.receiver] {
        assert_no_warning(end);
    }
}

fn benchmark(pipe: &Pipe, options: &[&str]) {
    let port = pipe.sender.address.port().to_string();
    let fixed = ["-p", &port, "-q", "-t", "ping,set,get"];
    let ran = run("redis-benchmark", &[&fixed, options].concat(), b"");
    let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
    assert!(ran.status.success(), "{options:?} {}:\n{said}", ran.status);
    for test in ["PING_INLINE: ", "PING_MBULK: ", "SET: ", "GET: "] {
        let is_result = |part: &str| part.contains(test) && part.contains("requests per second");
        assert!(said.split(['\r', '\n']).any(is_result), "{options:?} no {test}:\n{said}");
    }
    let said = said.to_lowercase();
    assert!(!said.contains("error") && !said.contains("warning"), "{options:?}:\n{said}");
}

/// Ends a daemon, so that its log is complete.
fn assert_no_warning(daemon: &mut Daemon) {
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    daemon.log.wait_for("TERM received");
    assert_eq!(daemon.log.count("warn"), 0, "{}", daemon.log.all().join("\n"));
}

#[test]
fn a_value_of_256_mib_is_read_back_as_it_was_written() {
    const MIB: usize = 1024 * 1024;
    const LENGTH: usize = 256 * MIB;
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let mut client = pipe.connect();
    let parts = || (0..256).map(|seed| noise(seed, MIB));

    write!(client, "*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${LENGTH}\r\n").unwrap();
    for part in parts() {
        client.write_all(&part).unwrap();
    }
    client.write_all(b"\r\n").unwrap();
    expect(&mut client, "+OK\r\n");

    client.write_all(&array(&["GET", "large"])).unwrap();
    expect(&mut client, format!("${LENGTH}\r\n"));
    for part in parts() {
        expect(&mut client, part);
    }
    expect(&mut client, "\r\n");
}
