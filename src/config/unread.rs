//! Why a command line, or the environment behind it, gives nothing to do: what clap
//! finds wrong becomes one line of ours.

use std::env;
use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command as Clap};

use super::address::AddressError;
use super::error::{ConfigError, missing_hint};
use super::value::ValueError;

/// Why there is nothing to do.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The words are no command line, or ask for help or the version.
    Words(Box<clap::Error>),
    /// The options, or the variables, say what cannot be.
    Options(ConfigError),
}

impl From<clap::Error> for Unread {
    fn from(error: clap::Error) -> Self {
        Self::Words(Box::new(error))
    }
}

impl From<ConfigError> for Unread {
    fn from(error: ConfigError) -> Self {
        Self::Options(error)
    }
}

/// Makes an error of ours from one of clap's, where we have one. `name` tells how the
/// operator has given an option.
pub(super) fn unread(error: clap::Error, clap: &Clap, name: &dyn Fn(&Arg) -> String) -> Unread {
    config_error(&error, clap, name).map_or_else(|| error.into(), Into::into)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "clap has its own text for all other kinds")]
fn config_error(
    error: &clap::Error,
    clap: &Clap,
    name: &dyn Fn(&Arg) -> String,
) -> Option<ConfigError> {
    let shown = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(shown) => shown,
        ContextValue::Strings(several) => several.first()?,
        _ => return None,
    };
    match error.kind() {
        ErrorKind::ValueValidation => {
            let by = name(find(clap, shown)?);
            let value = error.get(ContextKind::InvalidValue)?;
            Some(ConfigError::Value { by, error: value_error(value, error.source()?) })
        }
        ErrorKind::InvalidValue => {
            // An option of a pipe, at the end of the line; a command's own help says more.
            let mut words = env::args_os().skip(1);
            let is_missing = error.get(ContextKind::InvalidValue)?.to_string().is_empty()
                && words.next().is_none_or(|word| clap.find_subcommand(word).is_none());
            if !is_missing {
                return None;
            }
            let arg = find(clap, shown)?;
            let hint = missing_hint(&arg.get_short().map(|short| format!("-{short}"))?);
            let error = ValueError::new("no value follows it".into(), hint);
            Some(ConfigError::Value { by: name(arg), error })
        }
        ErrorKind::ArgumentConflict => {
            let prior = error.get(ContextKind::PriorArg)?.to_string();
            let both = |arg: &&Arg| [&prior, shown].contains(&&arg.to_string());
            // In the order of --help.
            let mut names = clap.get_arguments().filter(both).map(name);
            Some(ConfigError::Conflict(names.next()?, names.next()?))
        }
        ErrorKind::MissingRequiredArgument => {
            // -e and -d are shown as one: '<--encrypt|--decrypt>'.
            let all = error.get(ContextKind::InvalidArg)?.to_string();
            let missing = || Some(ConfigError::Missing(typed_name(find(clap, shown)?)));
            if all.contains('|') { Some(ConfigError::NoRole) } else { missing() }
        }
        _ => None,
    }
}

/// What is wrong with a value, as its type has told it.
fn value_error(value: &ContextValue, error: &(dyn Error + 'static)) -> ValueError {
    if let Some(error) = error.downcast_ref::<ValueError>() {
        error.clone()
    } else if let Some(error) = error.downcast_ref::<AddressError>() {
        error.clone().into()
    } else {
        // Of a type that is not ours, such as a plain number.
        ValueError::new(format!("'{value}': {error}"), "'--help' lists the options")
    }
}

/// The argument that clap shows like this, of a command or of those below it.
fn find<'a>(clap: &'a Clap, shown: &str) -> Option<&'a Arg> {
    let own = clap.get_arguments().find(|arg| arg.to_string() == shown);
    own.or_else(|| clap.get_subcommands().find_map(|below| find(below, shown)))
}

/// The name by which the operator has typed an option; else its shortest.
pub(super) fn typed_name(arg: &Arg) -> String {
    let is_typed = |name: &str| {
        env::args_os().any(|word| word.to_string_lossy().split('=').next() == Some(name))
    };
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    match (short, long) {
        (Some(_), Some(long)) if is_typed(&long) => long,
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => arg.to_string().trim_matches(['<', '>']).to_owned(),
    }
}
