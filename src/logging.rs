//! The log: text or JSON, on standard error (with systemd's level prefixes
//! where that is the journal) or to syslog.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat, LogSink};

/// Starts the log. `SPIPED_LOG` in the environment goes before its level.
pub fn start(config: LogConfig) {
    let filter = EnvFilter::builder()
        .with_default_directive(config.level.into())
        .with_env_var("SPIPED_LOG")
        .from_env_lossy();
    let sink = Sink::of(config.sink);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(matches!(sink, Sink::Stderr) && io::stderr().is_terminal())
        .with_writer(sink);
    match (config.format, sink) {
        (LogFormat::Json, _) => log.json().flatten_event(true).init(),
        (LogFormat::Text, Sink::Stderr) => log.init(),
        // The journal and syslog have the time and the level already.
        (LogFormat::Text, Sink::Journal | Sink::Syslog) => {
            log.without_time().with_level(false).init();
        }
    }
}

/// Where lines go.
#[derive(Clone, Copy, Debug)]
enum Sink {
    Stderr,
    /// Standard error that is the journal: each line begins with its level,
    /// such as `<4>` (sd-daemon(3)).
    Journal,
    Syslog,
}

impl Sink {
    fn of(sink: LogSink) -> Self {
        match sink {
            LogSink::Syslog => {
                // These hold for the life of the process. A name of ours is
                // never refused.
                let _named = openlog(Some(c"spiped"), LogFlags::LOG_PID, Facility::LOG_DAEMON);
                Self::Syslog
            }
            LogSink::Stderr if stderr_is_journal() => Self::Journal,
            LogSink::Stderr => Self::Stderr,
        }
    }
}

/// Whether `JOURNAL_STREAM` names the device and inode of standard error.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { sink: *self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { sink: *self, level: *metadata.level() }
    }
}

/// Writes one line; the subscriber gives it whole.
struct Line {
    sink: Sink,
    level: Level,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (severity, number) = severity(self.level);
        match self.sink {
            Sink::Stderr => return io::stderr().write(line),
            Sink::Journal => {
                let prefix = format!("<{number}>");
                io::stderr().write_all(&[prefix.as_bytes(), line].concat())?;
            }
            Sink::Syslog => syslog(severity, OsStr::from_bytes(line.trim_ascii_end()))?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
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
