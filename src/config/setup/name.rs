//! The name of a pipe: that of its files, and the instance of its units.

use std::fmt;
use std::str::FromStr;

use super::SetupConfigError;

/// With it unit names (255 bytes) and paths of unix sockets (107) still hold.
const NAME_MAX: usize = 64;

/// Letters, digits, `-`, `_` and `.`: nothing that a path, a unit or a shell
/// would take for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name of a pair's half, such as `redis-in`.
    #[must_use]
    pub fn half(&self, half: &str) -> Self {
        Self(format!("{self}-{half}"))
    }
}

impl FromStr for Name {
    type Err = SetupConfigError;

    fn from_str(text: &str) -> Result<Self, SetupConfigError> {
        let is_good = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !text.starts_with(['-', '.']);
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(SetupConfigError::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
