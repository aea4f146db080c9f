//! `ssh -L` to an sshd of its own: all connections share one TCP connection.

use std::fs;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::{Route, Side};
use crate::Result;

/// sshd starts itself again for each client, so it needs its absolute path.
pub const SSHD: &str = "/usr/sbin/sshd";
const CIPHER: &str = "aes256-gcm@openssh.com";

pub fn command(side: Side, route: Route, folder: &Path) -> Result<Vec<String>> {
    let Route { entry, middle, target } = route;
    let folder = folder.display();
    let words = match side {
        Side::Server => {
            let path = format!("{folder}/sshd.conf");
            fs::write(
                &path,
                format!(
                    "ListenAddress 127.0.0.1:{middle}\nHostKey {folder}/ssh-host\n\
                     AuthorizedKeysFile {folder}/ssh-user.pub\nPidFile none\nUsePAM no\n\
                     StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
                ),
            )?;
            // An sshd that root has started drops its privileges in this folder.
            drop(fs::create_dir("/run/sshd"));
            format!("{SSHD} -D -e -f {path}")
        }
        Side::Client => {
            let user = User::from_uid(Uid::current())?.ok_or("this user has no name")?.name;
            format!(
                "ssh -N -F none -c {CIPHER} -i {folder}/ssh-user -p {middle} \
                 -L 127.0.0.1:{entry}:127.0.0.1:{target} -o ExitOnForwardFailure=yes \
                 -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o BatchMode=yes \
                 -o LogLevel=ERROR {user}@127.0.0.1"
            )
        }
    };
    Ok(words.split_whitespace().map(str::to_owned).collect())
}
