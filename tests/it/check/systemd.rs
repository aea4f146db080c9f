//! `spiped check --all` and `spiped status` before a systemd that fails, or hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::host::{HYBRID, Host};
use crate::support::redis::Redis;
use crate::support::{SPIPED, wait_until};

/// Tells what is in a file, and of no drop-in.
const OF_UNITS: &str = "case \"$*\" in *DropInPaths*) ;; *) cat \"$0\".units ;; esac";

/// Puts a systemctl into the place of the real one.
fn systemctl(host: &Host, script: &str) {
    fs::create_dir_all(host.path("run/systemd/system")).unwrap();
    fs::create_dir_all(host.path("bin")).unwrap();
    let path = host.path("bin/systemctl");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn status(host: &Host, more: &str) -> (Option<i32>, String) {
    let told = host.run(&format!("{SPIPED} status{more}"));
    let text = [told.stdout, told.stderr].concat();
    (told.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_systemd_that_cannot_be_asked_is_told() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let _receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        let pid = host.path("pid");
        let hangs = format!("echo $$ > {}; exec sleep 1000", pid.display());
        for (script, why) in [
            ("echo 'Failed to connect to bus' >&2; exit 1", "Failed to connect to bus"),
            (&*hangs, "systemctl did not answer in 5 seconds"),
        ] {
            systemctl(host, script);
            let told = format!("the units of systemd could not be seen: {why}");
            let found = host.check("");
            assert_eq!((found.code, &found.json["findings"]), (69, &0.into()), "{}", found.text);
            assert!(found.text.contains(&format!("\nnot seen: {told}\n")), "{}", found.text);
            let (code, text) = status(host, "");
            assert_eq!(code, Some(69), "{text}");
            assert!(text.starts_with("NAME ") && text.contains(&format!("\nspiped: {told}\n")));
        }
        // Nothing is left of the question, however this ends.
        fs::remove_file(&pid).unwrap();
        let mut asks = host.command(&format!("{SPIPED} status")).spawn().unwrap();
        let asked = || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'));
        wait_until("systemctl is asked", asked);
        asks.kill().unwrap();
        asks.wait().unwrap();
        let process = format!("/proc/{}", fs::read_to_string(&pid).unwrap().trim());
        wait_until("it has ended", || !Path::new(&process).exists());
    });
}

#[test]
fn units_without_a_process_are_shown_and_others_are_not() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        let _receiver = host.receiver("[127.0.0.1]:0", redis.address, &HYBRID);
        let unit = |name: &str, active: &str, sub: &str, file: &str| {
            format!("Id={name}\nActiveState={active}\nSubState={sub}\nUnitFileState={file}\n\n")
        };
        // It answers.
        let own = unit("spiped-receive@in.service", "activating", "start", "enabled");
        systemctl(host, OF_UNITS);
        let units = host.path("bin/systemctl.units");
        fs::write(&units, &own).unwrap();
        let found = host.check("");
        assert_eq!((status(host, "").0, found.code), (Some(0), 0), "{}", found.text);
        for (active, sub, file, state) in [
            ("activating", "start-pre", "disabled", "still starting"),
            ("activating", "auto-restart-queued", "disabled", "failed, and starts again and again"),
            ("deactivating", "stop-sigterm", "disabled", "still stopping"),
            ("inactive", "dead", "enabled-runtime", "enabled, and does not run"),
            ("failed", "failed", "disabled", "failed"),
        ] {
            let slow = unit("spiped-send@slow.service", active, sub, file);
            fs::write(&units, own.clone() + &slow).unwrap();
            let line = format!("slow: the unit spiped-send@slow.service is {state}\n");
            for name in ["", " slow"] {
                let (code, text) = status(host, name);
                assert!(code == Some(69) && text.contains(&line), "{text}");
                assert!(!text.contains("runs here"), "{text}");
            }
            let found = host.check("");
            assert_eq!((found.code, &found.json["not_asked"]), (69, &1.into()), "{}", found.text);
        }
        // Stopped, disabled, and foreign ones are nothing.
        let others = [
            unit("spiped-send@slow.service", "inactive", "dead", "disabled"),
            unit("spiped-sendmail.service", "failed", "failed", "enabled"),
        ];
        fs::write(&units, own + &others.concat()).unwrap();
        assert_eq!((status(host, "").0, host.check("").code), (Some(0), 0));
    });
}

#[test]
fn the_socket_of_a_process_that_was_killed_counts_where_its_unit_should_run() {
    Host::with(|host| {
        let redis = Redis::start(&host.0, "redis", &[]);
        // KILL.
        drop(host.receiver("[127.0.0.1]:0", redis.address, &HYBRID));
        let (code, text) = status(host, "");
        assert!(code == Some(69) && text.contains("Connection refused"), "{text}");
        systemctl(host, OF_UNITS);
        let units = host.path("bin/systemctl.units");
        fs::write(&units, "").unwrap();
        assert_eq!((status(host, "").0, host.check("").code), (Some(0), 0));
        let (code, text) = status(host, " in gone away");
        assert!(code == Some(69) && text.contains("no pipe in, gone, away runs here"), "{text}");
        let id = "Id=spiped-receive@in.service\n";
        for state in ["failed", "active"] {
            fs::write(&units, format!("{id}ActiveState={state}\nSubState=x\n")).unwrap();
            let (code, text) = status(host, "");
            assert_eq!(
                (code, text.lines().filter(|it| it.starts_with("in: ")).count()),
                (Some(69), 1),
                "{text}"
            );
        }
    });
}

#[test]
fn a_socket_unit_that_waits_for_its_first_client_is_judged() {
    Host::with(|host| {
        systemctl(host, OF_UNITS);
        let units = host.path("bin/systemctl.units");
        for (listen, finding) in [
            ("0.0.0.0:8700 (Stream)", Some("plaintext-source-exposed [0.0.0.0]:8700")),
            ("127.0.0.1:8700 (Stream)", None),
            ("/run/spiped/sk.socket (Stream)", None),
        ] {
            let unit = format!(
                "Listen={listen}\nId=spiped-send@sk.socket\nActiveState=active\n\
                 SubState=listening\nUnitFileState=enabled\n"
            );
            fs::write(&units, unit).unwrap();
            fs::write(host.path("etc/spiped/sk.conf"), "SPIPED_TARGET=192.0.2.1:1\n").unwrap();
            fs::copy(host.0.shared_key(), host.path("etc/spiped/sk.key")).unwrap();
            let found = host.check("");
            assert_eq!(found.of("sk"), Vec::from_iter(finding), "{}", found.text);
            assert_eq!(found.code, i32::from(finding.is_some()));
            assert_eq!(found.pipe("sk")["state"], "idle");
            assert!(found.text.contains("\nsk (sender): idle, spiped-send@sk.socket, "));
        }
        // The first client would find nothing.
        fs::remove_file(host.path("etc/spiped/sk.conf")).unwrap();
        assert_eq!(host.check("").of("sk"), ["start-refused spiped-send@sk.socket"]);
    });
}
