//! The way in: spiped listens on the source, accepts connections, and admits them or not.
//!
//! ```text
//! source ─ listener ─ admission
//!   └ inherited, fd_store: listening sockets from systemd
//! ```

pub(crate) mod admission;
mod fd_store;
mod inherited;
mod listener;
mod patience;
mod plaintext;
mod source;

pub(crate) use self::fd_store::remove as forget_stored;
pub(crate) use self::inherited::Inherited;
pub(crate) use self::listener::{Listener, accept_on_all, bind_abstract, bind_unix, no_socket};
pub(crate) use self::plaintext::warn_of_plaintext;
pub(crate) use self::source::{Source, SourceError};
