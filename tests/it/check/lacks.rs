//! `spiped check --all`, where something is slow, or this check itself lacks something: that is
//! no finding.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

use super::host::{HYBRID, Host};
use crate::support::redis::Redis;
use crate::support::{Daemon, SPIPED, Server};

#[test]
fn what_the_check_lacks_itself_is_no_finding() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        let _sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        assert_eq!(host.check("").code, 0);
        let few = host.run(&format!("prlimit --nofile=100:100 {SPIPED} check --all"));
        let text = String::from_utf8(few.stderr).unwrap();
        assert!(few.status.code() == Some(71) && few.stdout.is_empty(), "{text}");
        assert!(text.contains("\nhint: raise the limit of file descriptors "), "{text}");
        // The soft limit is its own affair.
        assert_eq!(host.check_by(&format!("prlimit --nofile=12:128 {SPIPED} check --all")).code, 0);
        // Others of its descriptors are taken.
        let script = "#!/bin/bash\nfor i in $(seq 10 $(($1 + 9))); do eval \"exec $i</dev/null\"; done\n\
                      shift; exec \"$@\"\n";
        let taken = host.path("taken");
        fs::write(&taken, script).unwrap();
        fs::set_permissions(&taken, PermissionsExt::from_mode(0o755)).unwrap();
        let mut codes = Vec::new();
        for taken_ones in (109..=117).rev() {
            let found = host.check_by(&format!(
                "prlimit --nofile=128:128 {} {taken_ones} {SPIPED} check --all",
                taken.display()
            ));
            assert_eq!(found.json["findings"], 0, "{taken_ones}: {}", found.text);
            codes.push(found.code);
        }
        assert!(codes.starts_with(&[69]) && codes.ends_with(&[0]), "{codes:?}");
    });
}

#[test]
fn without_another_thread_all_are_asked_one_by_one() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        let _sender = host.sender("[127.0.0.1]:0", receiver.address, &[]);
        let open = |path: &str| {
            fs::set_permissions(host.path(path), PermissionsExt::from_mode(0o755)).unwrap();
        };
        fs::copy(SPIPED, host.path("spiped")).unwrap();
        open("spiped");
        open(".");
        let by = format!(
            "prlimit --nproc=1 setpriv --reuid=54321 --clear-groups {} check --all",
            host.path("spiped").display()
        );
        let found = host.check_by(&by);
        assert_eq!((found.code, &found.json["not_asked"]), (69, &2.into()), "{}", found.text);
    });
}

#[test]
fn a_pipe_of_two_hops_on_one_host_has_a_target() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let last = Daemon::receiver(&host.path("etc/spiped/out.key"), redis.address, &HYBRID);
        let sender = host.sender("[127.0.0.1]:0", last.address, &[]);
        let _receiver = host.receiver("[127.0.0.1]:0", sender.address, &HYBRID);
        let found = host.check("");
        assert!(found.of("in").is_empty(), "{}", found.text);
        assert!(found.text.contains(": on this host, where a pipe listens\n"), "{}", found.text);
    });
}

#[test]
fn a_server_at_another_address_is_not_the_target() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let port = redis.address.port();
        for (target, is_down) in [("127.0.0.2", true), ("0.0.0.0", false), ("127.0.0.1", false)] {
            let target = format!("[{target}]:{port}");
            let _receiver = host.receiver("[127.0.0.1]:0", &target, &HYBRID);
            let found = host.check("");
            let wanted = if is_down { vec![format!("target-down {target}")] } else { vec![] };
            assert_eq!(found.of("in"), wanted, "{}", found.text);
            fs::remove_dir_all(host.path("run/spiped-receive@in")).unwrap();
        }
    });
}

#[test]
fn handshakes_and_look_ups_have_the_limit_that_is_given() {
    Host::with(|host| {
        // Who connects is never answered.
        let silent = Server::start(|stream| {
            let _kept = stream;
            std::thread::park();
        });
        let _sender = host.sender("[127.0.0.1]:0", silent.address, &[]);
        let conf = host.path("etc/spiped/out.conf");
        let own = fs::read_to_string(&conf).unwrap() + "SPIPED_TIMEOUT=0.3\n";
        fs::write(conf, own).unwrap();
        assert!(host.check("").text.contains(" did not answer the handshake in 1s"));
        let found = host.check_by(&format!("{SPIPED} check --all"));
        assert!(found.text.contains(" did not answer the handshake in 300ms"), "{}", found.text);
        // A resolver that does not answer.
        let _resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
        fs::write(host.path("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        fs::write(host.path("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
        let _receiver = host.receiver("[127.0.0.1]:0", "db.test:6379", &HYBRID);
        let found = host.check("");
        assert!(found.text.contains("the resolver did not answer in 1s"), "{}", found.text);
    });
}
