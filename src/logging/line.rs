//! The line of an event: its text, and where the journal takes them, its fields.

use std::fmt::{self, Debug};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::queue::{Line, Queue};

/// Puts the line of each event into the queue.
pub(super) struct Lines<F> {
    pub(super) queue: Arc<Queue>,
    /// What formats the text.
    pub(super) format: F,
    /// Whether the text has its level, behind the time.
    pub(super) has_level: bool,
    /// Whether a line has its fields beside the text.
    pub(super) has_fields: bool,
    /// ESC, where the subscriber colours the text.
    pub(super) kept: Option<char>,
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    /// Writes nothing to the writer: the queue takes the whole line.
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        _: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.format.format_event(context, Writer::new(&mut text), event)?;
        let level = *event.metadata().level();
        let mut text = one_line(&text, self.kept);
        let name = level.as_str();
        // In lower case, as in `--log`: the subscriber writes capitals.
        if self.has_level
            && let Some(start) = text.find(name)
            && let Some(name) = text.get_mut(start..start.saturating_add(name.len()))
        {
            name.make_ascii_lowercase();
        }
        let mut fields = Fields::default();
        if self.has_fields {
            event.record(&mut fields);
        }
        self.queue.push(Line { level, text, fields: fields.0 });
        Ok(())
    }
}

/// The fields of an event, without its message.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.0.push((field.name(), escape(value, |_| false)));
        }
    }
}

impl Visit for Fields {
    /// Without the quotation marks that the line has.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Escapes control characters, such as those of a path, but the one that is kept.
fn one_line(line: &str, kept: Option<char>) -> String {
    let is_kept = |character| kept == Some(character);
    match line.strip_suffix('\n') {
        Some(text) => escape(text, is_kept) + "\n",
        None => escape(line, is_kept),
    }
}

/// Escapes control characters but those to keep.
fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii_control() && !is_kept(character) => {
                escaped.extend(byte.escape_ascii().map(char::from));
            }
            _ if character.is_control() && !character.is_ascii() => {
                escaped.extend(character.escape_unicode());
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_whatever_is_in_it() {
        let path = "target=/a\nb\r\t\u{e9}\n";
        for kept in [None, Some('\x1b')] {
            assert_eq!(one_line(path, kept), "target=/a\\nb\\r\\t\u{e9}\n");
            assert_eq!(one_line("", kept), "");
        }
        let coloured = "\x1b[33mwarn\x1b[0m\n";
        assert_eq!(one_line(coloured, Some('\x1b')), coloured);
        assert_eq!(one_line("target=/\x1b[33m", None), "target=/\\x1b[33m");
    }

    #[test]
    fn a_value_has_no_control_character() {
        let value = escape("/a\nKEY=web2\0\x1b[31m\u{9b}\u{e9}=\\", |_| false);
        assert_eq!(value, "/a\\nKEY=web2\\x00\\x1b[31m\\u{9b}\u{e9}=\\");
    }
}
