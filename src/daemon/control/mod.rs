//! `--control`: a unix socket on which a running spiped is told to do something. What
//! is asked and what is answered have one form:
//!
//! ```text
//! asked:     spiped/1 rekey 32\n      version, verb, bytes of the body; then the body
//! answered:  ok rekey 20\n            what has become of it, the verb, bytes of the body
//!            3f9a-12bc-07de-5581\n
//!        or  refused rekey 38\n
//!            the key has 3 bytes, fewer than 32\n
//!        or  refused: REASON\n       what is asked cannot be understood
//! ```
//!
//! The last form is the same in every version.

pub(crate) mod client;
pub(crate) mod server;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOFOLLOW, O_PATH};
use thiserror::Error;

/// The version of the form above.
const VERSION: &str = "spiped/1";
/// The longest first line, its end included.
const LINE_MAX: usize = 64;
/// What an answer begins with to what cannot be understood.
const NOT_UNDERSTOOD: &str = "refused: ";
/// The longest body of an answer.
const ANSWER_MAX: usize = 1024;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The body is the content of a key file, which is to be in force. The answer's body
    /// is the id of the key in force.
    Rekey,
}

/// What is asked, before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    verb: Verb,
    /// Bytes of the body.
    length: usize,
}

/// Why a first line is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum RequestError {
    #[error("it is of another version of spiped, this one speaks {VERSION}")]
    Version,
    #[error("'{}' is not known here", .0.escape_debug())]
    Verb(String),
    #[error("the length of what is asked is no number")]
    Length,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done; what there is to say of it.
    Ok(String),
    /// It is not done; why.
    Refused(String),
}

impl Verb {
    const ALL: [Self; 1] = [Self::Rekey];

    const fn name(self) -> &'static str {
        match self {
            Self::Rekey => "rekey",
        }
    }
}

impl Request {
    /// The first line.
    fn line(self) -> String {
        format!("{VERSION} {} {}\n", self.verb.name(), self.length)
    }

    /// What a first line, without its end, asks.
    fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let line = str::from_utf8(line).map_err(|_| RequestError::Version)?;
        let words: Vec<_> = line.split(' ').collect();
        let [VERSION, verb, length] = words[..] else { return Err(RequestError::Version) };
        let known = Verb::ALL.into_iter().find(|known| known.name() == verb);
        let verb = known.ok_or_else(|| RequestError::Verb(verb.to_owned()))?;
        let length = length.parse().map_err(|_| RequestError::Length)?;
        Ok(Self { verb, length })
    }
}

impl Answer {
    /// All of it.
    fn bytes(&self, verb: Verb) -> Vec<u8> {
        let (word, body) = match self {
            Self::Ok(body) => ("ok", body),
            Self::Refused(body) => ("refused", body),
        };
        format!("{word} {} {}\n{body}\n", verb.name(), body.len() + 1).into_bytes()
    }

    /// What the whole of an answer to a verb says: one line, which goes to root's
    /// terminal and to the log.
    fn parse(bytes: &[u8], verb: Verb) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let (line, body) = text.split_once('\n')?;
        if let Some(reason) = line.strip_prefix(NOT_UNDERSTOOD) {
            let is_one_line = body.is_empty() && !reason.contains(char::is_control);
            return is_one_line.then(|| Self::Refused(reason.to_owned()));
        }
        let words: Vec<_> = line.split(' ').collect();
        let [word, of, length] = words[..] else { return None };
        let body = body.strip_suffix('\n').filter(|body| length.parse() == Ok(body.len() + 1))?;
        if body.contains(char::is_control) || of != verb.name() {
            return None;
        }
        match word {
            "ok" => Some(Self::Ok(body.to_owned())),
            "refused" => Some(Self::Refused(body.to_owned())),
            _ => None,
        }
    }
}

/// The file of a unix socket itself, and its owner; never where a link leads: the
/// folder may be another user's, who could have it lead to another's socket.
fn open_socket(path: &Path) -> io::Result<(File, u32)> {
    let file = OpenOptions::new().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("it is not a socket"));
    }
    Ok((file, metadata.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood_and_nothing_else_is() {
        let request = Request { verb: Verb::Rekey, length: 32 };
        assert_eq!(request.line(), "spiped/1 rekey 32\n");
        assert!(request.line().len() <= LINE_MAX);
        assert_eq!(Request::parse(b"spiped/1 rekey 32"), Ok(request));
        let unknown = RequestError::Verb("revoke".to_owned());
        assert_eq!(Request::parse(b"spiped/1 revoke 3"), Err(unknown));
        assert_eq!(Request::parse(b"spiped/1 rekey -1"), Err(RequestError::Length));
        for other in [&b"\0\0\0 "[..], b"", b"spiped/2 rekey 32", b"spiped/1 rekey 32 x", b"\xff"] {
            assert_eq!(Request::parse(other), Err(RequestError::Version));
        }
    }

    #[test]
    fn an_answer_is_understood_as_a_whole_or_not_at_all() {
        for answer in [Answer::Ok("3f9a-12bc".into()), Answer::Refused("so it is".into())] {
            let bytes = answer.bytes(Verb::Rekey);
            assert_eq!(Answer::parse(&bytes, Verb::Rekey), Some(answer));
            for length in 0..bytes.len() {
                assert_eq!(Answer::parse(&bytes[..length], Verb::Rekey), None);
            }
        }
        let refused = Answer::Refused("another version".into());
        assert_eq!(Answer::parse(b"refused: another version\n", Verb::Rekey), Some(refused));
        for other in [
            "refused: \x1b[m\n",
            "ok rekey 4\n\x1b[m\n",
            "ok rekey 4\na\nb\n",
            "ok status 2\na\n",
            "no rekey 2\na\n",
        ] {
            assert_eq!(Answer::parse(other.as_bytes(), Verb::Rekey), None, "{other:?}");
        }
    }
}
