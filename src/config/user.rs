//! `-u`: whom to become.

use std::str::FromStr;

use thiserror::Error;

/// `user`, `:group` or `user:group`, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user; `None`: stay the same.
    pub user: Option<String>,
    /// The group; `None`: the user's own.
    pub group: Option<String>,
}

/// A text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is none of user, :group, user:group")]
pub struct RunAsError(String);

impl FromStr for RunAs {
    type Err = RunAsError;

    fn from_str(text: &str) -> Result<Self, RunAsError> {
        let part = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        let run_as = match text.split_once(':') {
            None => Self { user: part(text), group: None },
            Some((user, group)) => Self { user: part(user), group: part(group) },
        };
        let is_nobody = run_as.user.is_none() && run_as.group.is_none();
        if is_nobody || text.ends_with(':') || text.matches(':').count() > 1 {
            return Err(RunAsError(text.to_owned()));
        }
        Ok(run_as)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        let run_as = |text: &str| text.parse::<RunAs>().map(|run_as| (run_as.user, run_as.group));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(run_as("redis"), Ok((some("redis"), None)));
        assert_eq!(run_as(":redis"), Ok((None, some("redis"))));
        assert_eq!(run_as("a:b"), Ok((some("a"), some("b"))));
        for wrong in ["", ":", "a:", "a:b:c", "::"] {
            assert!(run_as(wrong).is_err(), "{wrong}");
        }
    }
}
