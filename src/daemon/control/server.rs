//! The server of the control socket.
//!
//! A few requests are served at a time, each within a time limit. Only root and, outside
//! the units of spiped, the user of this process may make requests, whatever the mode of
//! the socket's file has become.

use std::cell::RefCell;
use std::io::{self, Write};
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

use super::{
    Answer, LINE_MAX, Request, RequestError, SocketFile, Verb, WITH_OPEN, client, draining,
    socket_file,
};
use crate::config::{Keepalive, unit_name};
use crate::daemon::accept::{Listener, bind_unix};
use crate::daemon::connection::context::Context;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::net::stream::Stream;
use crate::keys::change::KeyChange;
use crate::keys::entry;
use crate::keys::memory::SecretBytes;
use crate::logging::limit::LogLimit;
use crate::status::{Detail, State};
use crate::unit::notify::reloading;

/// How long a client may take to send its request and to read the answer.
const LIMIT: Duration = Duration::from_secs(5);
/// The most requests at once: a slow client must not keep others waiting.
const AT_ONCE: usize = 4;
/// The most log lines a second of requests that fail.
const FAILURES: u32 = 10;
/// How long a client may take to close once it is answered.
const GOODBYE: Duration = Duration::from_secs(1);

/// The listening control socket.
pub(crate) struct Control(Listener);

impl Control {
    /// Listens at `path`, from which the socket of a process that drains is moved aside. The
    /// socket's file is for its owner alone: this user, or the user that this process is
    /// going to become.
    pub(crate) fn bind(path: &Path, user: Option<u32>) -> io::Result<Self> {
        let bind = || bind_unix(path, Mode::S_IRUSR | Mode::S_IWUSR);
        let drains = |path: &Path| {
            client::status(path, Detail::Summary)
                .is_ok_and(|status| status.state == State::Draining)
        };
        let listener = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !draining::move_aside(path, drains)? {
                    return Err(error);
                }
                bind()?
            }
            listener => listener?,
        };
        // Only root can become another user; otherwise the start fails later.
        if let Some(user) = user.filter(|_| geteuid().is_root()) {
            give(path, user)?;
        }
        Ok(Self(listener))
    }

    /// Serves requests, for ever.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub(crate) async fn serve(&self, context: &Arc<Context>) -> io::Result<()> {
        let served = RefCell::new(JoinSet::new());
        let (limit, failures) = (LogLimit::new(1), Arc::new(LogLimit::new(FAILURES)));
        self.0
            .accept(async |socket, _| {
                let mut served = served.borrow_mut();
                while served.try_join_next().is_some() {}
                let refused = if served.len() >= AT_ONCE {
                    Some(io::Error::other("too many requests at once"))
                } else {
                    check_client(&socket).err()
                };
                match refused {
                    None => {
                        let (context, failures) = (Arc::clone(context), Arc::clone(&failures));
                        served.spawn(serve_within_limit(socket, context, failures));
                    }
                    Some(error) => {
                        // A new socket has room for it.
                        let refused = Answer::NotServed(error.to_string());
                        let _unheard = (&socket).write(&refused.bytes(Verb::Rekey));
                        if let Some(suppressed) = limit.allow() {
                            warn!(suppressed, "control request refused: {error}");
                        }
                    }
                }
            })
            .await
    }
}

/// Gives the socket's file to the user. Follows no link, and gives away nothing but a
/// socket.
fn give(path: &Path, user: u32) -> io::Result<()> {
    let SocketFile { file, .. } = socket_file(path)?;
    Ok(fchownat(file, c"", Some(Uid::from_raw(user)), None, AtFlags::AT_EMPTY_PATH)?)
}

fn check_client(socket: &Socket) -> io::Result<()> {
    let user = getsockopt(socket, PeerCredentials)?.uid();
    // A unit's user may be shared with another unit, so only root may make requests there.
    let is_own = user == geteuid().as_raw() && unit_name().is_none();
    if user != 0 && !is_own {
        return Err(io::Error::other(format!("user {user} may not change anything")));
    }
    Ok(())
}

async fn serve_within_limit(socket: Socket, context: Arc<Context>, failures: Arc<LogLimit>) {
    let result = Deadline::after(LIMIT).bound(serve_request(socket, &context)).await;
    if let Err(error) = result.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        && let Some(suppressed) = failures.allow()
    {
        warn!(suppressed, "control request failed: {error}");
    }
}

/// Serves one request.
async fn serve_request(socket: Socket, context: &Arc<Context>) -> io::Result<()> {
    let stream = Stream::accepted(socket, Keepalive::Off)?;
    let request = match read_request(&stream).await? {
        // Such as a look at whether this process lives.
        None => return Ok(()),
        Some(Ok(request)) => request,
        Some(Err(error)) => {
            let refused = Answer::NotServed(error.to_string());
            answer(&stream, &refused.bytes(Verb::Rekey)).await;
            return Err(io::Error::other(error));
        }
    };
    let Request { verb, length } = request;
    let refused = if length > verb.body_max() {
        "the request is too long"
    } else {
        let body = read_body(&stream, length).await?;
        // A client that has given up has told its user that nothing is done.
        if stream.is_closed_by_peer() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Otherwise the body is not the one that was meant.
        if !matches!(stream.try_read(&mut [0]), Ok(Some(1..))) {
            let done = carry_out(verb, &body, context).await?;
            answer(&stream, &done.bytes(verb)).await;
            return Ok(());
        }
        "the request is longer than it says"
    };
    answer(&stream, &Answer::Refused(refused.to_owned()).bytes(verb)).await;
    Err(io::Error::other(refused))
}

/// Does what is asked, and logs it.
async fn carry_out(verb: Verb, body: &[u8], context: &Arc<Context>) -> io::Result<Answer> {
    let done = match verb {
        Verb::Rekey => {
            let entries = entry::from_bytes(body)?.unwrap_or_default();
            reloading(context.replace_keys(entries)).await
        }
        Verb::Revoke => context.revoke_key(str::from_utf8(body).unwrap_or_default()),
        Verb::Status => return tell_status(body, context).await,
    };
    Ok(match done {
        Ok(changes) => {
            let lines: Vec<_> = changes.iter().map(KeyChange::line).collect();
            Answer::Ok(lines.join("\n"))
        }
        Err(why) => Answer::Refused(why),
    })
}

/// Tells the status.
async fn tell_status(body: &[u8], context: &Arc<Context>) -> io::Result<Answer> {
    let detail = match str::from_utf8(body) {
        Ok("") => Detail::Summary,
        Ok(WITH_OPEN) => Detail::Connections,
        _ => return Ok(Answer::Refused("a status with something unknown is asked for".to_owned())),
    };
    let shared = Arc::clone(context);
    let status = move || Ok(shared.snapshot(detail).to_json());
    context.status_thread.run(status).await.map(Answer::Ok)
}

/// Reads the first line. Reads not a byte more, since a key may follow; and stops at the
/// first byte that no first line has, since a key may stand in its place.
pub(crate) async fn read_request(
    stream: &Stream,
) -> io::Result<Option<Result<Request, RequestError>>> {
    let mut line = SecretBytes::zeroed(LINE_MAX)?;
    for length in 0..LINE_MAX {
        if stream.read_full(&mut line[length..=length], &mut 0).await? == 0 {
            if length == 0 {
                return Ok(None);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line[length] == b'\n' {
            return Ok(Some(Request::parse(&line[..length])));
        }
        if !Request::can_begin_with(&line[..=length]) {
            return Ok(Some(Err(Request::refusal(&line[..=length]))));
        }
    }
    Ok(Some(Err(Request::refusal(&line))))
}

/// Reads the whole body of a request.
pub(crate) async fn read_body(stream: &Stream, length: usize) -> io::Result<SecretBytes> {
    let mut body = SecretBytes::zeroed(length)?;
    if stream.read_full(&mut body, &mut 0).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Answers, and waits for a moment until the client has closed: a socket that is closed
/// with unread input may discard its answer. What was asked is done, or not, whatever
/// the client does with the answer.
async fn answer(stream: &Stream, answer: &[u8]) {
    let told = async {
        stream.write_all(answer).await?;
        stream.shutdown_write()?;
        let mut ignored = SecretBytes::zeroed(1 << 12)?;
        while stream.readable().await?.read(&mut ignored)? != Some(0) {
            yield_now().await;
        }
        Ok::<(), io::Error>(())
    };
    let _unheard = Deadline::after(GOODBYE).bound(told).await;
}
