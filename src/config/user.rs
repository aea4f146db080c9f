//! `-u`: whom to become.

use std::str::FromStr;

use super::value::ValueError;

/// `-u`: `user`, `:group` or `user:group`, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunAs {
    /// The user; `None`: the process keeps its own.
    pub(crate) user: Option<String>,
    /// The group; `None`: that of the user.
    pub(crate) group: Option<String>,
}

impl FromStr for RunAs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let part = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        let run_as = match text.split_once(':') {
            None => Self { user: part(text), group: None },
            Some((user, group)) => Self { user: part(user), group: part(group) },
        };
        let is_nobody = run_as.user.is_none() && run_as.group.is_none();
        if is_nobody || text.ends_with(':') || text.matches(':').count() > 1 {
            let reason = format!("'{text}' is none of user, :group, user:group");
            return Err(ValueError::new(reason, "name a user, or a group behind a colon"));
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
