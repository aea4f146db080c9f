//! What the environment says where the command line says nothing: `SPIPED_` and
//! an option's long name. An empty variable gives nothing; one that no option has
//! is told.

use std::borrow::Cow;
use std::env;
use std::fmt;
use std::sync::OnceLock;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Id, ValueHint};

use super::{Args, ConfigError, GivenBy, ValueError};

/// The name of the unit that runs this process, where that is one of ours.
const UNIT: &str = "SPIPED_UNIT";

/// Each option whose value comes from the environment, with its variable.
static GIVEN: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// What was typed, with the environment behind it.
pub struct CommandLine<A> {
    /// The values of both.
    pub args: A,
    /// Which of them come from the environment.
    pub environment: Environment,
}

/// What the environment gives of a command line.
#[derive(Default)]
pub struct Environment {
    /// Options whose values come from there, each with its variable.
    given: Vec<(String, String)>,
    /// What is wrong with a variable whose option was not typed.
    wrong: Option<ConfigError>,
    /// Those that no option has.
    unknown: Vec<UnknownVariable>,
}

/// A variable that looks like one of ours and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
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
    pub const HINT: &str = "correct it or take it out; spiped(1) lists all under ENVIRONMENT";

    /// All there are.
    fn all() -> Vec<Self> {
        let command = Args::command();
        let of_options = command.get_arguments().filter_map(Arg::get_env);
        let known: Vec<_> = of_options.map(|name| name.to_string_lossy().into_owned()).collect();
        env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with("SPIPED_") && name != UNIT && !known.contains(name))
            .map(|name| Self { nearest: nearest(&name, &known), name })
            .collect()
    }
}

/// The known name that is most like it, where one is.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let likeness = |known| strsim::normalized_damerau_levenshtein(known, name);
    let likeliest = known.iter().map(|known| (likeness(known), known));
    let likeliest = likeliest.max_by(|(one, _), (other, _)| one.total_cmp(other));
    likeliest.filter(|(likeness, _)| *likeness > 0.7).map(|(_, known)| known.clone())
}

/// The name of the unit that runs this process, where that is one of ours.
#[must_use]
pub fn unit_name() -> Option<String> {
    env::var(UNIT).ok().filter(|name| !name.is_empty())
}

/// A text with options in it, as whoever gave their values wrote them: `-t` is
/// `SPIPED_TARGET` where that has given it.
#[must_use]
pub fn as_given(text: &str) -> Cow<'_, str> {
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
    // A variable has its value in it.
    words.collect::<Vec<_>>().join(" ").replace("after SPIPED_", "in SPIPED_").into()
}

/// The variable that has given the value of an option, if one has.
#[must_use]
pub fn variable_of(option: &str) -> Option<&'static str> {
    let given = GIVEN.get()?.iter().find(|(name, _)| name == option);
    given.map(|(_, variable)| variable.as_str())
}

impl<A: CommandFactory + FromArgMatches> CommandLine<A> {
    /// Reads both.
    ///
    /// # Errors
    /// When what was typed is none of the options.
    pub fn read() -> Result<Self, clap::Error> {
        let mut wrong = Vec::new();
        let mut command = A::command().mut_args(|arg| {
            // None of them, but our message says what is wanted.
            let takes_value = arg.get_action().takes_values();
            let arg = if takes_value { arg.allow_negative_numbers(true) } else { arg };
            match Variable::of(&arg) {
                Variable::Usable => arg,
                Variable::Empty => arg.env(Resettable::Reset),
                Variable::Wrong(error) => {
                    wrong.push((arg.get_id().clone(), error));
                    arg.env(Resettable::Reset)
                }
            }
        });
        let matches = command.try_get_matches_from_mut(env::args_os())?;
        let args = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let given = command.get_arguments().filter_map(|arg| given_by_variable(arg, &matches));
        let given = given.flatten().collect();
        let source = |id: &Id| matches.value_source(id.as_str());
        let mut wrong = wrong.into_iter();
        let wrong = wrong.find(|(id, _)| source(id) != Some(ValueSource::CommandLine));
        let unknown = UnknownVariable::all();
        let environment = Environment { given, wrong: wrong.map(|(_, error)| error), unknown };
        Ok(Self { args, environment })
    }
}

/// What the environment has for an option.
enum Variable {
    /// A value, or no such variable.
    Usable,
    Empty,
    Wrong(ConfigError),
}

impl Variable {
    /// A word that means neither yes nor no is not to turn an option on, or off.
    fn of(arg: &Arg) -> Self {
        const YES_OR_NO: [&str; 12] =
            ["1", "y", "yes", "t", "true", "on", "0", "n", "no", "f", "false", "off"];
        let Some(name) = arg.get_env() else { return Self::Usable };
        let Some(value) = env::var_os(name) else { return Self::Usable };
        let wrong = |error: fn(String) -> ValueError| {
            let by = name.to_string_lossy().into_owned().into();
            let error = error(value.to_string_lossy().into_owned());
            Self::Wrong(ConfigError::Value { by, error })
        };
        let takes_value = arg.get_action().takes_values();
        match value.to_str() {
            Some("") => Self::Empty,
            Some(text) if takes_value || YES_OR_NO.contains(&&*text.to_ascii_lowercase()) => {
                Self::Usable
            }
            Some(_) => wrong(ValueError::Flag),
            None if arg.get_value_hint() == ValueHint::AnyPath => Self::Usable,
            None => wrong(ValueError::NotText),
        }
    }
}

/// The option's names, each with its variable, where that gave its value.
fn given_by_variable(
    arg: &Arg,
    matches: &ArgMatches,
) -> Option<impl Iterator<Item = (String, String)>> {
    let variable = arg.get_env()?.to_string_lossy().into_owned();
    if matches.value_source(arg.get_id().as_str()) != Some(ValueSource::EnvVariable) {
        return None;
    }
    let short = arg.get_short().map(|name| format!("-{name}"));
    let long = arg.get_long().map(|name| format!("--{name}"));
    Some(short.into_iter().chain(long).map(move |name| (name, variable.clone())))
}

impl Environment {
    /// A configuration made of these values, and the variables that no option has;
    /// an error names the variable that has caused it. In a unit of ours all are set
    /// on purpose, so that an unknown one is an error.
    ///
    /// # Errors
    /// That of the configuration, or what is wrong with a variable.
    pub fn check<C>(
        self,
        config: Result<C, ConfigError>,
    ) -> Result<(C, Vec<UnknownVariable>), ConfigError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        if let Some(unknown) = self.unknown.first().filter(|_| unit_name().is_some()) {
            return Err(ConfigError::Unknown(unknown.clone()));
        }
        let variable = |option: GivenBy| {
            let given = self.given.iter().find(|(name, _)| *name == option);
            given.map_or(option, |(_, variable)| variable.clone().into())
        };
        let config = config.map_err(|error| match error {
            ConfigError::Value { by, error } => ConfigError::Value { by: variable(by), error },
            ConfigError::Conflict(one, other) => {
                ConfigError::Conflict(variable(one), variable(other))
            }
            ConfigError::NoRole
            | ConfigError::HandoverInBackground
            | ConfigError::Fast
            | ConfigError::Missing(_)
            | ConfigError::Unknown(_) => error,
        })?;
        // For all that is told later.
        let _given = GIVEN.set(self.given);
        Ok((config, self.unknown))
    }
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
