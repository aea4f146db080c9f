//! The name of a pipe, which its files and the instances of its units have.

use std::fmt;
use std::str::FromStr;

use crate::config::key_name::KeyName;
use crate::config::value::ValueError;

/// The longest name with which unit names (255 bytes) and the paths of unix sockets
/// (107 bytes) are not too long.
const NAME_MAX: usize = 64;

/// The name of a pipe: letters, digits, `-`, `_` and `.`, so that no path, unit or
/// shell takes it for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PipeName(String);

impl PipeName {
    /// Whether the names of its halves are not too long.
    pub(super) fn can_be_of_a_pair(&self) -> bool {
        self.half("out").0.len() <= NAME_MAX
    }

    /// The name that the sender to this receiver has on another host: that of the other half,
    /// if this is half of a pair.
    #[must_use]
    pub(crate) fn of_sender(&self) -> Self {
        self.0.strip_suffix("-in").map_or_else(|| self.clone(), |pair| Self(format!("{pair}-out")))
    }

    /// The name of a pair's half, such as `redis-in`.
    #[must_use]
    pub(crate) fn half(&self, half: &str) -> Self {
        Self(format!("{self}-{half}"))
    }
}

/// Keys and pipes have names of one kind.
impl From<KeyName> for PipeName {
    fn from(name: KeyName) -> Self {
        Self(name.to_string())
    }
}

/// The key with which a pipe was made has the pipe's name.
impl PartialEq<KeyName> for PipeName {
    fn eq(&self, name: &KeyName) -> bool {
        self.0 == name.as_str()
    }
}

impl FromStr for PipeName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_good = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !text.starts_with(['-', '.'])
            // It stands between the name of a pipe and that of a key, in credentials.
            && !text.contains(".keys_");
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            let hint = if text.contains('\\') {
                "write it as it is, such as a-b: what systemd-escape makes of it names no file"
            } else {
                "up to 64 letters, digits, - _ and . that begin with neither - nor ., such as redis"
            };
            Err(ValueError::new(format!("'{text}' is no name for a pipe"), hint))
        }
    }
}

impl fmt::Display for PipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
