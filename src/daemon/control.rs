//! `--control`: new keys are taken on a unix socket, from `spiped rekey`.
//!
//! ```text
//! asked:     length of the key file (4 bytes, most significant first), its bytes
//! answered:  ok 3f9a-12bc-07de-5581
//!        or  refused: the key has 3 bytes, fewer than 32
//! ```
//!
//! A few at a time, and each only for a moment. Only root and, outside our units, the
//! user of this process are heard, whatever the mode of the socket's file has become.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, fchownat, geteuid};
use socket2::Socket;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::Shared;
use super::deadline::Deadline;
use super::listener::{Listener, bind_unix};
use super::log_limit::LogLimit;
use super::notify::reloading;
use super::stream::Stream;
use crate::config::{Keepalive, unit};
use crate::memory::{KeyMemory, SecretBytes};
use crate::protocol::{KEY_FILE_MAX, SharedKey};
use crate::rekey::open_socket;

/// How long one may take to say all of it.
const LIMIT: Duration = Duration::from_secs(5);
/// How many are heard at once: who is slow keeps no other waiting.
const AT_ONCE: usize = 4;

/// Where new keys come in.
pub(super) struct Control(Listener);

impl Control {
    /// Listens at `path`, for its owner alone: this user, or the one whom this
    /// process is going to be.
    pub(super) fn bind(path: &Path, user: Option<u32>) -> io::Result<Self> {
        let listener = bind_unix(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Only root becomes another one; who is not root is told so later.
        if let Some(user) = user.filter(|_| geteuid().is_root()) {
            give(path, user)?;
        }
        Ok(Self(listener))
    }

    /// Takes new keys for ever.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub(super) async fn serve(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let heard = RefCell::new(JoinSet::new());
        let limit = LogLimit::new(1);
        self.0
            .accept(async |socket, _| {
                let mut heard = heard.borrow_mut();
                while heard.try_join_next().is_some() {}
                let refused = if heard.len() >= AT_ONCE {
                    Some(io::Error::other("so many others are being heard"))
                } else {
                    may_be_heard(&socket).err()
                };
                match refused {
                    None => drop(heard.spawn(hear(socket, Arc::clone(shared)))),
                    Some(error) => {
                        if let Some(suppressed) = limit.allow() {
                            warn!(suppressed, "a new key did not arrive: {error}");
                        }
                    }
                }
            })
            .await
    }
}

/// Gives the socket's file to the user: never what a link leads to, nor what is
/// no socket.
fn give(path: &Path, user: u32) -> io::Result<()> {
    let (file, _) = open_socket(path)?;
    Ok(fchownat(file, c"", Some(Uid::from_raw(user)), None, AtFlags::AT_EMPTY_PATH)?)
}

fn may_be_heard(socket: &Socket) -> io::Result<()> {
    let user = getsockopt(socket, PeerCredentials)?.uid();
    // Units of ours are told by root, and have a user that another one may share.
    let is_own = user == geteuid().as_raw() && unit().is_none();
    if user != 0 && !is_own {
        return Err(io::Error::other(format!("user {user} may not change it")));
    }
    Ok(())
}

async fn hear(socket: Socket, shared: Arc<Shared>) {
    let heard = Deadline::after(LIMIT).bound(take_key(socket, &shared)).await;
    if let Err(error) = heard.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
        warn!("a new key did not arrive: {error}");
    }
}

async fn take_key(socket: Socket, shared: &Shared) -> io::Result<()> {
    let stream = Stream::accepted(socket, Keepalive::Off)?;
    let content = read(&stream).await?;
    let answer = match SharedKey::from_key_file(&content, KeyMemory::new()?) {
        Ok(key) => format!("ok {}\n", reloading(async { shared.replace_key(key) }).await),
        Err(error) => {
            error!(key_id = %shared.key().id(), "the key stays as it was: {error}");
            format!("refused: {error}\n")
        }
    };
    stream.write_all(answer.as_bytes()).await
}

/// The whole content of a key file, never a part of one.
async fn read(stream: &Stream) -> io::Result<SecretBytes> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > KEY_FILE_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let mut content = SecretBytes::zeroed(length)?;
    read_exact(stream, &mut content).await?;
    Ok(content)
}

async fn read_exact(stream: &Stream, into: &mut [u8]) -> io::Result<()> {
    let wanted = into.len();
    let count = stream.read_full(into, &mut 0).await?;
    if count == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
