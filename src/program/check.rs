//! `spiped check`, from its options to its exit code.

use std::process::ExitCode;

use super::find::{Found, find_and_ask};
use super::output::print;
use super::usage::usage;
use super::{end, printable, say, sender_key};
use crate::check::all::HostReport;
use crate::check::all::findings::Kind;
use crate::check::form::{json_of, plugin_of};
use crate::check::{Checked, check};
use crate::config::{
    AllConfig, CheckArgs, CheckConfig, CheckForm, CheckOf, CommandLine, ConfigError,
    UnknownVariable, Unread, ValueError, as_given,
};
use crate::daemon::limits::raise_limit;
use crate::daemon::proof::prepare;
use crate::report::{AnyError, SystemError};
use crate::status::Detail;

/// The fewest descriptors with which many pipes can be checked at once.
const DESCRIPTORS: usize = 128;

/// Whether this is the command. It has variables, as no other command has, so its words are
/// read apart from those of the program.
pub(super) fn is_typed() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == "check")
}

/// Runs the command.
pub(super) fn run() -> ExitCode {
    let line = CommandLine::<CheckArgs>::of_command().and_then(CommandLine::config);
    let line = line.map_err(|error| match error {
        Unread::Options(ConfigError::Missing(option)) => {
            Unread::Options(ConfigError::MissingInCheck(option))
        }
        other @ (Unread::Words(_) | Unread::Options(_)) => other,
    });
    let (of, unknown): (CheckOf, Vec<UnknownVariable>) = match line {
        Ok(config) => config,
        Err(error) => {
            return match usage(error) {
                Err(error) if std::env::args_os().any(|word| word == "--plugin") => failed(&error),
                result => end(result),
            };
        }
    };
    for unknown in unknown {
        say(&unknown.to_string(), unknown.hint());
    }
    match of {
        CheckOf::Receiver(config) => check_receiver(&config),
        CheckOf::All(config) => check_all(&config),
    }
}

fn check_receiver(config: &CheckConfig) -> ExitCode {
    match (checked(config), config.form) {
        (Ok(checked), CheckForm::Text) => end(print(&checked.text())),
        (Ok(checked), CheckForm::Json) => end(print(&checked.json())),
        (Ok(checked), CheckForm::Plugin) => end(print(&checked.plugin())),
        (Err(error), CheckForm::Text) => end(Err(error)),
        (Err(error), CheckForm::Json) => {
            let hint = as_given(error.hint());
            let printed = print(&json_of(&config.tunnel.target, &*error, &hint));
            end(printed.and(Err(error)))
        }
        (Err(error), CheckForm::Plugin) => failed(&error),
    }
}

/// Prints what an auditor asks of all pipes of this host.
fn check_all(config: &AllConfig) -> ExitCode {
    if let Some(unknown) = config.accept.iter().find(|name| !Kind::is_name(name)) {
        let all = Kind::ALL.map(|kind| kind.to_string()).join(", ");
        let reason = format!("'{unknown}' is no finding: there are {all}");
        let error = ValueError::new(reason, "spiped-check(1) tells what they mean");
        return end(Err(ConfigError::Value { by: "--accept".into(), error }.into()));
    }
    let is_json = config.is_json;
    let prepared = raise_limit(DESCRIPTORS).map_err(AnyError::from);
    let prepared =
        prepared.and_then(|_| Ok(prepare().map_err(SystemError::of("cannot check any pipe"))?));
    if let Err(error) = prepared {
        return end(Err(error));
    }
    let Found { asked, units, not_seen, .. } = find_and_ask(&[], Detail::Connections);
    let report = HostReport::of(&asked, &units, not_seen, config);
    let text = if is_json { report.json() } else { report.text() };
    let code = ExitCode::from(report.exit_code());
    print(&text).map_or_else(|error| end(Err(error)), |()| code)
}

fn checked(config: &CheckConfig) -> Result<Checked, AnyError> {
    Ok(check(config, sender_key(&config.tunnel.keys)?)?)
}

/// Tells Nagios of a failure.
fn failed(error: &AnyError) -> ExitCode {
    let (line, code) = plugin_of(&**error);
    let line = format!("{}\n", printable(line.trim_end()));
    print(&line).map_or_else(|error| end(Err(error)), |()| ExitCode::from(code))
}
