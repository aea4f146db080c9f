//! The client of the control socket: `spiped rekey`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::{ANSWER_MAX, Answer, LINE_MAX, Request, Verb, socket_file};
use crate::keys::error::KeyFileError;
use crate::keys::file::{self, Owners};
use crate::keys::guessable::GuessableKey;
use crate::protocol::KeyId;
use crate::report::{Report, exit};

/// How long the running spiped may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request to a running spiped failed.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The key file is refused before it is sent.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Nothing listens there, or this user is not allowed to connect.
    #[error("cannot reach a spiped at {}: {error}", socket.display())]
    Connect { socket: PathBuf, error: io::Error },
    /// The running spiped ended, or hung, before it answered.
    #[error("the spiped at {} does not answer: {error}", socket.display())]
    NoAnswer { socket: PathBuf, error: io::Error },
    /// What answered is no spiped, or of another version.
    #[error("what answers at {} is no spiped of this version", socket.display())]
    NotUnderstood { socket: PathBuf },
    /// The running spiped says that another key is in force.
    #[error("the spiped at {} has another key in force than this one", socket.display())]
    NotDone { socket: PathBuf },
    /// The running spiped does not look at the request.
    #[error("the spiped at {} does not serve this: {reason}", socket.display())]
    NotServed { socket: PathBuf, reason: String },
    /// The running spiped refused the request.
    #[error("the spiped at {} refuses the request: {reason}", socket.display())]
    Refused { socket: PathBuf, reason: String },
}

impl Report for ControlError {
    fn hint(&self) -> &str {
        match self {
            Self::Key(error) => error.hint(),
            Self::Connect { .. } => {
                "spiped must run with --control and this path; only root and its own user may connect"
            }
            Self::NoAnswer { .. } => {
                "its log says why, and which key it has now; restart it if it is of another version"
            }
            Self::NotServed { .. } => {
                "try again if it is busy; only root and its own user may ask, and the two must be of one version"
            }
            Self::NotUnderstood { .. } => "restart it if it is of another version",
            Self::NotDone { .. } => "restart it: it does not do what it answers",
            Self::Refused { .. } => "its log may say more; it goes on with the key it has",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Key(error) => error.exit_code(),
            Self::Connect { .. }
            | Self::NoAnswer { .. }
            | Self::NotUnderstood { .. }
            | Self::NotServed { .. }
            | Self::NotDone { .. } => exit::UNAVAILABLE,
            Self::Refused { .. } => exit::DATA,
        }
    }
}

/// Checks and reads the key file, and has the running spiped behind the socket put the key
/// in force. Returns the id of the key that is in force there now, and the warning where it
/// can be guessed.
///
/// The file may also belong to the user of that spiped, who gets nothing but its own file.
///
/// # Errors
/// When the key is refused, here or there, or the running spiped does not answer.
pub(crate) fn rekey(
    path: &Path,
    key: &Path,
) -> Result<(KeyId, Option<GuessableKey>), ControlError> {
    let unreached = |error| ControlError::Connect { socket: path.into(), error };
    let (socket, user) = socket_file(path).map_err(unreached)?;
    // The key is read first: standard input may be slow, and the server does not wait.
    let (content, id) = file::read_content(key, Owners::OwnOr(user))?;
    let stream = connect(&socket).map_err(unreached)?;
    match ask(&stream, Verb::Rekey, &content) {
        Ok(Answer::Ok(told)) if told == id.to_string() => {
            Ok((id, GuessableKey::find(Some(key), &content)))
        }
        Ok(Answer::Ok(_other)) => Err(ControlError::NotDone { socket: path.into() }),
        Ok(Answer::NotServed(reason)) => {
            Err(ControlError::NotServed { socket: path.into(), reason })
        }
        Ok(Answer::Refused(reason)) => Err(ControlError::Refused { socket: path.into(), reason }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(ControlError::NotUnderstood { socket: path.into() })
        }
        Err(error) => Err(ControlError::NoAnswer { socket: path.into(), error }),
    }
}

fn connect(socket: &File) -> io::Result<Socket> {
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also limits the connect, where the other process does not accept.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.connect(&SockAddr::unix(format!("/proc/self/fd/{}", socket.as_raw_fd()))?)?;
    Ok(stream)
}

fn ask(mut stream: &Socket, verb: Verb, body: &[u8]) -> io::Result<Answer> {
    let started = Instant::now();
    let line = Request { verb, length: body.len() }.line();
    let written = stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(body));
    // Who does not read all of a request may have answered it.
    if let Err(error) = written
        && !is_closed(&error)
    {
        return Err(error);
    }
    let mut answer = Vec::new();
    let mut part = [0; ANSWER_MAX];
    while answer.len() < LINE_MAX + ANSWER_MAX {
        // One limit for the whole answer.
        let left = PATIENCE.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            // Also when the read timeout is over.
            Err(error) if is_to_be_tried_again(&error) => {}
            // Closed with a part of the request unread.
            Err(error) if is_closed(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let error =
        if answer.is_empty() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
    Answer::parse(&answer, verb).ok_or_else(|| error.into())
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn is_to_be_tried_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
