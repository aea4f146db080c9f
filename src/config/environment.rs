//! The variables: an option that is not typed takes its value from `SPIPED_` and its
//! long name. An empty variable gives no value. A variable that no option has is
//! reported.

use std::any::TypeId;
use std::borrow::Cow;
use std::env;
use std::ffi::OsString;
use std::iter;
use std::sync::OnceLock;

use clap::{Arg, ArgAction, ValueHint};

use super::error::ConfigError;
use super::headings::FOR_SPIPED_1;
use super::value::ValueError;
use super::value::yes_or_no;

/// Each option whose value comes from the environment, with its variable.
static GIVEN: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// The text with the names that the operator has used: where the variable
/// `SPIPED_TARGET` has given the target, it stands in the place of `-t`.
#[must_use]
pub(crate) fn as_given(text: &str) -> Cow<'_, str> {
    let given = GIVEN.get().map_or(&[][..], Vec::as_slice);
    let variable = |word: &str| {
        let option = word.trim_end_matches([',', ';', ':', '.', '?', ')']);
        let option = option.strip_suffix("'s").unwrap_or(option);
        let (_, variable) = given.iter().find(|(name, _)| name == option)?;
        Some(word.replacen(option, variable, 1))
    };
    if !text.split(' ').any(|word| variable(word).is_some()) {
        return text.into();
    }
    let words = text.split(' ').map(|word| variable(word).unwrap_or_else(|| word.to_owned()));
    // A value stands after an option, but in a variable.
    words.collect::<Vec<_>>().join(" ").replace("after SPIPED_", "in SPIPED_").into()
}

/// The variable that has given the value of an option, if one has.
#[must_use]
pub(crate) fn variable_of(option: &str) -> Option<&'static str> {
    let given = GIVEN.get()?.iter().find(|(name, _)| name == option);
    given.map(|(_, variable)| variable.as_str())
}

/// Remembers the options whose values come from their variables.
pub(super) fn set_given<'a>(args: impl Iterator<Item = &'a Arg>) {
    let names = |arg: &Arg| {
        let short = arg.get_short().map(|name| format!("-{name}"));
        let long = arg.get_long().map(|name| format!("--{name}"));
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        let names = short.into_iter().chain(long);
        names.zip(iter::repeat(variable.unwrap_or_default())).collect::<Vec<_>>()
    };
    // A process has one command line.
    let _is_set = GIVEN.set(args.flat_map(names).collect());
}

/// Gives an option the variable that has its long name; `-f` and `-g` have none.
pub(super) fn with_variable(arg: Arg) -> Arg {
    let is_value =
        matches!(arg.get_action(), ArgAction::Set | ArgAction::SetTrue | ArgAction::Append);
    let is_of_spiped_1 = arg.get_help_heading() == Some(FOR_SPIPED_1);
    let variable = match arg.get_long() {
        Some(long) if is_value && !is_of_spiped_1 => {
            format!("SPIPED_{}", long.to_uppercase().replace('-', "_"))
        }
        _ => return arg,
    };
    // No value is negative, but our own message says what is wanted.
    let takes_value = arg.get_action().takes_values();
    let arg = arg.env(variable).hide_env(true).allow_negative_numbers(takes_value);
    // For an option without a value, clap understands true and false only.
    let is_flag = arg.get_value_parser().type_id() == TypeId::of::<bool>();
    if is_flag { arg.value_parser(yes_or_no) } else { arg }
}

/// Whether the variable of an option gives no value: it is empty, or says no.
pub(super) fn gives_nothing(arg: &Arg) -> bool {
    let is_flag = !arg.get_action().takes_values();
    value(arg)
        .as_ref()
        .and_then(|value| value.to_str())
        .is_some_and(|text| text.is_empty() || (is_flag && yes_or_no(text) == Ok(false)))
}

/// The error of a variable that is not UTF-8, where its option wants a text.
pub(super) fn no_text(arg: &Arg) -> Option<ConfigError> {
    let value = value(arg).filter(|value| value.to_str().is_none())?;
    if arg.get_value_hint() == ValueHint::AnyPath {
        return None;
    }
    let by = arg.get_env()?.to_string_lossy().into_owned();
    let reason = format!("'{}' is not valid UTF-8", value.to_string_lossy());
    let error = ValueError::new(reason, "write it in UTF-8; only -k and -p take other bytes");
    Some(ConfigError::Value { by, error })
}

/// The value of an option's variable.
fn value(arg: &Arg) -> Option<OsString> {
    arg.get_env().and_then(env::var_os)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_as_they_were_given() {
        assert_eq!(as_given("check -t"), "check -t");
        let given = [("-t", "SPIPED_TARGET"), ("--target", "SPIPED_TARGET"), ("-b", "SPIPED_BIND")];
        GIVEN.set(given.map(|(name, by)| (name.to_owned(), by.to_owned())).to_vec()).unwrap();
        let cases = [
            (
                "check the name after -t and the resolver",
                "check the name in SPIPED_TARGET and the resolver",
            ),
            (
                "the address after -b, 10.0.0.9, cannot",
                "the address in SPIPED_BIND, 10.0.0.9, cannot",
            ),
            ("-t must not be what -s listens on", "SPIPED_TARGET must not be what -s listens on"),
            ("'-t' and x-t stay", "'-t' and x-t stay"),
        ];
        for (text, told) in cases {
            assert_eq!(as_given(text), told);
        }
        assert_eq!((variable_of("-b"), variable_of("-s")), (Some("SPIPED_BIND"), None));
    }
}
