//! The way in: spiped listens on the source, accepts connections, and admits them or not.
//!
//! ```text
//! source ─ listener ─ admission
//!   │                   └ access: which users may use a sender
//!   └ inherited, fd_store: listening sockets from systemd
//! ```

pub(crate) mod access;
pub(crate) mod admission;
mod fd_store;
mod inherited;
mod listener;
mod patience;
mod plaintext;
mod source;
mod unix_file;

pub(crate) use self::fd_store::remove as forget_stored;
pub(crate) use self::inherited::{Inherited, InheritedError};
pub(crate) use self::listener::{Bound, Listener, accept_on_all, bind_unix};
pub(crate) use self::plaintext::warn_of_plaintext;
pub(crate) use self::source::{Source, SourceError};
pub(crate) use self::unix_file::{Rights, aside, no_socket};
