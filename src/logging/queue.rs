//! The way of a line from whoever logs to the thread that writes it: bounded, and
//! nobody waits for room in it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most; further ones are left out.
const LINES_MAX: usize = 1024;

/// So many that were left out are told at once.
const SUPPRESSED_MAX: u64 = 10_000;

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// How many lines were left out since the thread was told so.
    suppressed: u64,
    /// Whether the thread has a line in hand.
    is_writing: bool,
}

/// One line of the log, its end included.
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: Vec<u8>,
}

/// What the thread gets.
pub(super) enum Entry {
    Line(Line),
    /// So many lines were left out.
    Suppressed(u64),
}

impl Queue {
    /// Queues a line if there is room, else counts it.
    fn push(&self, line: Line) {
        let mut waiting = self.lock();
        if waiting.lines.len() < LINES_MAX {
            waiting.lines.push_back(line);
        } else {
            waiting.suppressed = waiting.suppressed.saturating_add(1);
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// The next entry, once there is one: the one before it has been written.
    pub(super) fn next(&self) -> Entry {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(entry) = waiting.next() {
                waiting.is_writing = true;
                return entry;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next line, if there is one.
    pub(super) fn pop(&self) -> Option<Line> {
        self.lock().lines.pop_front()
    }

    /// Waits until nothing is left to be written, but no longer than that.
    pub(super) fn wait_until_written(&self, limit: Duration) {
        let is_unwritten = |waiting: &mut Waiting| {
            waiting.is_writing || !waiting.lines.is_empty() || waiting.suppressed > 0
        };
        // Whether all is written or the time is over, there is nothing left to do.
        drop(self.changed.wait_timeout_while(self.lock(), limit, is_unwritten));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing here panics half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The count of what was left out goes behind the lines that wait; while there
    /// are always some, it goes before them now and then.
    fn next(&mut self) -> Option<Entry> {
        let is_due = self.suppressed > 0 && self.lines.is_empty();
        if is_due || self.suppressed >= SUPPRESSED_MAX {
            return Some(Entry::Suppressed(mem::take(&mut self.suppressed)));
        }
        self.lines.pop_front().map(Entry::Line)
    }
}

/// Makes a line of the queue of each event.
pub(super) struct Lines {
    pub(super) queue: Arc<Queue>,
    /// Whether a line says its level, before all else but the time.
    pub(super) has_level: bool,
}

/// The line of an event of that level; the subscriber gives it whole.
pub(super) struct LineOf<'a>(&'a Lines, Level);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineOf<'a>;

    fn make_writer(&'a self) -> LineOf<'a> {
        LineOf(self, Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineOf<'a> {
        LineOf(self, *metadata.level())
    }
}

impl Write for LineOf<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let &mut Self(&Lines { ref queue, has_level }, level) = self;
        let mut text = line.to_owned();
        let name = level.as_str().as_bytes();
        // Written as it is asked for: the subscriber has capitals.
        if has_level
            && let Some(start) = text.windows(name.len()).position(|part| part == name)
            && let Some(name) = text.get_mut(start..start.saturating_add(name.len()))
        {
            name.make_ascii_lowercase();
        }
        queue.push(Line { level, text });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Queue, text: &[u8]) {
        queue.push(Line { level: Level::INFO, text: text.to_owned() });
    }

    /// What the thread would write: texts, and counts of what was left out.
    fn rest(queue: &Queue) -> Vec<Result<Vec<u8>, u64>> {
        push(queue, b"end");
        let entries = std::iter::repeat_with(|| match queue.next() {
            Entry::Line(line) => Ok(line.text),
            Entry::Suppressed(count) => Err(count),
        });
        entries.take_while(|entry| *entry != Ok(b"end".to_vec())).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let queue = Queue::default();
        for _ in 0..LINES_MAX + 7 {
            push(&queue, b"line");
        }
        assert!(matches!(queue.next(), Entry::Line(_)));
        push(&queue, b"last");
        let lines = std::iter::repeat_with(|| queue.next()).take(LINES_MAX).collect::<Vec<_>>();
        assert!(lines.iter().all(|entry| matches!(entry, Entry::Line(_))));
        assert!(matches!(queue.next(), Entry::Suppressed(7)));
        assert_eq!(rest(&queue), []);
    }

    #[test]
    fn the_end_waits_until_all_is_written_and_not_for_ever() {
        let queue = Arc::new(Queue::default());
        let hour = Duration::from_hours(1);
        queue.wait_until_written(hour);
        push(&queue, b"line");
        queue.wait_until_written(Duration::from_millis(1));
        let written = Arc::clone(&queue);
        let writer = std::thread::spawn(move || {
            assert!(matches!(written.next(), Entry::Line(_)));
            // Not yet: it is in hand.
            written.wait_until_written(Duration::from_millis(1));
            assert!(written.lock().is_writing);
            let Entry::Line(last) = written.next() else { panic!("no line") };
            assert_eq!(last.text, b"last");
        });
        queue.wait_until_written(Duration::from_millis(1));
        push(&queue, b"last");
        writer.join().unwrap();
        queue.lock().is_writing = false;
        queue.wait_until_written(hour);
    }
}
