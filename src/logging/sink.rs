//! Where lines go. Only the thread of the log writes, so it may wait there.
//!
//! A journal or a syslog that has gone is connected to again with the next line; a
//! line that cannot be written is an error, for whoever counts them.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use super::queue::Line;
use crate::config::LogSink;

/// Where the system's log takes lines (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// Where the journal takes what would be a standard error.
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// An open sink.
pub(super) struct Sink {
    to: Output,
    kind: SinkKind,
}

enum Output {
    /// A copy of standard error, so that no lock is held while it stands still.
    File {
        file: File,
        /// Whether a line has ended in its middle.
        is_torn: bool,
    },
    /// None while nobody listens there.
    Syslog(Option<UnixDatagram>),
}

/// What kind of sink it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkKind {
    Terminal,
    /// A file or a pipe.
    File,
    /// Standard error that is the journal: each line begins with its level,
    /// such as `<4>` (sd-daemon(3)).
    Journal,
    Syslog,
}

impl Sink {
    pub(super) fn new(sink: LogSink) -> io::Result<Self> {
        match sink {
            LogSink::Syslog => {
                Ok(Self { to: Output::Syslog(connect_to_syslog().ok()), kind: SinkKind::Syslog })
            }
            LogSink::Stderr => {
                let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
                let kind = if is_journal(&file) {
                    SinkKind::Journal
                } else if file.is_terminal() {
                    SinkKind::Terminal
                } else {
                    SinkKind::File
                };
                Ok(Self { to: Output::File { file, is_torn: false }, kind })
            }
        }
    }

    pub(super) const fn kind(&self) -> SinkKind {
        self.kind
    }

    /// Writes a line, however long that takes.
    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        let severity = severity(line.level);
        match &mut self.to {
            Output::File { file, .. } if self.kind == SinkKind::Journal => {
                let text = [format!("<{severity}>").as_bytes(), &line.text].concat();
                if write_all(file, &text, &mut 0).is_err() {
                    *file = connect_to_journal()?;
                    return write_all(file, &text, &mut 0);
                }
                Ok(())
            }
            Output::File { file, is_torn } => {
                let end: &[u8] = if *is_torn { b"\n" } else { b"" };
                let mut count = 0;
                let written = write_all(file, &[end, &line.text].concat(), &mut count);
                *is_torn = written.is_err() && (*is_torn || count > 0);
                written
            }
            Output::Syslog(socket) => {
                let text = String::from_utf8_lossy(line.text.trim_ascii_end());
                let text = format!("<{}>spiped[{}]: {text}", DAEMON | severity, process::id());
                if let Some(socket) = &*socket
                    && socket.send(text.as_bytes()).is_ok()
                {
                    return Ok(());
                }
                *socket = None;
                let again = connect_to_syslog()?;
                again.send(text.as_bytes())?;
                *socket = Some(again);
                Ok(())
            }
        }
    }
}

fn connect_to_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

/// As systemd does it for a unit's standard error: who we are, no unit but our own,
/// the level of a line without one, and that lines begin with theirs.
fn connect_to_journal() -> io::Result<File> {
    let mut stream = UnixStream::connect(JOURNAL)?;
    stream.write_all(b"spiped\n\n30\n1\n0\n0\n0\n")?;
    Ok(File::from(OwnedFd::from(stream)))
}

/// As `Write::write_all`, also where another process has made the file
/// non-blocking: that is shared. `written` says how much was.
fn write_all(mut file: &File, mut bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.split_at(count).1;
                *written = written.saturating_add(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether `JOURNAL_STREAM` names the device and inode of standard error.
fn is_journal(stderr: &File) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(stderr)
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The facility of daemons (syslog(3)).
const DAEMON: u8 = 3 << 3;

/// The level as syslog has it.
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
