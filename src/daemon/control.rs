//! `--control`: new keys are taken on a unix socket, from `spiped rekey`.
//!
//! ```text
//! asked:     length of the key file (4 bytes, most significant first), its bytes
//! answered:  ok 3f9a-12bc-07de-5581
//!        or  refused: the key has 3 bytes, fewer than 32
//! ```
//!
//! One at a time, and each only for a moment. Only root and the user of this
//! process are heard, whatever the mode of the socket's file has become.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use socket2::Socket;
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::Shared;
use super::deadline::Deadline;
use super::listener::{Listener, bind_unix};
use super::notify::reloading;
use super::stream::Stream;
use crate::config::Keepalive;
use crate::protocol::{KEY_FILE_MAX, SharedKey};

/// How long one may take to say all of it.
const LIMIT: Duration = Duration::from_secs(5);

/// Where new keys come in.
pub(super) struct Control(Listener);

impl Control {
    /// Listens at `path`, for its owner alone.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self(bind_unix(path, Mode::S_IRUSR | Mode::S_IWUSR)?))
    }

    /// Takes new keys for ever.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub(super) async fn serve(&self, shared: &Shared) -> io::Result<()> {
        self.0
            .accept(async |socket, _| {
                if let Err(error) = hear(socket, shared).await {
                    warn!("a new key did not arrive: {error}");
                }
            })
            .await
    }
}

async fn hear(socket: Socket, shared: &Shared) -> io::Result<()> {
    let user = getsockopt(&socket, PeerCredentials)?.uid();
    if user != 0 && user != geteuid().as_raw() {
        return Err(io::Error::other(format!("user {user} may not change it")));
    }
    let stream = Stream::accepted(socket, Keepalive::Off)?;
    let talk = async {
        let content = read(&stream).await?;
        let answer = match SharedKey::from_key_file(&content) {
            Ok(key) => format!("ok {}\n", reloading(async { shared.replace_key(key) }).await),
            Err(error) => {
                error!(key_id = %shared.key().id(), "the key stays as it was: {error}");
                format!("refused: {error}\n")
            }
        };
        stream.write_all(answer.as_bytes()).await
    };
    Deadline::after(LIMIT).bound(talk).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// The whole content of a key file, never a part of one.
async fn read(stream: &Stream) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > KEY_FILE_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let mut content = Zeroizing::new(vec![0; length]);
    read_exact(stream, &mut content).await?;
    Ok(content)
}

async fn read_exact(stream: &Stream, into: &mut [u8]) -> io::Result<()> {
    let wanted = into.len();
    let count = stream.read_full(into, &mut 0).await?;
    if count == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
