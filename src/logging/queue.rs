//! The queue of lines, from the code that logs to the thread that writes. The queue is
//! bounded, and code that logs does not wait for room in it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

/// The most lines that wait; further ones are suppressed.
const LINES_MAX: usize = 1024;

/// When this many lines are suppressed, their number is logged before the lines that wait.
const SUPPRESSED_MAX: u64 = 10_000;

/// The lines that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// How many lines were suppressed since the thread was last told.
    suppressed: u64,
    /// Whether the thread is writing a line.
    is_writing: bool,
}

/// One line of the log.
pub(super) struct Line {
    pub(super) level: Level,
    /// With its end of line.
    pub(super) text: String,
    /// Names and values of the fields in the line, where the journal takes them.
    pub(super) fields: Vec<(&'static str, String)>,
}

/// An entry for the thread.
pub(super) enum Entry {
    Line(Line),
    /// This many lines were suppressed.
    Suppressed(u64),
}

impl Queue {
    /// Queues a line if there is room; otherwise counts it as suppressed.
    pub(super) fn push(&self, line: Line) {
        let mut waiting = self.lock();
        if waiting.lines.len() < LINES_MAX {
            waiting.lines.push_back(line);
        } else {
            waiting.suppressed = waiting.suppressed.saturating_add(1);
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits for the next entry. To be called once the previous entry is written.
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

    /// Waits until nothing is left to be written, but no longer than `limit`.
    pub(super) fn wait_until_written(&self, limit: Duration) {
        let is_unwritten = |waiting: &mut Waiting| {
            waiting.is_writing || !waiting.lines.is_empty() || waiting.suppressed > 0
        };
        // Whether all is written or the time is over, there is nothing left to do.
        drop(self.changed.wait_timeout_while(self.lock(), limit, is_unwritten));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No panic here leaves a state half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The next entry. The number of suppressed lines goes behind the lines that wait, or
    /// before them once it has reached [`SUPPRESSED_MAX`].
    fn next(&mut self) -> Option<Entry> {
        let is_due = self.suppressed > 0 && self.lines.is_empty();
        if is_due || self.suppressed >= SUPPRESSED_MAX {
            return Some(Entry::Suppressed(mem::take(&mut self.suppressed)));
        }
        self.lines.pop_front().map(Entry::Line)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn push(queue: &Queue, text: &str) {
        queue.push(Line { level: Level::INFO, text: text.to_owned(), fields: vec![] });
    }

    /// What the thread would write: texts, and numbers of suppressed lines.
    fn rest(queue: &Queue) -> Vec<Result<String, u64>> {
        push(queue, "end");
        let entries = std::iter::repeat_with(|| match queue.next() {
            Entry::Line(line) => Ok(line.text),
            Entry::Suppressed(count) => Err(count),
        });
        entries.take_while(|entry| *entry != Ok("end".to_owned())).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let queue = Queue::default();
        for _ in 0..LINES_MAX + 7 {
            push(&queue, "line");
        }
        assert!(matches!(queue.next(), Entry::Line(_)));
        push(&queue, "last");
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
        push(&queue, "line");
        queue.wait_until_written(Duration::from_millis(1));
        let written = Arc::clone(&queue);
        let writer = std::thread::spawn(move || {
            assert!(matches!(written.next(), Entry::Line(_)));
            // The thread is still writing.
            written.wait_until_written(Duration::from_millis(1));
            assert!(written.lock().is_writing);
            let Entry::Line(last) = written.next() else { panic!("no line") };
            assert_eq!(last.text, "last");
        });
        queue.wait_until_written(Duration::from_millis(1));
        push(&queue, "last");
        writer.join().unwrap();
        queue.lock().is_writing = false;
        queue.wait_until_written(hour);
    }
}
