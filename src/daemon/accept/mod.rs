//! The way in: the source is listened on, connections are accepted, and let in or not.
//!
//! ```text
//! source ─ listener ─ admission
//!   └ inherited, fd_store: sockets that listen already
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
pub(crate) use self::listener::{Listener, accept_on_all, bind_unix};
pub(crate) use self::plaintext::warn_of_plaintext;
pub(crate) use self::source::{Source, SourceError};
