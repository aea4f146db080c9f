//! Sockets as connections need them: one stream, whom it is connected to, and the target
//! that is connected to.

pub(crate) mod connect_error;
pub(crate) mod deadline;
pub(crate) mod loops;
pub(crate) mod peer;
pub(crate) mod resolver;
pub(crate) mod sides;
pub(crate) mod stream;
pub(crate) mod target;

use std::io;

use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};

/// What helps where [`is_shortage`].
pub(crate) const NO_ROOM: &str =
    "raise LimitNOFILE= (ulimit -n), the sysctl fs.epoll.max_user_watches, or the memory there is";

/// Whether the system is short of what another socket takes: descriptors, memory,
/// or room in epoll.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | ENOSPC))
}
