//! The name of a key, which its file has.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::value::ValueError;

/// The most characters of a name.
const NAME_MAX: usize = 64;
/// What the name of a key file may end in.
pub(crate) const KEY_ENDING: &str = ".key";
/// What the name of a key that is to follow another one ends in.
pub(crate) const NEW: &str = ".new";

/// The name of a key: 1 to 64 letters, digits, `.`, `_` and `-`, so that a name stands in
/// logs, paths and shells as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyName(String);

impl KeyName {
    /// The name of the key in this file: the file's own, without `.key`. Standard input,
    /// `-`, has the name `stdin`. `None` where that is no name for a key.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        if path == Path::new("-") {
            return Some(Self("stdin".to_owned()));
        }
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(KEY_ENDING).unwrap_or(name).parse().ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `.new`, by which a key is called that is to follow another one.
    pub(crate) fn without_new(&self) -> &str {
        self.0.strip_suffix(NEW).unwrap_or(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_good = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !text.starts_with(['-', '.']);
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            let reason = format!("'{text}' is no name for a key");
            Err(ValueError::new(reason, NAMES))
        }
    }
}

/// What a name is.
pub(crate) const NAMES: &str =
    "up to 64 letters, digits, - _ and . that begin with neither - nor ., such as web1";

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_name_of_its_file() {
        let of = |path: &str| KeyName::of_file(Path::new(path)).map(|name| name.to_string());
        assert_eq!(of("/etc/spiped/redis.key").as_deref(), Some("redis"));
        assert_eq!(of("web-1.eu").as_deref(), Some("web-1.eu"));
        assert_eq!(of("-").as_deref(), Some("stdin"));
        for other in ["/etc/spiped/..", ".key", "a b.key", "-a.key", &"a".repeat(65), "/", "\u{e4}"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
