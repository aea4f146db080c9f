//! Sockets as connections need them: streams, their peers, and the connect to the target.

pub(crate) mod connect_error;
pub(crate) mod deadline;
pub(crate) mod listeners;
pub(crate) mod loops;
pub(crate) mod peer;
pub(crate) mod resolver;
pub(crate) mod sides;
pub(crate) mod sock_diag;
pub(crate) mod stream;
pub(crate) mod target;
pub(crate) mod unix_client;

use std::io;

use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};

/// The hint where [`is_shortage`].
pub(crate) const NO_ROOM: &str =
    "raise LimitNOFILE= (ulimit -n) or the sysctl fs.epoll.max_user_watches, or add memory";

/// Whether the system lacks what another socket needs: descriptors, memory, or room in
/// epoll.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | ENOSPC))
}
