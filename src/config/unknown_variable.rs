//! Variables that no option has.

use std::env;
use std::fmt;

use clap::{Arg, Command};

use super::unit::UNIT;

/// A variable that looks like that of an option, and no option has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownVariable {
    name: String,
    nearest: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no variable of spiped", self.name)?;
        self.nearest.as_ref().map_or(Ok(()), |nearest| write!(f, ", {nearest} is"))
    }
}

impl UnknownVariable {
    /// What to do about it.
    pub(crate) const HINT: &str =
        "correct it or take it out; spiped(1) lists all under ENVIRONMENT";

    /// All such variables of this process, whose options are those of `command`.
    pub(super) fn all(command: &Command) -> Vec<Self> {
        let of_options = command.get_arguments().filter_map(Arg::get_env);
        let known: Vec<_> = of_options.map(|name| name.to_string_lossy().into_owned()).collect();
        env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with("SPIPED_") && name != UNIT && !known.contains(name))
            .map(|name| Self { nearest: nearest(&name, &known), name })
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
    }
}
