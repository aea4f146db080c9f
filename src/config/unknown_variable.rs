//! Variables that no option has.

use std::env;

use clap::{Arg, Command};
use thiserror::Error;

use super::unit::UNIT;

/// A variable that looks like that of an option, and no option has it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name} is no variable of spiped")]
pub(crate) struct UnknownVariable {
    name: String,
    /// The variable that is most like it.
    meant: Option<String>,
    hint: String,
}

impl UnknownVariable {
    fn new(name: String, known: &[String]) -> Self {
        let meant = nearest(&name, known);
        let hint = match &meant {
            Some(nearest) => format!("did you mean {nearest}? '--help' lists the options"),
            None => "remove it: no option has that name; '--help' lists the options".to_owned(),
        };
        Self { name, meant, hint }
    }

    /// Whether it seems to be a mistyped variable of this option.
    pub(super) fn is_meant_for(&self, option: &Arg) -> bool {
        let variable = option.get_env().map(|name| name.to_string_lossy());
        variable.as_deref().is_some_and(|variable| self.meant.as_deref() == Some(variable))
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &str {
        &self.hint
    }

    /// All such variables of this process, whose options are those of `command`.
    pub(super) fn all(command: &Command) -> Vec<Self> {
        let of_options = command.get_arguments().filter_map(Arg::get_env);
        let known: Vec<_> = of_options.map(|name| name.to_string_lossy().into_owned()).collect();
        env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with("SPIPED_") && name != UNIT && !known.contains(name))
            .map(|name| Self::new(name, &known))
            .collect()
    }
}

/// The known name that is most like `name`, where one is like it.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let likeness = |known| strsim::normalized_damerau_levenshtein(known, name);
    let likeliest = known.iter().map(|known| (likeness(known), known));
    let likeliest = likeliest.max_by(|(one, _), (other, _)| one.total_cmp(other));
    likeliest.filter(|(likeness, _)| *likeness > 0.7).map(|(_, known)| known.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_no_far_one() {
        let known = ["SPIPED_CIPHER", "SPIPED_SOURCE", "SPIPED_LOG", "SPIPED_LOG_FORMAT"];
        let known = known.map(str::to_owned);
        let nearest = |name| nearest(name, &known);
        assert_eq!(nearest("SPIPED_CIPHR").as_deref(), Some("SPIPED_CIPHER"));
        assert_eq!(nearest("SPIPED_LOGFORMAT").as_deref(), Some("SPIPED_LOG_FORMAT"));
        assert_eq!(nearest("SPIPED_RESOURCES").as_deref(), Some("SPIPED_SOURCE"));
        assert_eq!(nearest("SPIPED_SOMETHING_ELSE"), None);
        let far = UnknownVariable::new("SPIPED_SOMETHING_ELSE".into(), &[]);
        assert!(far.hint().starts_with("remove it: no option has that name"));
    }
}
