//! `spiped rekey`: hands a running spiped another key, on the socket of its
//! `--control` (see `daemon/control.rs`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_PATH};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::error::Error;
use crate::key_file::{self, Owners};

/// How long the other process may let us wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer there is.
const ANSWER_MAX: usize = 1024;

/// Why a running spiped has not got another key.
#[derive(Debug, Error)]
pub enum RekeyError {
    /// Nobody listens there for us.
    #[error("cannot reach a spiped at {}: {error}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// It ended, or hung, before it answered.
    #[error("the spiped at {} does not answer: {error}", socket.display())]
    NoAnswer {
        /// The socket.
        socket: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// It has looked at the key, and keeps its own; why.
    #[error("the key is {0}")]
    Refused(String),
}

impl RekeyError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } => {
                "it must run with --control and this path; root and its own user may do this"
            }
            Self::NoAnswer { .. } => "its log says why, and which key it has now",
            Self::Refused(_) => "make a key with 'spiped keygen PATH'",
        }
    }
}

/// Checks and reads the key file, and has it taken by the process behind the
/// socket. Returns the id of the key that is in force there now.
///
/// The file may belong to that process's user, too: it gets nothing that was not
/// its own.
///
/// # Errors
/// When the key file is refused, here or there, or nobody answers.
pub fn rekey(path: &Path, key: &Path) -> Result<String, Error> {
    let unreached = |error| RekeyError::Connect { socket: path.into(), error };
    let (socket, user) = open_socket(path).map_err(unreached)?;
    // First the key, which may be long in coming: the other end does not wait.
    let content = key_file::read_content(key, Owners::OwnOr(user))?;
    let stream = connect(&socket).map_err(unreached)?;
    let answer = ask(&stream, &content)
        .map_err(|error| RekeyError::NoAnswer { socket: path.into(), error })?;
    match answer.strip_prefix("ok ") {
        Some(id) => Ok(id.to_owned()),
        None => Err(RekeyError::Refused(answer).into()),
    }
}

/// The file of a unix socket itself, and its owner; never where a link leads: the
/// folder may be another user's, who could have it lead to another's socket.
pub(crate) fn open_socket(path: &Path) -> io::Result<(File, u32)> {
    let file = OpenOptions::new().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("it is not a socket"));
    }
    Ok((file, metadata.uid()))
}

fn connect(socket: &File) -> io::Result<Socket> {
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also of the connect, where the other process does not accept.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.connect(&SockAddr::unix(format!("/proc/self/fd/{}", socket.as_raw_fd()))?)?;
    Ok(stream)
}

fn ask(mut stream: &Socket, content: &[u8]) -> io::Result<String> {
    let started = Instant::now();
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(content)?;
    let mut answer = Vec::new();
    let mut part = [0; ANSWER_MAX];
    while answer.len() < ANSWER_MAX {
        // In all, however little comes at a time.
        let left = PATIENCE.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(part.split_at(count).0),
            // When the time is over, too.
            Err(error) if is_to_be_tried_again(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let answer = String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData)?;
    // Without the end of its line it is half an answer.
    let answer = answer.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    // It goes to root's terminal, and to the log.
    if answer.contains(char::is_control) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer.to_owned())
}

fn is_to_be_tried_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
