//! The journal of systemd: lines with their fields, such as `SPIPED_KEY`, by its native
//! protocol; and its socket for lines of standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use log::Record;
use systemd_journal_logger::JournalLog;
use tracing::Level;

use super::queue::Line;

/// The socket on which the journal takes lines of standard error.
const STREAM: &str = "/run/systemd/journal/stdout";

/// The journal's native protocol: `None` while nothing takes it. Does not connect before the
/// first line, because that may block.
#[derive(Default)]
pub(super) struct Journal(Option<JournalLog>);

impl Journal {
    /// Sends a line with its fields, which may block.
    pub(super) fn send(&mut self, line: &Line) -> io::Result<()> {
        let native = match self.0.take() {
            Some(native) => native,
            // The facility is that of standard error.
            None => JournalLog::empty()?
                .with_syslog_identifier("spiped".into())
                .add_extra_field("SYSLOG_FACILITY", "3"),
        };
        let native = self.0.insert(native);
        // The logger writes capitals.
        let name = |name| format!("spiped_{name}");
        let fields: Vec<_> =
            line.fields.iter().map(|(field, value)| (name(field), value.as_str())).collect();
        let mut record = Record::builder();
        record.level(level(line.level)).target("spiped").key_values(&fields);
        let text = line.text.trim_end_matches('\n');
        native.journal_send(&record.args(format_args!("{text}")).build())
    }
}

/// The level that the logger turns into the severity of this one.
const fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Debug,
        Level::DEBUG | Level::TRACE => log::Level::Trace,
    }
}

/// Connects as systemd does for a unit's standard error. The header has the program's name,
/// no other unit, a level for lines without one, and that lines begin with their level.
pub(super) fn connect() -> io::Result<File> {
    let mut stream = UnixStream::connect(STREAM)?;
    stream.write_all(b"spiped\n\n30\n1\n0\n0\n0\n")?;
    Ok(File::from(OwnedFd::from(stream)))
}
