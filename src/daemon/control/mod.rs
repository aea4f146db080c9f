//! `--control`: a unix socket on which a running spiped takes requests:
//!
//! ```text
//! request:  spiped/1 revoke 5\n      version, verb, bytes of the body; then the body
//!           alice
//! answer:   ok revoke 36\n           result, verb, bytes of the body; then the body
//!           revoked alice 3f9a-12bc-07de-5581 1\n
//!      or:  refused revoke 29\n
//!           no key has the name 'alice'\n
//!      or:  refused: REASON\n       the request cannot be understood
//! ```
//!
//! Every version has the last form.

pub(crate) mod client;
mod draining;
pub(crate) mod server;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOFOLLOW, O_PATH};
use thiserror::Error;

use crate::daemon::accept::no_socket;
use crate::keys::entry::ENTRIES_MAX;
use crate::status::TEXT_MAX;

/// The version of the requests and answers above.
const VERSION: &str = "spiped/1";
/// The longest first line, its end included.
pub(crate) const LINE_MAX: usize = 64;
/// The beginning of the answer to a request that cannot be understood.
const NOT_SERVED: &str = "refused: ";

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Put other keys in force, all or none. The request's body has the entries of a key
    /// set, the answer's body a line for each key that was added, removed or kept.
    Rekey,
    /// Take a key out of force, and end its connections. The request's body is the name, the
    /// answer's body a line for each key that was revoked.
    Revoke,
    /// Tell the status. The request's body is empty, or [`WITH_OPEN`] for one with each open
    /// connection; the answer's body is JSON.
    Status,
}

/// The body of a request for the status with each open connection.
const WITH_OPEN: &str = "connections";

/// The first line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    /// Bytes of the body.
    pub(crate) length: usize,
}

/// Why a first line cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum RequestError {
    #[error("the request is of another version of spiped; this one speaks {VERSION}")]
    Version,
    /// Not shown: it may be a part of a key.
    #[error("the request's verb is not known to this version of spiped")]
    Verb,
    #[error("the request is not of the form '{VERSION} VERB LENGTH'")]
    Form,
    #[error("the length of the request is not a number")]
    Length,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The request is carried out; the result.
    Ok(String),
    /// The request is refused; the reason.
    Refused(String),
    /// The request is not looked at, as where it cannot be understood; the reason.
    NotServed(String),
}

impl Verb {
    pub(crate) const ALL: [Self; 3] = [Self::Rekey, Self::Revoke, Self::Status];

    const fn name(self) -> &'static str {
        match self {
            Self::Rekey => "rekey",
            Self::Revoke => "revoke",
            Self::Status => "status",
        }
    }

    /// The longest body of a request.
    const fn body_max(self) -> usize {
        match self {
            Self::Rekey => ENTRIES_MAX,
            Self::Revoke => 64,
            Self::Status => WITH_OPEN.len(),
        }
    }

    /// The longest body of an answer.
    const fn answer_max(self) -> usize {
        match self {
            Self::Rekey | Self::Revoke => 1 << 18,
            // 1,000 keys, and 20,000 open connections.
            Self::Status => 1 << 24,
        }
    }
}

impl Request {
    pub(crate) fn line(self) -> String {
        format!("{VERSION} {} {}\n", self.verb.name(), self.length)
    }

    /// Whether a first line can begin like this. Anything else may be a key that somebody
    /// has sent without a first line.
    fn can_begin_with(line: &[u8]) -> bool {
        let of_a_line = |byte: &u8| byte.is_ascii_alphanumeric() || b"/ -".contains(byte);
        let version = line.len().min(VERSION.len());
        VERSION.as_bytes().starts_with(&line[..version]) && line.iter().all(of_a_line)
    }

    /// Why a line is refused before its end.
    fn refusal(line: &[u8]) -> RequestError {
        let is_ours =
            line.strip_prefix(VERSION.as_bytes()).is_some_and(|rest| rest.starts_with(b" "));
        if is_ours { RequestError::Form } else { RequestError::Version }
    }

    /// Parses a first line without its end.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let line = str::from_utf8(line).map_err(|_| RequestError::Version)?;
        let words: Vec<_> = line.split(' ').collect();
        let [VERSION, ref words @ ..] = words[..] else { return Err(RequestError::Version) };
        let [verb, length] = words else { return Err(RequestError::Form) };
        let known = Verb::ALL.into_iter().find(|known| known.name() == *verb);
        let verb = known.ok_or(RequestError::Verb)?;
        // One way to write a length: neither a sign nor a zero before it.
        let number: Option<usize> = length.parse().ok();
        let number = number.filter(|number| number.to_string() == *length);
        Ok(Self { verb, length: number.ok_or(RequestError::Length)? })
    }
}

impl Answer {
    pub(crate) fn bytes(&self, verb: Verb) -> Vec<u8> {
        let (word, body) = match self {
            Self::Ok(body) => ("ok", body),
            Self::Refused(body) => ("refused", body),
            Self::NotServed(reason) => return format!("{NOT_SERVED}{reason}\n").into_bytes(),
        };
        format!("{word} {} {}\n{body}\n", verb.name(), body.len() + 1).into_bytes()
    }

    /// Parses a whole answer to a verb. Its body must be printable lines of ASCII, since it
    /// goes to root's terminal and to the log.
    pub(crate) fn parse(bytes: &[u8], verb: Verb) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let (line, body) = text.split_once('\n')?;
        if let Some(reason) = line.strip_prefix(NOT_SERVED) {
            let is_one_line =
                body.is_empty() && reason.len() <= TEXT_MAX && !reason.contains(is_unprintable);
            return is_one_line.then(|| Self::NotServed(reason.to_owned()));
        }
        let words: Vec<_> = line.split(' ').collect();
        let [word, of, length] = words[..] else { return None };
        let body = body.strip_suffix('\n').filter(|body| length.parse() == Ok(body.len() + 1))?;
        if body.contains(|c| is_unprintable(c) && c != '\n') || of != verb.name() {
            return None;
        }
        match word {
            "ok" => Some(Self::Ok(body.to_owned())),
            "refused" if body.len() <= TEXT_MAX => Some(Self::Refused(body.to_owned())),
            _ => None,
        }
    }
}

/// Letters can be unprintable, too, such as those that turn the direction of a text.
const fn is_unprintable(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_control()
}

/// The file of a unix socket.
struct SocketFile {
    file: File,
    owner: u32,
    inode: u64,
}

/// Opens the file of a unix socket. Links are not followed: the folder may belong to another
/// user, who could make a link to somebody else's socket.
fn socket_file(path: &Path) -> io::Result<SocketFile> {
    let file = OpenOptions::new().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(no_socket(metadata.file_type()));
    }
    Ok(SocketFile { file, owner: metadata.uid(), inode: metadata.ino() })
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
        assert_eq!(Request::parse(b"spiped/1 revert 3"), Err(RequestError::Verb));
        assert_eq!(Request::parse(b"spiped/1 rekey -1"), Err(RequestError::Length));
        assert_eq!(Request::parse(b"spiped/1 rekey +1"), Err(RequestError::Length));
        assert_eq!(Request::parse(b"spiped/1 rekey 032"), Err(RequestError::Length));
        assert_eq!(Request::refusal(b"spiped/1 rekey +"), RequestError::Form);
        assert_eq!(Request::refusal(b"spiped/2 rekey +"), RequestError::Version);
        for other in [&b"\0\0\0 "[..], b"", b"spiped/2 rekey 32", b"\xff"] {
            assert_eq!(Request::parse(other), Err(RequestError::Version));
        }
        for other in [&b"spiped/1"[..], b"spiped/1 rekey", b"spiped/1 rekey 32 x"] {
            assert_eq!(Request::parse(other), Err(RequestError::Form));
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_not_understood() {
        let reason = "x".repeat(TEXT_MAX);
        for answer in [Answer::NotServed(reason.clone()), Answer::Refused(reason.clone())] {
            let bytes = answer.bytes(Verb::Status);
            assert_eq!(Answer::parse(&bytes, Verb::Status), Some(answer));
        }
        for answer in [Answer::NotServed(reason.clone() + "x"), Answer::Refused(reason + "x")] {
            assert_eq!(Answer::parse(&answer.bytes(Verb::Status), Verb::Status), None);
        }
    }

    #[test]
    fn an_answer_is_understood_as_a_whole_or_not_at_all() {
        for answer in [Answer::Ok("a 1\nb 2".into()), Answer::Refused("so it is".into())] {
            let bytes = answer.bytes(Verb::Rekey);
            assert_eq!(Answer::parse(&bytes, Verb::Rekey), Some(answer));
            for length in 0..bytes.len() {
                assert_eq!(Answer::parse(&bytes[..length], Verb::Rekey), None);
            }
        }
        let refused = Answer::NotServed("another version".into());
        assert_eq!(Answer::parse(b"refused: another version\n", Verb::Rekey), Some(refused));
        for other in
            ["refused: \x1b[m\n", "ok rekey 4\n\x1b[m\n", "ok status 2\na\n", "no rekey 2\na\n"]
        {
            assert_eq!(Answer::parse(other.as_bytes(), Verb::Rekey), None, "{other:?}");
        }
    }
}
