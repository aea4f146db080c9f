//! Files of variables, as systemd reads those of `EnvironmentFile=`.

use std::fmt::Write;
use std::iter;

use thiserror::Error;

/// What a file of variables says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvironmentFile {
    /// Names and values, in the order of the file. Of one name, the last counts.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) skipped: Vec<Skipped>,
}

/// What systemd silently leaves out, or takes for more than was meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Skipped {
    #[error("line {0} has no =, and is skipped")]
    NoValue(usize),
    #[error("line {0} has what is no name of a variable before its =, and is skipped")]
    NoName(usize),
    /// Where systemd is older than 254.
    #[error("the comment in line {0} ends with a backslash, so that the next line is skipped, too")]
    JoinedComment(usize),
    #[error("the quote in line {0} does not end: it takes all the rest of the file")]
    OpenQuote(usize),
}

/// Why systemd silently takes a file for empty.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unreadable {
    #[error("it has a NUL byte, so that systemd takes none of it")]
    Nul,
    #[error("line {0} is not UTF-8 outside of a comment, so that systemd takes none of the file")]
    NotUtf8(usize),
}

/// How far a comment goes that ends with a backslash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comments {
    /// To the end of the next line, before systemd 254.
    Joined,
    OneLine,
}

impl Skipped {
    /// What to do about any of them.
    pub(crate) const HINT: &str = "write NAME=value in a line, and # before a comment";
}

impl EnvironmentFile {
    /// The value of a variable.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let of_name = self.variables.iter().rfind(|(it, _)| it == name);
        of_name.map(|(_, value)| value.as_str())
    }

    /// Reads a text of ours, which has no NUL.
    pub(crate) fn read(text: &str) -> Self {
        Self::parse(text.as_bytes(), Comments::OneLine).unwrap_or_default()
    }

    /// Reads what a file has. A comment can be in any encoding.
    ///
    /// # Errors
    /// When systemd would take none of it.
    pub(crate) fn parse(content: &[u8], comments: Comments) -> Result<Self, Unreadable> {
        if content.contains(&0) {
            return Err(Unreadable::Nul);
        }
        let mut file = Self::default();
        // A character for each byte: whatever means anything here is ASCII.
        let content: String = content.iter().copied().map(char::from).collect();
        let mut reader = Reader { rest: &content, line: 1 };
        while let Some(first) = reader.next_after(&[' ', '\t', '\n', '\r']) {
            if matches!(first, '#' | ';') {
                reader.skip_comment(comments, &mut file.skipped);
                continue;
            }
            let line = reader.line;
            let mut name = String::from(first);
            let has_value = loop {
                match reader.next() {
                    Some('=') => break true,
                    Some('\n' | '\r') | None => break false,
                    Some(letter) => name.push(letter),
                }
            };
            if !has_value {
                file.skipped.push(Skipped::NoValue(line));
                continue;
            }
            let value = reader.value(&mut file.skipped);
            let name = name.trim_end_matches(BLANKS);
            let (Some(name), Some(value)) = (decoded(name), decoded(&value)) else {
                return Err(Unreadable::NotUtf8(line));
            };
            if is_name(&name) {
                file.variables.push((name, value));
            } else {
                file.skipped.push(Skipped::NoName(line));
            }
        }
        Ok(file)
    }
}

/// The text of bytes that were made characters, if it is UTF-8.
fn decoded(bytes: &str) -> Option<String> {
    let bytes: Result<Vec<u8>, _> = bytes.chars().map(u8::try_from).collect();
    String::from_utf8(bytes.ok()?).ok()
}

const BLANKS: [char; 2] = [' ', '\t'];

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(is_letter)
        && text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// A text that is read once, character by character.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// The first character that is none of those.
    fn next_after(&mut self, these: &[char]) -> Option<char> {
        iter::from_fn(|| self.next()).find(|next| !these.contains(next))
    }

    /// Skips the rest of a comment.
    fn skip_comment(&mut self, comments: Comments, skipped: &mut Vec<Skipped>) {
        loop {
            let line = self.line;
            match self.next() {
                None | Some('\n' | '\r') => return,
                Some('\\') => {
                    if matches!(self.next(), None | Some('\n' | '\r')) {
                        skipped.push(Skipped::JoinedComment(line));
                        if comments == Comments::OneLine {
                            return;
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// A value up to the end of its line. A quote counts at the beginning and behind another
    /// one; a backslash makes the next character count as itself, and joins lines.
    fn value(&mut self, skipped: &mut Vec<Skipped>) -> String {
        let mut value = String::new();
        // Blanks at the end of what is not quoted do not count.
        let mut kept = 0;
        let mut may_begin = true;
        loop {
            let line = self.line;
            match self.next() {
                None | Some('\n' | '\r') => break,
                Some(quote @ ('"' | '\'')) if may_begin => {
                    if !self.quoted(quote, &mut value) {
                        skipped.push(Skipped::OpenQuote(line));
                    }
                    kept = value.len();
                }
                Some('\\') => {
                    may_begin = false;
                    value.extend(self.next().filter(|next| !"\n\r".contains(*next)));
                    kept = value.len();
                }
                Some(blank @ (' ' | '\t')) => {
                    if !may_begin {
                        value.push(blank);
                    }
                }
                Some(other) => {
                    may_begin = false;
                    value.push(other);
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        value
    }

    /// What stands up to the quote; false where that does not come.
    fn quoted(&mut self, quote: char, value: &mut String) -> bool {
        while let Some(next) = self.next() {
            match next {
                end if end == quote => return true,
                '\\' if quote == '"' => match self.next() {
                    Some('\n') => {}
                    Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                    other => value.extend(['\\'].into_iter().chain(other)),
                },
                other => value.push(other),
            }
        }
        false
    }
}

/// The line of a variable that is read as this value again.
pub(crate) fn line_of(name: &str, value: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "%+,-./:=@[]_".contains(letter);
    if value.chars().all(is_plain) {
        return format!("{name}={value}\n");
    }
    let mut line = format!("{name}=\"");
    for letter in value.chars() {
        let escape = if "\"\\`$".contains(letter) { "\\" } else { "" };
        let _in_memory = write!(line, "{escape}{letter}");
    }
    line + "\"\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd 252 reads them.
    #[test]
    fn values_are_read_as_systemd_reads_them() {
        let cases = [
            ("A=b", "b"),
            ("  A = b c  \n", "b c"),
            ("A=\"b\"'c' d\n", "bcd"),
            ("A=b\"c\"\n", "b\"c\""),
            ("A=\"b\\\"\\\\\\$\\x\\\nc\"", "b\"\\$\\xc"),
            ("A='b\\\nc' \n", "b\\\nc"),
            ("A=b\\\n c\\ \n", "b c "),
            ("A=\n", ""),
            ("A=x\nA=b#c;d\n", "b#c;d"),
            ("\n;A=x\n# A=y\nA=z", "z"),
        ];
        for (text, value) in cases {
            let file = EnvironmentFile::read(text);
            assert_eq!((file.value("A"), &*file.skipped), (Some(value), &[][..]), "{text:?}");
        }
    }

    /// As systemd 252 and 257 read them.
    #[test]
    fn comments_may_have_anything_but_a_nul() {
        let parse = |text: &[u8], comments| {
            EnvironmentFile::parse(text, comments).map(|file| file.value("A").map(str::to_owned))
        };
        for (text, joined, one_line) in [
            (&b"# \xe4\nA=b"[..], Some("b"), Some("b")),
            (b"# x\\\nA=b", None, Some("b")),
            (b"# x\\y\nA=b", Some("b"), Some("b")),
            (b"# x\\\\\nA=b", Some("b"), Some("b")),
            (b"# x\\\ny\nA=b", Some("b"), Some("b")),
        ] {
            assert_eq!(parse(text, Comments::Joined), Ok(joined.map(str::to_owned)), "{text:?}");
            assert_eq!(parse(text, Comments::OneLine), Ok(one_line.map(str::to_owned)), "{text:?}");
        }
        for (text, error) in [
            (&b"# \0\nA=b"[..], Unreadable::Nul),
            (b"A=b\0", Unreadable::Nul),
            (b"A=b\nC=\xe4", Unreadable::NotUtf8(2)),
            (b"\xe4=b", Unreadable::NotUtf8(1)),
        ] {
            assert_eq!(parse(text, Comments::OneLine), Err(error), "{text:?}");
        }
        assert_eq!(
            parse(b"# x\nword \xe4\nA=\xc3\xa4", Comments::OneLine),
            Ok(Some("\u{e4}".into()))
        );
    }

    #[test]
    fn what_is_skipped_is_told_with_its_line() {
        let file = EnvironmentFile::read("word\n\nexport A=b\n2=c\nD=e\n# f\\\nF=\"g\nH=i\n");
        let skipped = [
            Skipped::NoValue(1),
            Skipped::NoName(3),
            Skipped::NoName(4),
            Skipped::JoinedComment(6),
            Skipped::OpenQuote(7),
        ];
        assert_eq!(file.skipped, skipped);
        assert_eq!((file.value("D"), file.value("F")), (Some("e"), Some("g\nH=i\n")));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for value in ["", "[::1]:1", "a b", " a ", "$HOME`\\\"'\\n", "a\nb", "#;", "ü"] {
            let file = EnvironmentFile::read(&(line_of("A", value) + "B=c\n"));
            assert_eq!((file.value("A"), file.value("B")), (Some(value), Some("c")), "{value:?}");
        }
    }
}
