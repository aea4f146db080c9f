//! The command line is read twice: alone, and with the environment behind it. An
//! error that comes the second time only is caused by a variable.

use std::env;
use std::ffi::OsString;
use std::marker::PhantomData;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches};

use super::args::Args;
use super::command::Command;
use super::environment::{gives_nothing, no_text, set_given};
use super::error::ConfigError;
use super::unit::unit_name;
use super::unknown_variable::UnknownVariable;
use super::unread::Unread;
use super::unread::{typed_name, unread};

/// A command line that can be read; `A` has its options.
pub(crate) struct CommandLine<A> {
    /// What to do other than being an end of a pipe.
    pub(crate) command: Option<Command>,
    /// What was typed, behind the name of the program or command.
    words: Vec<OsString>,
    /// The options of `A` that were typed.
    typed: ArgMatches,
    args: PhantomData<A>,
}

impl<A: CommandFactory + FromArgMatches> CommandLine<A> {
    /// Reads what was typed.
    ///
    /// # Errors
    /// When that is no command line, or has a wrong value.
    pub(crate) fn read() -> Result<Self, Unread> {
        Self::of(env::args_os().collect())
    }

    /// Reads what was typed behind the name of a command, which has variables, too.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn of_command() -> Result<Self, Unread> {
        Self::of(env::args_os().skip(1).collect())
    }

    fn of(words: Vec<OsString>) -> Result<Self, Unread> {
        // The environment may give what is missing.
        let mut clap = A::command().mut_args(|arg| arg.env(Resettable::Reset).required(false));
        let groups: Vec<_> = clap.get_groups().map(|group| group.get_id().clone()).collect();
        for group in groups {
            clap = clap.mut_group(group, |group| group.required(false));
        }
        let mut all = A::command();
        all.build();
        let unread = |error: clap::Error| {
            // Only a command can miss anything, and clap names all that it misses.
            let is_of_command = error.kind() == ErrorKind::MissingRequiredArgument;
            if is_of_command { error.into() } else { unread(error, &all, &typed_name) }
        };
        let typed = clap.try_get_matches_from(&words).map_err(unread)?;
        let has_command = typed.subcommand_name().is_some();
        let command = has_command.then(|| Command::from_arg_matches(&typed)).transpose();
        Ok(Self { command: command.map_err(unread)?, words, typed, args: PhantomData })
    }

    /// A configuration made of what was typed with the environment behind it, and
    /// the variables that no option has. In a unit of ours all variables are set on
    /// purpose, so that an unknown one is an error.
    ///
    /// # Errors
    /// When the options, the variables, or both together, say what cannot be.
    pub(crate) fn config<C>(self) -> Result<(C, Vec<UnknownVariable>), Unread>
    where
        C: TryFrom<A, Error = ConfigError>,
    {
        self.config_and_values().map(|(config, unknown, _)| (config, unknown))
    }

    /// As [`Self::config`], and the values of the options as they were given.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub(crate) fn config_and_values<C>(
        self,
    ) -> Result<(C, Vec<UnknownVariable>, ArgMatches), Unread>
    where
        C: TryFrom<A, Error = ConfigError>,
    {
        let mut all = A::command();
        all.build();
        let unknown = UnknownVariable::all(&Args::command());
        if let Some(unknown) = unknown.first().filter(|_| unit_name().is_some()) {
            return Err(ConfigError::Unknown(unknown.clone()).into());
        }
        let mut untyped = all.get_arguments().filter(|arg| !self.is_typed(arg));
        if let Some(error) = untyped.find_map(no_text) {
            return Err(error.into());
        }
        let given = |arg: Arg| {
            if gives_nothing(&arg) { arg.env(Resettable::Reset) } else { arg }
        };
        let name = |arg: &Arg| match arg.get_env() {
            Some(variable) if !self.is_typed(arg) => variable.to_string_lossy().into_owned(),
            _ => typed_name(arg),
        };
        let mistyped = |error: Unread| match error {
            Unread::Options(ConfigError::Missing(option)) => {
                let missing = all.get_arguments().find(|arg| typed_name(arg) == option);
                let meant =
                    unknown.iter().find(|it| missing.is_some_and(|arg| it.is_meant_for(arg)));
                meant
                    .map_or(ConfigError::Missing(option), |it| ConfigError::Unknown(it.clone()))
                    .into()
            }
            other @ (Unread::Words(_) | Unread::Options(_)) => other,
        };
        let unread = |error| mistyped(unread(error, &all, &name));
        let matches = A::command().mut_args(given).try_get_matches_from(&self.words);
        let matches = matches.map_err(unread)?;
        set_given(all.get_arguments().filter(|arg| {
            matches.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable)
        }));
        let args = A::from_arg_matches(&matches).map_err(unread)?;
        let config = C::try_from(args).map_err(|error| mistyped(error.into()))?;
        Ok((config, unknown, matches))
    }

    fn is_typed(&self, arg: &Arg) -> bool {
        self.typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    }
}
