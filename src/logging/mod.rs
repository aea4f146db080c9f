//! The log: text or JSON, to standard error (with fields where that is the journal of
//! systemd) or to syslog.
//!
//! ```text
//! event ─ subscriber ─ line ─ queue ─ thread ─ sink
//! ```
//!
//! Code that logs never waits, however long a sink stands still.

mod journal;
pub(crate) mod limit;
mod line;
mod queue;
mod sink;

use std::io;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error, warn};
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::FormatEvent;
use tracing_subscriber::fmt::format::{DefaultFields, format};

use self::line::Lines;
use self::queue::{Entry, Queue};
use self::sink::{Sink, SinkKind};
use crate::config::{LogConfig, LogFormat};

/// How long the end of the process waits for lines that are still to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The running log. Guard: when dropped, waits a moment until all lines are written.
#[must_use]
pub(crate) struct Log(Arc<Queue>);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.wait_until_written(LAST_LINES);
    }
}

/// Starts the log. From here on a panic is logged, too.
///
/// # Errors
/// When its thread cannot be started, or standard error cannot be duplicated.
pub(crate) fn start(config: LogConfig) -> io::Result<Log> {
    let sink = Sink::new(config.sink)?;
    let style = Style { format: config.format, level: config.level.0, sink: sink.kind() };
    let queue = Arc::new(Queue::default());
    let queued = Arc::clone(&queue);
    thread::Builder::new().name("log".into()).spawn(move || write_lines(&queued, sink, style))?;
    tracing::subscriber::set_global_default(subscriber(style, Arc::clone(&queue)))
        .map_err(io::Error::other)?;
    panic::set_hook(Box::new(log_panic));
    Ok(Log(queue))
}

/// The style of log lines.
#[derive(Clone, Copy)]
struct Style {
    format: LogFormat,
    level: LevelFilter,
    sink: SinkKind,
}

impl Style {
    /// Whether lines have a time and a level: the journal and syslog have their own.
    fn has_level(self) -> bool {
        self.format == LogFormat::Json || matches!(self.sink, SinkKind::Terminal | SinkKind::File)
    }
}

/// Turns events into lines of a queue.
fn subscriber(style: Style, queue: Arc<Queue>) -> Box<dyn Subscriber + Send + Sync> {
    let text = format().with_target(false).with_ansi(style.sink == SinkKind::Terminal);
    match style.format {
        LogFormat::Json => with_format(text.json().flatten_event(true), style, queue),
        LogFormat::Text if style.has_level() => with_format(text, style, queue),
        LogFormat::Text => with_format(text.without_time().with_level(false), style, queue),
    }
}

fn with_format<F>(format: F, style: Style, queue: Arc<Queue>) -> Box<dyn Subscriber + Send + Sync>
where
    F: FormatEvent<Registry, DefaultFields> + Send + Sync + 'static,
{
    let has_level = style.has_level();
    let has_fields = style.sink == SinkKind::Journal;
    let kept = (style.sink == SinkKind::Terminal).then_some('\x1b');
    let log = tracing_subscriber::fmt()
        .with_max_level(style.level)
        // A log that cannot be written must not end a connection.
        .log_internal_errors(false)
        .with_writer(io::sink)
        .event_format(Lines { queue, format, has_level, has_fields, kept });
    Box::new(log.finish())
}

/// The thread of the log: writes queued lines, for ever. Counts suppressed lines, and logs
/// their number as soon as a line can be written again.
fn write_lines(queue: &Queue, mut sink: Sink, style: Style) {
    let mut suppressed = 0_u64;
    loop {
        let written = match queue.next() {
            Entry::Line(line) => sink.write(&line),
            Entry::Suppressed(count) => {
                suppressed = suppressed.saturating_add(count);
                Ok(())
            }
        };
        if written.is_err() {
            suppressed = suppressed.saturating_add(1);
        } else if suppressed > 0 && log_suppressed(suppressed, &mut sink, style).is_ok() {
            suppressed = 0;
        }
    }
}

fn log_suppressed(suppressed: u64, sink: &mut Sink, style: Style) -> io::Result<()> {
    let line = Arc::new(Queue::default());
    tracing::subscriber::with_default(subscriber(style, Arc::clone(&line)), || {
        warn!(
            hint = "the reader of the log was too slow, or there was no room for it",
            suppressed, "log lines were suppressed"
        );
    });
    // There is no line where warnings are not logged.
    line.pop().map_or(Ok(()), |line| sink.write(&line))
}

/// Logs a panic as one line with its location. The panic's message is not logged, since it
/// may quote a secret.
fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(tracing::field::display);
    error!(
        hint = "this is a bug: please report this line, and what led to it",
        location, "panic: what it served has ended, everything else goes on"
    );
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::queue::Line;
    use super::*;

    const STYLE: Style =
        Style { format: LogFormat::Text, level: LevelFilter::INFO, sink: SinkKind::File };

    #[test]
    fn a_panic_is_one_line_with_the_place_and_no_payload() {
        let queue = Arc::new(Queue::default());
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(subscriber(STYLE, Arc::clone(&queue)), || {
            panic::catch_unwind(|| panic!("the key is {}", 4711)).unwrap_err();
        });
        panic::set_hook(before);
        let Line { level, text, .. } = queue.pop().unwrap();
        assert!(queue.pop().is_none());
        assert_eq!((level, text.lines().count()), (Level::ERROR, 1), "{text}");
        assert!(text.contains("error") && text.contains("location=src/logging/mod.rs:"), "{text}");
        assert!(!text.contains("4711"), "{text}");
    }
}
