//! What the environment says where the command line says nothing: `SPIPED_` and
//! an option's long name. An empty variable gives nothing.

use std::env;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Id, ValueHint};

use super::{ConfigError, GivenBy, ValueError};

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
}

impl<A: CommandFactory + FromArgMatches> CommandLine<A> {
    /// Reads both.
    ///
    /// # Errors
    /// When what was typed is none of the options.
    pub fn read() -> Result<Self, clap::Error> {
        let mut wrong = Vec::new();
        let mut command = A::command().mut_args(|arg| match Variable::of(&arg) {
            Variable::Usable => arg,
            Variable::Empty => arg.env(Resettable::Reset),
            Variable::Wrong(error) => {
                wrong.push((arg.get_id().clone(), error));
                arg.env(Resettable::Reset)
            }
        });
        let matches = command.try_get_matches_from_mut(env::args_os())?;
        let args = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let given = command.get_arguments().filter_map(|arg| given_by_variable(arg, &matches));
        let given = given.flatten().collect();
        let source = |id: &Id| matches.value_source(id.as_str());
        let mut wrong = wrong.into_iter();
        let wrong = wrong.find(|(id, _)| source(id) != Some(ValueSource::CommandLine));
        let environment = Environment { given, wrong: wrong.map(|(_, error)| error) };
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
    /// A configuration made of these values; an error names the variable that
    /// has caused it.
    ///
    /// # Errors
    /// That of the configuration, or what is wrong with a variable.
    pub fn check<C>(self, config: Result<C, ConfigError>) -> Result<C, ConfigError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let variable = |option: GivenBy| {
            let given = self.given.iter().find(|(name, _)| *name == option);
            given.map_or(option, |(_, variable)| variable.clone().into())
        };
        config.map_err(|error| match error {
            ConfigError::Value { by, error } => ConfigError::Value { by: variable(by), error },
            ConfigError::Conflict(one, other) => {
                ConfigError::Conflict(variable(one), variable(other))
            }
            ConfigError::NoRole
            | ConfigError::HandoverInBackground
            | ConfigError::Fast
            | ConfigError::Missing(_) => error,
        })
    }
}
