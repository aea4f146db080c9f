//! Sinks: where log lines go. Only the log's thread writes to a sink, so it may block there.
//!
//! If the journal or syslog is gone, each line tries to connect again. A line that cannot be
//! written is an error, and counts as suppressed.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use super::journal::{self, Journal};
use super::queue::Line;
use crate::config::LogSink;

/// The socket of the system's log (syslog(3)).
const SYSLOG: &str = "/dev/log";

/// An open sink.
pub(super) struct Sink {
    to: Output,
    kind: SinkKind,
}

enum Output {
    /// A copy of standard error, so that no lock is held while it stands still.
    File {
        file: File,
        /// Whether the last line was written only in part.
        is_torn: bool,
    },
    /// With a copy of standard error, where the journal does not take the fields.
    Journal(Journal, File),
    /// `None` while nothing listens there.
    Syslog(Option<UnixDatagram>),
}

/// The kind of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkKind {
    Terminal,
    /// A file or a pipe.
    File,
    /// Standard error is the journal.
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
                if is_journal(&file) {
                    let to = Output::Journal(Journal::default(), file);
                    return Ok(Self { to, kind: SinkKind::Journal });
                }
                let kind = if file.is_terminal() { SinkKind::Terminal } else { SinkKind::File };
                Ok(Self { to: Output::File { file, is_torn: false }, kind })
            }
        }
    }

    pub(super) const fn kind(&self) -> SinkKind {
        self.kind
    }

    /// Writes a line, which may block.
    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        match &mut self.to {
            Output::File { file, is_torn } => {
                let end: &[u8] = if *is_torn { b"\n" } else { b"" };
                let mut count = 0;
                let text = [end, line.text.as_bytes()].concat();
                let written = write_all(file, &text, &mut count);
                *is_torn = written.is_err() && (*is_torn || count > 0);
                written
            }
            Output::Journal(journal, stderr) => {
                if journal.send(line).is_ok() {
                    return Ok(());
                }
                // Each line begins with its level (sd-daemon(3)).
                let text = format!("<{}>{}", severity(line.level), line.text);
                if write_all(stderr, text.as_bytes(), &mut 0).is_err() {
                    *stderr = journal::connect()?;
                    return write_all(stderr, text.as_bytes(), &mut 0);
                }
                Ok(())
            }
            Output::Syslog(socket) => {
                let (severity, text) = (severity(line.level), line.text.trim_ascii_end());
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

/// As `Write::write_all`, also where the file is non-blocking, a mode that another process
/// may have set. `written` becomes the number of bytes that were written.
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

/// The facility `daemon` of syslog(3).
const DAEMON: u8 = 3 << 3;

/// The severity of a level in syslog(3).
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
