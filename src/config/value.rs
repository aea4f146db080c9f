//! What the values of all options have in common.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use thiserror::Error;

use super::address::AddressError;

/// A value that an option does not take: what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(crate) struct ValueError {
    reason: String,
    hint: Cow<'static, str>,
}

impl ValueError {
    pub(crate) fn new(reason: String, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, hint: hint.into() }
    }

    /// The value is not what the option wants, which is all there is to say.
    pub(super) fn not(given: &str, wanted: &str) -> Self {
        Self::new(format!("'{given}' is not {wanted}"), "'--help' lists the options")
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn hint(&self) -> &str {
        &self.hint
    }
}

impl From<AddressError> for ValueError {
    fn from(error: AddressError) -> Self {
        Self::new(error.to_string(), error.hint())
    }
}

/// The words that turn an option without a value on, in the environment.
const YES: [&str; 6] = ["1", "y", "yes", "t", "true", "on"];
/// The words that leave such an option off.
const NO: [&str; 6] = ["0", "n", "no", "f", "false", "off"];

/// Reads what the environment says of an option without a value.
///
/// # Errors
/// When the word means neither: it must turn nothing on, and nothing off.
pub(super) fn yes_or_no(text: &str) -> Result<bool, ValueError> {
    let word = text.to_ascii_lowercase();
    if YES.contains(&&*word) {
        Ok(true)
    } else if NO.contains(&&*word) {
        Ok(false)
    } else {
        let hint = "1, yes, true or on; 0, no, false, off or nothing at all";
        Err(ValueError::new(format!("'{text}' is neither yes nor no"), hint))
    }
}

/// Reads a value, for which completions offer these words.
pub(super) fn with_words<T>(words: &'static [&'static str]) -> WithWords<T> {
    WithWords(words, PhantomData)
}

/// See [`with_words`].
#[derive(Clone)]
pub(super) struct WithWords<T>(&'static [&'static str], PhantomData<T>);

impl<T> TypedValueParser for WithWords<T>
where
    T: FromStr<Err = ValueError> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = StringValueParser::new();
        text.try_map(|text| text.parse::<T>()).parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// Makes one of two values of an option that has none.
pub(super) fn flag<T: Copy + Send + Sync + 'static>(
    off: T,
    on: T,
) -> impl TypedValueParser<Value = T> {
    move |text: &str| yes_or_no(text).map(|is_on| if is_on { on } else { off })
}

/// Reads a time in seconds, with fractions, of at most a day.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    const MAX: Duration = Duration::from_hours(24);
    let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (time <= MAX).then_some(time)
}
