//! Where a running spiped is told to do something.
//!
//! A few are heard at a time, and each only for a moment. Only root and, outside our
//! units, the user of this process are heard, whatever the mode of the socket's file has
//! become.

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
use tokio::task::{JoinSet, yield_now};
use tracing::warn;

use super::{Answer, LINE_MAX, NOT_UNDERSTOOD, Request, Verb, open_socket};
use crate::config::{Keepalive, unit_name};
use crate::daemon::accept::{Listener, bind_unix};
use crate::daemon::connection::context::Context;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::stream::Stream;
use crate::keys::memory::SecretBytes;
use crate::logging::limit::LogLimit;
use crate::protocol::KEY_FILE_MAX;
use crate::unit::notify::reloading;

/// How long one may take to say all of it, and to hear the answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How many are heard at once: a slow one keeps no other waiting.
const AT_ONCE: usize = 4;

/// The socket.
pub(crate) struct Control(Listener);

impl Control {
    /// Listens at `path`, for its owner alone: this user, or the one whom this
    /// process is going to be.
    pub(crate) fn bind(path: &Path, user: Option<u32>) -> io::Result<Self> {
        let listener = bind_unix(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Only root becomes another one; who is not root is told so later.
        if let Some(user) = user.filter(|_| geteuid().is_root()) {
            give(path, user)?;
        }
        Ok(Self(listener))
    }

    /// Does what it is told, for ever.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub(crate) async fn serve(&self, context: &Arc<Context>) -> io::Result<()> {
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
                    None => drop(heard.spawn(hear(socket, Arc::clone(context)))),
                    Some(error) => {
                        if let Some(suppressed) = limit.allow() {
                            warn!(suppressed, "the control socket was not heard: {error}");
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
    let is_own = user == geteuid().as_raw() && unit_name().is_none();
    if user != 0 && !is_own {
        return Err(io::Error::other(format!("user {user} may not change anything")));
    }
    Ok(())
}

async fn hear(socket: Socket, context: Arc<Context>) {
    let heard = Deadline::after(LIMIT).bound(hear_one(socket, &context)).await;
    if let Err(error) = heard.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
        warn!("the control socket was not heard: {error}");
    }
}

/// One request and its answer.
async fn hear_one(socket: Socket, context: &Context) -> io::Result<()> {
    let stream = Stream::accepted(socket, Keepalive::Off)?;
    let request = match Request::parse(&read_line(&stream).await?) {
        Ok(request) => request,
        Err(error) => {
            answer(&stream, format!("{NOT_UNDERSTOOD}{error}\n").as_bytes()).await?;
            return Err(io::Error::other(error));
        }
    };
    match request.verb {
        Verb::Rekey => {
            let key = read_body(&stream, request.length).await?;
            let replaced = reloading(async { context.replace_key(&key) }).await?;
            let done = replaced.map_or_else(
                |error| Answer::Refused(error.to_string()),
                |id| Answer::Ok(id.to_string()),
            );
            answer(&stream, &done.bytes(request.verb)).await
        }
    }
}

/// The first line without its end, or as much as one can have. Not a byte more is read:
/// a key may follow.
async fn read_line(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while line.len() < LINE_MAX {
        let mut byte = [0];
        // A client of another version begins with a byte that no line has.
        if stream.read_full(&mut byte, &mut 0).await? == 0 || byte == *b"\n" || byte == [0] {
            break;
        }
        line.extend(byte);
    }
    Ok(line)
}

/// The whole content of a key file, never a part of one.
async fn read_body(stream: &Stream, length: usize) -> io::Result<SecretBytes> {
    if length > KEY_FILE_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let mut content = SecretBytes::zeroed(length)?;
    if stream.read_full(&mut content, &mut 0).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(content)
}

/// Answers, and waits until that is read: a socket that is closed before all was read
/// from it takes its answer back.
async fn answer(stream: &Stream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown_write()?;
    let mut ignored = SecretBytes::zeroed(1 << 12)?;
    while stream.readable().await?.read(&mut ignored)? != Some(0) {
        yield_now().await;
    }
    Ok(())
}
