//! Where lines go. Only the thread of the log writes, so it may wait there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use tracing::Level;

use super::queue::Line;
use crate::config::LogSink;

/// An open sink.
pub(super) enum Sink {
    /// A copy of standard error, so that no lock is held while it stands still.
    Stderr(File, Kind),
    Syslog,
}

/// What kind of sink it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Terminal,
    /// A file or a pipe.
    File,
    /// Standard error that is the journal: each line begins with its level,
    /// such as `<4>` (sd-daemon(3)).
    Journal,
    Syslog,
}

impl Sink {
    pub(super) fn open(sink: LogSink) -> io::Result<Self> {
        match sink {
            LogSink::Syslog => {
                // These hold for the life of the process. A name of ours is
                // never refused.
                let _named = openlog(Some(c"spiped"), LogFlags::LOG_PID, Facility::LOG_DAEMON);
                Ok(Self::Syslog)
            }
            LogSink::Stderr => {
                let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
                let kind = if is_journal(&stderr) {
                    Kind::Journal
                } else if stderr.is_terminal() {
                    Kind::Terminal
                } else {
                    Kind::File
                };
                Ok(Self::Stderr(stderr, kind))
            }
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Stderr(_, kind) => *kind,
            Self::Syslog => Kind::Syslog,
        }
    }

    /// Writes a line, however long that takes.
    pub(super) fn write(&self, line: &Line) -> io::Result<()> {
        let (severity, number) = severity(line.level);
        match self {
            Self::Stderr(file, Kind::Journal) => {
                let prefix = format!("<{number}>");
                write_all(file, &[prefix.as_bytes(), &line.text].concat())
            }
            Self::Stderr(file, _) => write_all(file, &line.text),
            Self::Syslog => Ok(syslog(severity, OsStr::from_bytes(line.text.trim_ascii_end()))?),
        }
    }
}

/// As `Write::write_all`, also where another process has made the file
/// non-blocking: that is shared.
fn write_all(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.split_at(count).1,
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

/// The level as syslog has it, by name and by number.
const fn severity(level: Level) -> (Severity, u8) {
    match level {
        Level::ERROR => (Severity::LOG_ERR, 3),
        Level::WARN => (Severity::LOG_WARNING, 4),
        Level::INFO => (Severity::LOG_INFO, 6),
        Level::DEBUG | Level::TRACE => (Severity::LOG_DEBUG, 7),
    }
}
