//! A build in pure Rust and a build with AWS-LC are the two ends of one pipe.

use std::process::Command;

use crate::support::{Daemon, Folder, Server, noise, round_trip, skip};

/// `scripts/test` names a build with the other features. Every build with AWS-LC also
/// compares the ciphers with each other (in `protocol::aead`).
#[test]
fn the_two_builds_speak_to_each_other() {
    let Some(other) = std::env::var_os("OTHER_BUILD") else {
        return skip("needs OTHER_BUILD", "two builds that speak to each other");
    };
    let folder = Folder::new();
    let server = Server::echo();
    let others = |role: &str, target: String, cipher: &str| {
        let mut command = Command::new(&other);
        command.args(["-F", role, "-s", "[127.0.0.1]:0", "-t", &target]);
        command.args(["--cipher", cipher, "-k"]).arg(folder.shared_key());
        Daemon::spawn(command)
    };
    for cipher in ["aes-256-gcm", "chacha20-poly1305"] {
        let ours = Daemon::receiver(&folder.shared_key(), server.address, &[]);
        let theirs = others("-e", ours.address.to_string(), cipher);
        round_trip(&mut theirs.connect(), &noise(1, 300_000));

        let theirs = others("-d", server.address.to_string(), cipher);
        let key = folder.shared_key();
        let ours = Daemon::sender(&key, theirs.address, &["--cipher", cipher]);
        round_trip(&mut ours.connect(), &noise(2, 300_000));
    }
}
