//! The client of the control socket: `spiped rekey`, `spiped revoke` and `spiped status`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::draining::{self, Aside};
use super::{Answer, LINE_MAX, Request, SocketFile, Verb, WITH_OPEN, socket_file};
use crate::config::KeyName;
use crate::daemon::connection::context::NO_KEY;
use crate::keys::change::{Change, KeyChange};
use crate::keys::entry::{self, KeyEntry};
use crate::keys::error::KeyFileError;
use crate::keys::file::Owners;
use crate::keys::folder::{self, Folders};
use crate::keys::guessable::GuessableKey;
use crate::process::at_once::ask_at_once;
use crate::report::{Report, exit};
use crate::status::{Detail, Status};

/// How long the running spiped may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to tell its status, for which somebody looks at the screen.
const PATIENCE_OF_STATUS: Duration = Duration::from_secs(5);
/// How long all processes of one path may take together to revoke a key.
const REVOKED_WITHIN: Duration = Duration::from_secs(30);
/// How often processes may take each other's place while they are asked.
const ROUNDS: usize = 8;

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
    /// The running spiped says that other keys are in force.
    #[error("the spiped at {} has other keys in force than these", socket.display())]
    NotDone { socket: PathBuf },
    /// No key in force has this name.
    #[error("the spiped at {} has no key {name}", socket.display())]
    NoKey { socket: PathBuf, name: KeyName },
    /// The running spiped does not look at the request.
    #[error("the spiped at {} does not serve this: {reason}", socket.display())]
    NotServed { socket: PathBuf, reason: String },
    /// More processes are said to let their connections end than are asked.
    #[error("{left_out} of the sockets beside {} are not asked, the oldest", socket.display())]
    TooMany { socket: PathBuf, left_out: usize },
    /// The running spiped refused the request.
    #[error("the spiped at {} refuses the request: {reason}", socket.display())]
    Refused { socket: PathBuf, reason: String },
}

impl ControlError {
    /// Whether the socket has no process: it has ended.
    pub(crate) fn is_of_nobody(&self) -> bool {
        let Self::Connect { error, .. } = self else { return false };
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    }
}

impl ControlError {
    /// Whether this user may not ask.
    pub(crate) fn is_of_rights(&self) -> bool {
        let Self::Connect { error, .. } = self else { return false };
        error.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Report for ControlError {
    fn hint(&self) -> &str {
        match self {
            Self::Key(error) => error.hint(),
            Self::Connect { .. } => {
                "spiped must run with --control and this path; only root and its own user may connect"
            }
            Self::NoAnswer { .. } => {
                "its log says why, and which keys it has now; restart it if it is of another version"
            }
            Self::NotServed { .. } => {
                "try again if it is busy; only root and its own user may ask, and the two must be of one version"
            }
            Self::NotUnderstood { .. } => "restart it if it is of another version",
            Self::NotDone { .. } => "restart it: it does not do what it answers",
            Self::NoKey { .. } => "a key is named after its file, without .key",
            Self::TooMany { .. } => {
                "remove the files with .draining- in their names whose processes have ended"
            }
            Self::Refused { .. } => "its log may say more; it goes on with the keys it has",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Key(error) => error.exit_code(),
            Self::Connect { .. }
            | Self::NoAnswer { .. }
            | Self::NotUnderstood { .. }
            | Self::NotServed { .. }
            | Self::TooMany { .. }
            | Self::NotDone { .. } => exit::UNAVAILABLE,
            Self::NoKey { .. } => exit::NO_USER,
            Self::Refused { .. } => exit::DATA,
        }
    }
}

/// Reads and checks the keys at these paths, and has the running spiped behind the socket put
/// them in force, all or none. Returns what has changed there, and the warnings about keys
/// that can be guessed.
///
/// The files may also belong to the user of that spiped, who gets nothing but its own files.
///
/// # Errors
/// When a key is refused, here or there, or the running spiped does not answer.
pub(crate) fn rekey(
    path: &Path,
    keys: &[PathBuf],
) -> Result<(Vec<KeyChange>, Vec<GuessableKey>), ControlError> {
    let socket = socket_file(path).map_err(|error| unreached(path, error))?;
    // The keys are read first: standard input may be slow, and the server does not wait.
    let entries = folder::read_all(keys, Owners::OwnOr(socket.owner), Folders::Allowed)?;
    let sent = entry::check(&entries)?;
    let body = entry::to_bytes(&entries).map_err(KeyFileError::Memory)?;
    let changes = ask_at(path, &socket.file, Verb::Rekey, &body, Instant::now() + PATIENCE)?;
    let in_force = changes.iter().filter(|it| matches!(it.what, Change::Added | Change::Kept));
    if !in_force
        .map(|it| (it.name.clone(), it.id.clone()))
        .eq(sent.into_iter().map(|(name, id)| (name, id.to_string())))
    {
        return Err(ControlError::NotDone { socket: path.into() });
    }
    Ok((changes, entries.iter().filter_map(KeyEntry::guessable).collect()))
}

/// Has the running spiped behind the socket take a key out of force and end its connections;
/// so do the processes before it that only let their connections end. Returns what was
/// revoked.
///
/// # Errors
/// When no key has that name, or one of these does not answer.
pub(crate) fn revoke(path: &Path, name: &KeyName) -> Result<Vec<KeyChange>, ControlError> {
    let body = name.as_str().as_bytes();
    let mut told = Told::default();
    let end = Instant::now() + REVOKED_WITHIN;
    let ask = |path: &Path, socket: &SocketFile| {
        ask_at(path, &socket.file, Verb::Revoke, body, end.min(Instant::now() + PATIENCE))
    };
    for _ in 0..ROUNDS {
        let (first, inode) = match socket_file(path) {
            Ok(socket) => (ask(path, &socket), Some(socket.inode)),
            Err(error) => (Err(unreached(path, error)), None),
        };
        told.add(path, name, first);
        // Listed only now: a process that has answered may have been moved aside since.
        let (aside, left_out) = aside(path)?;
        let answers = ask_at_once(&aside, |aside| {
            let socket = socket_file(aside).map_err(|error| unreached(aside, error));
            socket.and_then(|socket| ask(aside, &socket))
        });
        for (aside, answer) in aside.iter().zip(answers) {
            told.add(aside, name, answer);
        }
        told.failed = left_out.or(told.failed);
        // Another process may have come meanwhile, with the key.
        if socket_file(path).map(|socket| socket.inode).ok() == inode {
            return told.result(path, name);
        }
    }
    let error = io::Error::other("again and again, another process takes its place");
    Err(unreached(path, error))
}

/// The sockets of the processes that have, or have had, this path: the first is the path
/// itself, the others are of processes that drain, or have ended. With an error where there
/// are more of them.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn sockets(path: &Path) -> Result<(Vec<PathBuf>, Option<ControlError>), ControlError> {
    let (aside, left_out) = aside(path)?;
    Ok(([vec![path.to_owned()], aside].concat(), left_out))
}

fn aside(path: &Path) -> Result<(Vec<PathBuf>, Option<ControlError>), ControlError> {
    let Aside { sockets, left_out } =
        draining::all(path).map_err(|error| unreached(path, error))?;
    let too_many = || ControlError::TooMany { socket: path.into(), left_out };
    Ok((sockets, (left_out > 0).then(too_many)))
}

/// Asks the running spiped behind the socket for its status.
///
/// # Errors
/// When it does not answer.
pub(crate) fn status(path: &Path, detail: Detail) -> Result<Status, ControlError> {
    status_and_pid(path, detail).0
}

/// As [`status`], and which process listens there, as the kernel tells, whether it answers or
/// not.
pub(crate) fn status_and_pid(
    path: &Path,
    detail: Detail,
) -> (Result<Status, ControlError>, Option<u32>) {
    let mut pid = None;
    let body = match detail {
        Detail::Summary => "",
        Detail::Connections => WITH_OPEN,
    };
    let end = Instant::now() + PATIENCE_OF_STATUS;
    let status = socket_file(path).and_then(|socket| connect_to(&socket.file, end));
    let status = status.map_err(|error| unreached(path, error)).and_then(|stream| {
        let peer = getsockopt(&stream, PeerCredentials);
        // Of a process that is not seen here, it is 0.
        pid = peer.ok().and_then(|peer| peer.pid().try_into().ok()).filter(|pid| *pid > 0);
        let told = told_by(path, &stream, Verb::Status, body.as_bytes(), end)?;
        Status::from_json(&told).map_err(|_| ControlError::NotUnderstood { socket: path.into() })
    });
    (status, pid)
}

/// What processes have answered that were to revoke a key.
#[derive(Default)]
struct Told {
    revoked: Vec<KeyChange>,
    /// Whether one was there.
    is_any: bool,
    /// At a socket where no process listens, or where none is any more.
    nobody: Option<ControlError>,
    failed: Option<ControlError>,
}

impl Told {
    fn add(&mut self, path: &Path, name: &KeyName, answer: Result<Vec<KeyChange>, ControlError>) {
        let is_of_key = |it: &KeyChange| it.what == Change::Revoked && it.name == *name;
        match answer {
            Ok(changes) if changes.iter().all(is_of_key) => {
                self.is_any = true;
                for change in changes {
                    match self.revoked.iter_mut().find(|same| same.id == change.id) {
                        Some(same) => same.open = same.open.saturating_add(change.open),
                        None => self.revoked.push(change),
                    }
                }
            }
            Ok(_) => self.failed = Some(ControlError::NotUnderstood { socket: path.into() }),
            Err(ControlError::Refused { reason, .. }) if reason == NO_KEY => self.is_any = true,
            Err(error) if error.is_of_nobody() => self.nobody = Some(error),
            Err(error) => self.failed = Some(error),
        }
    }

    fn result(self, path: &Path, name: &KeyName) -> Result<Vec<KeyChange>, ControlError> {
        let Self { revoked, is_any, nobody, failed } = self;
        match failed.or(nobody.filter(|_| !is_any)) {
            Some(error) => Err(error),
            None if revoked.is_empty() => {
                Err(ControlError::NoKey { socket: path.into(), name: name.clone() })
            }
            None => Ok(revoked),
        }
    }
}

fn unreached(path: &Path, error: io::Error) -> ControlError {
    ControlError::Connect { socket: path.into(), error }
}

/// Makes a request at the file of a socket, whose answer is a list of changes.
fn ask_at(
    path: &Path,
    socket: &File,
    verb: Verb,
    body: &[u8],
    end: Instant,
) -> Result<Vec<KeyChange>, ControlError> {
    let told = told_at(path, socket, verb, body, end)?;
    let changes: Option<_> = told.lines().map(KeyChange::parse).collect();
    changes.ok_or_else(|| ControlError::NotUnderstood { socket: path.into() })
}

/// Makes a request at the file of a socket, whose answer has to be there before `end`.
fn told_at(
    path: &Path,
    socket: &File,
    verb: Verb,
    body: &[u8],
    end: Instant,
) -> Result<String, ControlError> {
    let stream = connect_to(socket, end).map_err(|error| unreached(path, error))?;
    told_by(path, &stream, verb, body, end)
}

/// As [`told_at`], of the process at the other end.
fn told_by(
    path: &Path,
    stream: &Socket,
    verb: Verb,
    body: &[u8],
    end: Instant,
) -> Result<String, ControlError> {
    match ask(stream, verb, body, end) {
        Ok(Answer::Ok(told)) => Ok(told),
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

fn connect_to(socket: &File, end: Instant) -> io::Result<Socket> {
    let address = SockAddr::unix(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also limits the connect, where the other process does not accept.
    stream.set_write_timeout(Some(time_until(end)?))?;
    stream.connect(&address)?;
    Ok(stream)
}

/// The time that is left, which is not none.
fn time_until(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn ask(mut stream: &Socket, verb: Verb, body: &[u8], end: Instant) -> io::Result<Answer> {
    let line = Request { verb, length: body.len() }.line();
    let written = stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(body));
    // Who does not read all of a request may have answered it.
    if let Err(error) = written
        && !is_closed(&error)
    {
        return Err(error);
    }
    let mut answer = Vec::new();
    let mut part = vec![0; 1 << 16];
    while answer.len() < LINE_MAX + verb.answer_max() {
        // One limit for the whole answer.
        stream.set_read_timeout(Some(time_until(end)?))?;
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
