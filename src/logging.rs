//! The log: text or JSON, on standard error (with systemd's level prefixes
//! where that is the journal) or to syslog.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, PanicHookInfo};

use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use tracing::{Level, Metadata, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat, LogSink};

/// Starts the log. `SPIPED_LOG` in the environment goes before its level.
/// From here on a panic is a line of it, too.
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
        // A log that cannot be written must not end a connection.
        .log_internal_errors(false)
        .with_writer(sink);
    match (config.format, sink) {
        (LogFormat::Json, _) => log.json().flatten_event(true).init(),
        (LogFormat::Text, Sink::Stderr) => log.init(),
        // The journal and syslog have the time and the level already.
        (LogFormat::Text, Sink::Journal | Sink::Syslog) => {
            log.without_time().with_level(false).init();
        }
    }
    panic::set_hook(Box::new(log_panic));
}

/// One line with the place. Not what was being worked on: that may be secret,
/// and a panic's message may quote it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(tracing::field::display);
    error!(
        place,
        hint = "a fault of this program: please report the line, and what led to it",
        "a panic; what it served has ended, all else goes on"
    );
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_one_line_with_the_place_and_no_payload() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(log.finish(), || {
            panic::catch_unwind(|| panic!("the key is {}", 4711)).unwrap_err();
        });
        panic::set_hook(before);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("ERROR") && text.contains("place=src/logging.rs:"), "{text}");
        assert!(!text.contains("4711"), "{text}");
    }
}
