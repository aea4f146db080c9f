//! Kernels that are older than the one that runs the tests.

use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{Daemon, Folder, SPIPED, Server, need, round_trip};

/// `TCP_INFO` as in Linux 4.9: fewer bytes than a newer program may ask for.
const OLDER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    int (*next)(int, int, int, void *, socklen_t *) = dlsym(RTLD_NEXT, "getsockopt");
    if (level == IPPROTO_TCP && name == TCP_INFO && *length > 160) *length = 160;
    return next(fd, level, name, value, length);
}
"#;

/// The daemon asks the kernel about a connection every 15 s.
#[test]
fn a_kernel_that_knows_less_of_a_connection_keeps_it() {
    need("cc", "gcc");
    let folder = Folder::new();
    let (source, older) = (folder.path("older.c"), folder.path("older.so"));
    std::fs::write(&source, OLDER).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&older).arg(&source);
    assert!(cc.status().unwrap().success());

    let server = Server::echo();
    let end = |role: &str, target: String| {
        let mut command = Command::new(SPIPED);
        command.args(["-F", role, "-s", "127.0.0.1:0", "-t", &target, "-k"]);
        command.arg(folder.shared_key()).env("LD_PRELOAD", &older);
        Daemon::spawn(command)
    };
    let receiver = end("-d", server.address.to_string());
    let sender = end("-e", receiver.address.to_string());
    let mut client = sender.connect();
    round_trip(&mut client, b"before");
    thread::sleep(Duration::from_secs(17));
    round_trip(&mut client, b"after");
    assert_eq!(sender.log.count("panic") + receiver.log.count("panic"), 0);
}
