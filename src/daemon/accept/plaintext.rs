//! A warning at the start where plaintext comes from other hosts or goes to them, so that
//! no operator believes it to be encrypted.

use tracing::warn;

use super::listener::Listener;
use crate::config::{Address, Config, Role};
use crate::daemon::net::loops::is_of_this_host;

/// Logs each address at which plaintext leaves or enters this host.
pub(crate) fn warn_of_plaintext(config: &Config, listeners: &[Listener]) {
    let target = &config.tunnel.target;
    match config.role {
        Role::Encrypt => {
            for listener in listeners.iter().filter(|listener| listener.is_reachable_by_others()) {
                warn!(
                    hint = "whoever reaches it needs no key: listen on 127.0.0.1, or let a firewall \
                            choose who may connect",
                    "other hosts can connect to {}, which takes plaintext",
                    listener.name(),
                );
            }
        }
        Role::Decrypt if leaves_this_host(target) => warn!(
            hint = "run the receiver beside the server: on the way between the two, all can be \
                    read and altered",
            "plaintext goes to {target}, which is not known to be this host",
        ),
        Role::Decrypt => {}
    }
}

/// Whether a target is not known to be on this host, as any name but `localhost`.
fn leaves_this_host(target: &Address) -> bool {
    match target {
        Address::Inet(target) => !is_of_this_host(target.ip().to_canonical()),
        Address::Host(name, _) => !name.eq_ignore_ascii_case("localhost"),
        Address::Unix(_) => false,
    }
}
